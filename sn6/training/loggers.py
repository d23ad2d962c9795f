"""Where a run's values go: metrics.csv always, W&B and TensorBoard by choice, pictures and tables where they fit."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from omegaconf import DictConfig

from sn6.config import to_plain
from sn6.errors import UserError, first_line
from sn6.training.resume import logged_before

ARTIFACT = "checkpoint_artifact"  # a key of conf/logger/wandb.yaml that is not Lightning's


def make_loggers(config: DictConfig, folder: Path, step: int) -> list[Logger]:
    """metrics.csv and the loggers of the config group, told the config.

    Args:
        config: of the run
        folder: of the run
        step: that a stopped run goes on from, or 0

    Raises:
        UserError: W&B refuses the key or cannot be reached
    """
    loggers: list[Logger] = [csv_logger(folder, step)]
    for name, node in (config.logger or {}).items():
        more = {"wandb": wandb_arguments, "tensorboard": tensorboard_arguments}.get(str(name))
        arguments = to_plain(node) | (more(node, folder, step) if more else {})
        arguments.pop(ARTIFACT, None)
        logger = instantiate(arguments, _convert_="all")
        log_config(logger, to_plain(config))
        loggers.append(logger)
    return loggers


def csv_logger(folder: Path, step: int) -> CSVLogger:
    """Writes metrics.csv, and keeps what is in it from before `step`."""
    rows = logged_before(folder / "metrics.csv", step)
    logger = CSVLogger(folder, name="", version="", flush_logs_every_n_steps=1)
    if rows and is_rank_zero():
        logger.experiment.metrics.extend(rows)
        logger.save()
    return logger


def is_rank_zero() -> bool:
    """Whether this is the first process, before the Trainer knows: the others' loggers are dummies."""
    return getattr(rank_zero_only, "rank", 0) in (0, None)


def tensorboard_arguments(node: DictConfig, folder: Path, step: int) -> dict[str, Any]:
    """A run that goes on takes the place of what was logged after its checkpoint."""
    return {"purge_step": step} if step else {}


def wandb_arguments(node: DictConfig, folder: Path, step: int) -> dict[str, Any]:
    """Offline where no key is found, and under the id that the run had before it was stopped.

    W&B would ask for a key at the terminal and wait.
    """
    from requests.utils import get_netrc_auth

    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    has_key = os.environ.get("WANDB_API_KEY") or get_netrc_auth(host)
    offline = not has_key if node.offline is None else node.offline
    before = sorted(folder.glob("wandb/*run-*-*"))  # offline-run-20261123_120000-k4b3cxej
    going_on = {"id": before[-1].name.rpartition("-")[2], "resume": "allow"} if before else {}
    return {"offline": offline, **going_on}


def log_config(logger: Logger, config: dict[str, Any]) -> None:
    """Logs the config, which starts a W&B run.

    Raises:
        UserError: W&B refuses the key or cannot be reached
    """
    try:
        logger.log_hyperparams(config)
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "wandb":
            raise
        raise UserError(
            f"W&B does not start the run ({first_line(error)}); log in once more by `wandb login`, set WANDB_API_KEY, "
            "or stay offline by logger.wandb.offline=true"
        ) from None


def keep_checkpoint(config: DictConfig, loggers: Sequence[Logger], path: str) -> None:
    """The best checkpoint as an artifact of the W&B run, where the config asks for it; offline it waits for the sync.

    Lightning's own `log_model` refuses to do so offline.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger) and config.logger.wandb[ARTIFACT]:
            logger.experiment.log_artifact(path, name=f"best-{logger.experiment.id}", type="model")


def finish_loggers() -> None:
    """Ends the W&B run, if there is one: the next stage in this process would go on in it."""
    if (wandb := sys.modules.get("wandb")) is not None:
        wandb.finish()
