"""Where the values of a run are logged: metrics.csv always, W&B and TensorBoard by choice."""

import csv
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import get_class, instantiate
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from sn6.errors import UserError, first_line
from sn6.files import write_csv
from sn6.training.resolved_config import ResolvedConfig
from sn6.training.resume import rows_before


class TableWriter(ExperimentWriter):
    """Write metrics.csv: rows are appended, everything else replaces the table atomically.

    Lightning removes or empties the file first, so that a full disk or a kill would lose all rows.
    """

    def restore(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace the table of an earlier run by these rows of it."""
        self.metrics_keys = sorted(set().union(*rows))
        if rows:
            self._replace(rows)
        else:
            Path(self.metrics_file_path).unlink(missing_ok=True)

    def _replace(self, rows: Iterable[Mapping[str, Any]]) -> None:
        table = [[row.get(name, "") for name in self.metrics_keys] for row in rows]
        write_csv(Path(self.metrics_file_path), self.metrics_keys, table)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with open(self.metrics_file_path, newline="") as file:
            self._replace(list(csv.DictReader(file)))

    def _check_log_dir_exists(self) -> None:
        """Keep the file, which `restore` replaces."""


class TableLogger(CSVLogger):
    """Log to metrics.csv."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Return the writer, made at the first access."""
        if self._experiment is None:
            self._experiment = TableWriter(self.log_dir)
        return self._experiment


class WandbRunLogger(WandbLogger):
    """W&B, offline where no key is set, and under the id that a resumed run had before.

    Without a key W&B would ask for one at the terminal and wait. The summary has the validation of the best checkpoint
    so far: by default W&B takes the last one, and would rank runs by an epoch that was not selected.

    Args:
        save_dir: folder of the run
        offline: None is offline where no key is set
        checkpoint_artifact: keep the best checkpoint as an artifact
        arguments: of Lightning's logger
    """

    def __init__(
        self, save_dir: str, offline: bool | None = None, checkpoint_artifact: bool = False, **arguments: Any
    ) -> None:
        before = sorted(Path(save_dir).glob("wandb/*run-*-*"))  # offline-run-20261123_120000-k4b3cxej
        resumed: dict[str, Any] = {"id": before[-1].name.rpartition("-")[2], "resume": "allow"} if before else {}
        super().__init__(
            save_dir=save_dir, offline=not has_wandb_key() if offline is None else offline, **resumed, **arguments
        )
        self.checkpoint_artifact = checkpoint_artifact
        self.validation: dict[str, float] = {}  # the last one

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log values, those of a validation without taking them into the summary."""
        validation = {key: value for key, value in metrics.items() if key.startswith("val/")}
        for key in validation.keys() - self.validation.keys():
            self.experiment.define_metric(key, step_metric="trainer/global_step", summary="none")
        self.validation |= validation
        super().log_metrics(metrics, step)

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Take the last validation into the summary, if it is the best so far."""
        super().after_save_checkpoint(checkpoint_callback)
        score = checkpoint_callback.current_score
        if score is not None and score == checkpoint_callback.best_model_score:
            self.experiment.summary.update(self.validation)


def has_wandb_key() -> bool:
    """Return whether W&B finds a key in the environment or in the netrc file."""
    from requests.utils import get_netrc_auth

    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    return bool(os.environ.get("WANDB_API_KEY") or get_netrc_auth(host))


def make_loggers(config: ResolvedConfig, step: int) -> list[Logger]:
    """Make the logger of metrics.csv and those of the config group, and log the config.

    Args:
        config: of the run
        step: from which a stopped run resumes, or 0

    Raises:
        UserError: W&B refuses the key or is out of reach
    """
    loggers: list[Logger] = [csv_logger(config.folder, step)]
    for node in (config.tree.logger or {}).values():
        more: dict[str, Any] = {}
        if step and issubclass(get_class(node._target_), TensorBoardLogger):
            more = {"purge_step": step}  # drops what was logged after the checkpoint of a resumed run
        elif issubclass(get_class(node._target_), WandbRunLogger):
            more = {"job_type": node.get("job_type") or stage_of(config), "tags": node.get("tags") or tags_of(config)}
        logger = instantiate(node, _convert_="all", **more)
        log_config(logger, config.to_dict())
        loggers.append(logger)
    return loggers


def stage_of(config: ResolvedConfig) -> str:
    """Return the stage of a run in stages, else "train", or "score" for weights that are not trained."""
    if config.tree.folder != config.tree.run_folder:
        return config.folder.name
    return "score" if config.tree.trainer.max_epochs == 0 else "train"


def tags_of(config: ResolvedConfig) -> list[str]:
    """Return what W&B finds a run by: its stage, network, heads, losses and data set."""
    tree = config.tree
    heads = {str(name): head for name, head in tree.heads.items() if head is not None}
    targets = [tree.model._target_, *(head.loss._target_ for head in heads.values()), tree.data.dataset._target_]
    model, *losses, data_set = [target.rpartition(".")[2] for target in targets]
    return list(dict.fromkeys([stage_of(config), model, *heads, *losses, data_set, tree.data.product]))


def csv_logger(folder: Path, step: int) -> TableLogger:
    """Make the logger of metrics.csv, which keeps the rows from before `step`."""
    logger = TableLogger(folder, name="", version="", flush_logs_every_n_steps=1)
    if is_rank_zero():
        logger.experiment.restore(rows_before(folder / "metrics.csv", step))
    return logger


def is_rank_zero() -> bool:
    """Return whether this is the first process, before the Trainer knows: the others' loggers are dummies."""
    return getattr(rank_zero_only, "rank", 0) in (0, None)


def log_config(logger: Logger, config: dict[str, Any]) -> None:
    """Log the config, which starts a W&B run.

    Raises:
        UserError: W&B refuses the key or is out of reach
    """
    try:
        logger.log_hyperparams(config)
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "wandb":
            raise
        raise UserError(
            f"W&B could not start the run ({first_line(error)}); log in again with `wandb login`, set WANDB_API_KEY, "
            "or stay offline by logger.wandb.offline=true",
            kind="unavailable",
            key="logger.wandb",
        ) from None


def log_checkpoint(loggers: Sequence[Logger], path: str) -> None:
    """Log the best checkpoint as an artifact of the W&B run, where the config wants one; offline it waits for a sync.

    Lightning's own `log_model` refuses to do so offline.
    """
    for logger in loggers:
        if isinstance(logger, WandbRunLogger) and logger.checkpoint_artifact:
            logger.experiment.log_artifact(path, name=f"best-{logger.experiment.id}", type="model")


def log_results(loggers: Sequence[Logger], config: dict[str, Any], metrics: Mapping[str, Any]) -> None:
    """Log the scores of metrics.json: to the summary of W&B, and beside the hyperparameters in TensorBoard.

    Args:
        loggers: of the run
        config: of the run
        metrics: contents of metrics.json
    """
    scores = {
        f"{prefix}/{key}": value
        for prefix, part in (("val", "validation"), ("test", "test"))
        for key, value in metrics[part].items()
        if isinstance(value, int | float)
    }
    for logger in loggers:
        if isinstance(logger, WandbRunLogger):
            logger.experiment.summary.update(scores)
        elif isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(config, {f"final/{key}": value for key, value in scores.items()})


def finish_loggers() -> None:
    """End the W&B run, if there is one: else the next stage in this process would continue in it."""
    if (wandb := sys.modules.get("wandb")) is not None:
        wandb.finish()
