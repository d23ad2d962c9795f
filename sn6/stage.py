"""One training from start to end: network and data, fit, test on the best checkpoint, what is left in its folder."""

import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning import Trainer, seed_everything
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger
from omegaconf import DictConfig, OmegaConf

from sn6.callbacks.polygon_f1 import polygon_f1_of
from sn6.callbacks.resume_point import WholeCheckpointIO
from sn6.config import check, plain
from sn6.curves import curves_figure
from sn6.data.datamodule import TileDataModule
from sn6.errors import UserError
from sn6.figures import save
from sn6.models.checkpoint import load_checkpoint
from sn6.resume import finished_metrics, last_checkpoint, logged_before, refuse_other_config
from sn6.segmenter import Segmenter
from sn6.whole import write_text

MONITORS = tuple(f"val/{key}" for key in ("f1", "precision", "recall", "iou", "loss"))
log = logging.getLogger(__name__)


def train(config: DictConfig) -> dict[str, Any]:
    """Trains and scores what `config` says, and leaves all in its folder; goes on where a stopped run was.

    Args:
        config: as conf/ composes it

    Returns:
        What metrics.json holds.

    Raises:
        UserError: whatever the user can mend
    """
    check(config)
    if config.trainer.precision is None:
        config.trainer.precision = fastest_precision(config.trainer.accelerator)
    folder = Path(config.folder)
    if (metrics := finished_metrics(folder, plain(config))) is not None:
        log.info("%s is finished; give another name=... to run again, or resume=false to start over", folder)
        return metrics
    started = time.monotonic()
    with quiet_libraries():
        seed_everything(config.seed, workers=True, verbose=False)
        path, step = last_checkpoint(folder) or (None, 0)
        if path is not None:
            refuse_other_config(folder, plain(config))
        segmenter, datamodule = make_modules(config)
        trainer = make_trainer(config, folder, step)
        if trainer.is_global_zero:
            write_text(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
        trainer.fit(segmenter, datamodule, ckpt_path=path)
        best = best_checkpoint(trainer)
        trainer.test(segmenter, datamodule, ckpt_path=best, verbose=False)
    metrics = collect(trainer, datamodule, best) | {"seconds": round(time.monotonic() - started, 1)}
    if trainer.is_global_zero:
        save(curves_figure(folder / "metrics.csv"), folder / "figures" / "curves.png")
        write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        report(metrics, folder)
    finish_loggers()
    return metrics


def make_modules(config: DictConfig) -> tuple[Segmenter, TileDataModule]:
    """The network with its loss and optimizer, and the data that it is trained on."""
    loss = instantiate(config.loss, _convert_="all")
    datamodule = instantiate(config.data, _convert_="all", pixel_weights=loss.pixel_weights)
    bands = list(datamodule.source.bands)
    if len(bands) != config.model.in_channels:
        raise UserError(
            f"data.bands={bands} gives {len(bands)} bands to a network of model.in_channels="
            f"{config.model.in_channels}; set one to fit the other"
        )
    model = plain(config.model)
    weights = model.pop("weights")
    network = instantiate(model, _convert_="all")
    if weights is not None:
        load_checkpoint(network, Path(weights))
    segmenter = Segmenter(
        network,
        loss,
        instantiate(config.optimizer, _convert_="all"),
        instantiate(config.schedule, _convert_="all"),
        config.seed,
        config.window,
        config.window_overlap,
        config=plain(config),
    )
    return segmenter, datamodule


def make_trainer(config: DictConfig, folder: Path, step: int) -> Trainer:
    """The Trainer with its callbacks and loggers; `step` is the one that a stopped run goes on from, or 0."""
    monitor = config.callbacks.checkpoint.monitor
    if monitor not in MONITORS:
        raise UserError(f"callbacks.checkpoint.monitor={monitor} is not logged; choose from {', '.join(MONITORS)}")
    if config.trainer.limit_val_batches == 0:
        raise UserError("trainer.limit_val_batches=0 leaves nothing to choose the epoch by; give 1 or more, or null")
    return instantiate(
        config.trainer,
        _convert_="all",
        callbacks=[instantiate(callback, _convert_="all") for callback in config.callbacks.values()],
        logger=[csv_logger(folder, step), *other_loggers(config)],
        plugins=[WholeCheckpointIO()],
        default_root_dir=folder,
        use_distributed_sampler=False,  # the datamodule deals the tiles out itself
        enable_model_summary=False,
    )


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


def other_loggers(config: DictConfig) -> list[Logger]:
    """Those of the config group, told the config."""
    loggers = [
        instantiate(logger, _convert_="all", **offline_without_key(logger)) for logger in (config.logger or {}).values()
    ]
    for logger in loggers:
        logger.log_hyperparams(plain(config))
    return loggers


def fastest_precision(accelerator: str) -> str:
    """bf16-mixed where the device computes in it, else 16-mixed on a GPU and 32-true on a CPU."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    native = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return "bf16-mixed" if native and accelerator in ("auto", "cpu") else "32-true"


def offline_without_key(logger: DictConfig) -> dict[str, Any]:
    """`{"offline": True}` for a W&B logger that is not told and finds no key: it would ask at the terminal."""
    if "offline" not in logger or logger.offline is not None:
        return {}
    from requests.utils import get_netrc_auth

    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    return {"offline": not (os.environ.get("WANDB_API_KEY") or get_netrc_auth(host))}


def finish_loggers() -> None:
    """Ends the W&B run, if there is one: the next stage in this process would go on in it."""
    if (wandb := sys.modules.get("wandb")) is not None:
        wandb.finish()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Leaves out what libraries say of themselves, and advice that does not hold here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",  # two processes feed two cores
            ".*sync_dist=True.*",  # the table of tiles is the same on all ranks already
            ".*is smaller than the logging interval.*",
            ".*isinstance.treespec, LeafSpec.*",  # Lightning's own
            ".*Checkpoint directory .* exists and is not empty.*",  # a run that goes on
            ".*Experiment logs directory .* exists and is not empty.*",  # config.yaml lies there already
        ):
            warnings.filterwarnings("ignore", message=message)
        yield


def best_checkpoint(trainer: Trainer) -> str:
    """The checkpoint with the best validation.

    Raises:
        UserError: there was no validation
    """
    checkpoint = trainer.checkpoint_callback
    assert isinstance(checkpoint, ModelCheckpoint)
    if not checkpoint.best_model_path:
        raise UserError(
            f"the run ended at step {trainer.global_step} before its first validation; raise trainer.max_steps or "
            "trainer.max_epochs, or validate more often by +trainer.val_check_interval=STEPS"
        )
    return checkpoint.best_model_path


def collect(trainer: Trainer, datamodule: TileDataModule, best: str) -> dict[str, Any]:
    """The scores of the test tiles, of the validation that chose the epoch, and what they were made from."""
    polygon_f1 = polygon_f1_of(trainer)
    checkpoint = torch.load(best, map_location="cpu", weights_only=True)
    validation = checkpoint["callbacks"][polygon_f1.state_key]["scores"]
    fold = datamodule.fold
    return {
        **polygon_f1.scores,
        "scored_on": datamodule.scored_on,
        **{f"val_{key}": value for key, value in validation.items()},
        "epoch": checkpoint["epoch"],
        "chosen_by": getattr(trainer.checkpoint_callback, "monitor", None),
        "tiles_by_use": {
            "train": len(fold.train),
            "validation": len(fold.validation),
            "test": len(fold.test),
            "dropped": len(fold.dropped),
        },
        "precision_of_arithmetic": str(trainer.precision),
    }


def report(metrics: dict[str, Any], folder: Path) -> None:
    """Says on screen what came out and where it lies."""
    log.info(
        "polygon F1 %.3f on the %s (precision %.3f, recall %.3f; a perfect binary mask reaches %.3f)\n%s",
        metrics["f1"],
        metrics["scored_on"],
        metrics["precision"],
        metrics["recall"],
        metrics["ceiling_f1"],
        "\n".join(f"  {path}" for path in sorted(folder.iterdir()) if not path.name.startswith(".")),
    )
