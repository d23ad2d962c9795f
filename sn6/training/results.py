"""What a training leaves in its folder when it is done: scores, tables of tiles, curves."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from sn6.callbacks.calibration import Choice
from sn6.callbacks.logged_media import log_picture, log_table
from sn6.callbacks.polygon_f1 import polygon_f1_of
from sn6.data.datamodule import TileDataModule
from sn6.errors import UserError
from sn6.files import write_csv
from sn6.metrics.tile_table import COLUMNS, UNSEEN
from sn6.plots.curves import curves_figure, threshold_figure
from sn6.plots.tiles import save_figure

TILE_COLUMNS = ("image_id", *COLUMNS)
log = logging.getLogger(__name__)


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


def validation_of(trainer: Trainer, best: str) -> dict[str, Any]:
    """What the score of polygons held when the checkpoint at `best` was written, and its `epoch`."""
    checkpoint = torch.load(best, map_location="cpu", weights_only=True)
    return checkpoint["callbacks"][polygon_f1_of(trainer).state_key] | {"epoch": checkpoint["epoch"]}


def build_metrics(trainer: Trainer, datamodule: TileDataModule, best: str, chosen: Choice | None) -> dict[str, Any]:
    """The scores of the test tiles, of the validation that chose the epoch, and what they were made from.

    `chosen` is how the footprints of the test were made, where training tiles chose it.
    """
    validation, polygon_f1, fold = validation_of(trainer, best), polygon_f1_of(trainer), datamodule.fold
    is_trained = trainer.max_epochs != 0
    return {
        **polygon_f1.scores,
        "scored_on": scored_on(trainer, datamodule),
        **{f"val_{key}": value for key, value in validation["scores"].items()},
        "epoch": validation["epoch"] if is_trained else None,
        "footprints": {
            "threshold": polygon_f1.threshold,
            "min_area": polygon_f1.min_area,
            "chosen_on": "training tiles" if chosen else "nothing, as the config says",
            "f1": chosen.f1 if chosen else None,
        },
        "chosen_by": getattr(trainer.checkpoint_callback, "monitor", None) if is_trained else None,
        "tiles_by_use": {
            "train": len(fold.train),
            "validation": len(fold.validation),
            "test": len(fold.test),
            "dropped": len(fold.dropped),
        },
        "precision_of_arithmetic": str(trainer.precision),
    }


def scored_on(trainer: Trainer, datamodule: TileDataModule) -> str:
    """What the scored tiles are; they chose no epoch of weights that were not trained here."""
    return datamodule.scored_on if trainer.max_epochs != 0 else datamodule.scored_on.partition(", which")[0]


def write_artifacts(trainer: Trainer, datamodule: TileDataModule, best: str) -> None:
    """The tables of tiles, the score against the threshold and the curves: in the run's folder and in the loggers."""
    folder, polygon_f1 = Path(trainer.default_root_dir), polygon_f1_of(trainer)
    for use, tiles, by_tile in (
        ("validation", datamodule.fold.validation, validation_of(trainer, best)["by_tile"]),
        ("test", datamodule.fold.test, polygon_f1.by_tile),
    ):
        rows = tile_rows([tile.image_id for tile in tiles], by_tile)
        write_csv(folder / f"{use}_tiles.csv", TILE_COLUMNS, rows)
        log_table(trainer.loggers, f"{use}/tiles", TILE_COLUMNS, rows)
    if polygon_f1.curve:
        columns, rows = list(polygon_f1.curve[0]), [list(point.values()) for point in polygon_f1.curve]
        write_csv(folder / "threshold.csv", columns, rows)
        log_table(trainer.loggers, "test/threshold", columns, rows)
        path = folder / "figures" / "threshold.png"
        save_figure(threshold_figure(polygon_f1.curve, scored_on(trainer, datamodule)), path)
        log_picture(trainer.loggers, "test/threshold", path, trainer.global_step)
    if trainer.max_epochs != 0:
        save_figure(curves_figure(folder / "metrics.csv"), folder / "figures" / "curves.png")


def tile_rows(image_ids: Sequence[str], by_tile: Tensor) -> list[list[Any]]:
    """A row of TILE_COLUMNS for each tile that was looked at; counts are whole numbers."""
    return [
        [image_id, row[0], *map(int, row[1:])]
        for image_id, row in zip(image_ids, by_tile.tolist(), strict=True)
        if row[0] != UNSEEN
    ]


def print_summary(metrics: dict[str, Any], folder: Path) -> None:
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
    if "weights" in metrics:
        log.warning("model.weights=%s: %s", metrics["weights"]["file"], metrics["weights"]["note"])
