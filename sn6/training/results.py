"""What a training stage writes to its folder at the end: scores, tables of tiles, curves."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from sn6.callbacks.calibration import Choice
from sn6.callbacks.image_logging import log_pictures
from sn6.callbacks.logged_media import log_picture, log_table
from sn6.callbacks.polygon_f1 import polygon_f1_of
from sn6.checkpoints.final_weights import write_final_weights
from sn6.checkpoints.run_files import WEIGHTS_FILE
from sn6.checkpoints.torch_file import read_torch_file
from sn6.data.datamodule import TileDataModule
from sn6.datasets.declaration import Tile
from sn6.errors import UserError
from sn6.files import write_csv
from sn6.metrics.tile_table import COLUMNS, COUNTS, UNSEEN
from sn6.plots.curves import Course, calibration_figure, curves_figure, threshold_figure
from sn6.plots.tiles import save_figure
from sn6.simulation.archive import is_simulated
from sn6.training.contact_sheet import CONTACT_SHEET, draw_contact_sheet
from sn6.training.environment import environment
from sn6.training.resume import read_best

log = logging.getLogger(__name__)
TILE_COLUMNS = ("image_id", "west", "north", *COLUMNS)
PART_SCORES = ("f1", "precision", "recall", "tp", "fp", "fn")
INSTANCE_SCORES = (
    *("ap50", "pq", "matched_iou", "merged", "split"),
    *(f"{part}_{score}" for part in ("touching", "alone") for score in PART_SCORES),
)


def best_checkpoint(trainer: Trainer, config: Mapping[str, Any]) -> str:
    """Return the path of the checkpoint with the best validation.

    Args:
        trainer: after the training
        config: of the run

    Raises:
        UserError: there was no validation, or the file is missing, broken, or of another run
    """
    checkpoint = trainer.checkpoint_callback
    assert isinstance(checkpoint, ModelCheckpoint)
    if not checkpoint.best_model_path:
        raise UserError(
            f"the run ended at step {trainer.global_step} before its first validation; raise trainer.max_steps or "
            "trainer.max_epochs, or validate more often with +trainer.val_check_interval=STEPS",
            kind="failed",
            key="trainer.max_steps",
        )
    read_best(Path(checkpoint.best_model_path), config)
    return checkpoint.best_model_path


def validation_of(trainer: Trainer, best: str) -> dict[str, Any]:
    """Return the state of PolygonF1 in the checkpoint `best`, after its validation, with its `epoch` and `step`."""
    checkpoint = read_torch_file(Path(best))
    place = {"epoch": checkpoint["epoch"], "step": checkpoint["global_step"]}
    return checkpoint["callbacks"][polygon_f1_of(trainer).state_key] | place


@contextmanager
def timed(timing: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds that the work inside takes to `timing`."""
    started = time.monotonic()
    yield
    timing[name] = round(timing.get(name, 0.0) + time.monotonic() - started, 1)


def build_metrics(
    trainer: Trainer, datamodule: TileDataModule, best: str, choice: Choice | None, timing: dict[str, float]
) -> dict[str, Any]:
    """Return the contents of metrics.json: scores of test and validation tiles, and how they were made.

    Args:
        trainer: after the test
        datamodule: of the training
        best: path of the best checkpoint
        choice: how the operating point was calibrated, None where it is the config's
        timing: seconds by phase
    """
    validation, polygon_f1 = validation_of(trainer, best), polygon_f1_of(trainer)
    is_trained = trainer.max_epochs != 0
    return {
        "test": as_scores(polygon_f1.scores)
        | {"scored_on": scored_on(trainer, datamodule), "oracle": polygon_f1.oracle}
        | by_class(polygon_f1.class_scores),
        "validation": as_scores(validation["scores"])
        | {
            "epoch": validation["epoch"] if is_trained else None,
            "selected_by": getattr(trainer.checkpoint_callback, "monitor", None) if is_trained else None,
        }
        | by_class(validation.get("classes", {})),
        "operating_point": polygon_f1.polygonizer.to_dict()
        | {"calibrated_on": "validation tiles" if choice else None}
        | (choice.to_dict() if choice else {"f1": None, "halves": None}),
        "data": describe_data(datamodule),
        "environment": environment(trainer),
        "timing": {"total": timing["total"], **timing},
    }


def write_weights_file(folder: Path, best: str) -> None:
    """Write `weights.safetensors` to the folder of a run, from its best checkpoint after the calibration.

    Weights that nothing can be predicted with, such as NaN, end no run: its scores say what they are.

    Raises:
        UserError: the file cannot be written, or the disk is full
    """
    path = folder / WEIGHTS_FILE
    try:
        write_final_weights(Path(best), path, "checkpoint")
    except UserError as error:
        if error.kind == "unwritable":
            raise
        path.unlink(missing_ok=True)  # of an earlier end of the run, which has gone on
        log.warning("%s is not written: %s", WEIGHTS_FILE, error)


def as_scores(scores: dict[str, float]) -> dict[str, float]:
    """Return the scores of a pass over tiles, the most important first."""
    keys = ("f1", "precision", "recall", "iou", "loss", "tp", "fp", "fn")
    tiles = {"tiles": scores["scored_tiles"]}
    return {key: scores[key] for key in keys} | tiles | {key: scores[key] for key in INSTANCE_SCORES}


def by_class(scores: dict[str, dict[str, float]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the scores of each class of buildings under the key `classes`; nothing where there is one class."""
    return {"classes": scores} if scores else {}


def describe_data(datamodule: TileDataModule) -> dict[str, Any]:
    """Return what a training saw, for its metrics.json."""
    fold, source = datamodule.fold, datamodule.source
    further = {
        name: {"tiles": len(other.fold.train), "weight": weight} for name, (other, weight) in datamodule.further.items()
    }
    return {
        "tiles": {
            "train": len(fold.train),
            "validation": len(fold.validation),
            "test": len(fold.test),
            "dropped": len(fold.dropped),
        },
        "partition": datamodule.partition,
        "fold": datamodule.fold_index,
        "test_column": datamodule.test_column,
        "product": source.product.name,
        "bands": list(source.bands),
        "simulated": is_simulated(datamodule.data_set.root),
    } | ({"further": further} if further else {})


def scored_on(trainer: Trainer, datamodule: TileDataModule) -> str:
    """Return what the scored tiles are; for weights that were not trained here they selected no epoch."""
    return datamodule.scored_on if trainer.max_epochs != 0 else datamodule.scored_on.partition(", which")[0]


def write_artifacts(name: str, trainer: Trainer, datamodule: TileDataModule, best: str, choice: Choice | None) -> None:
    """Write the tables and figures of a run to its folder, and log them."""
    folder, polygon_f1 = Path(trainer.default_root_dir), polygon_f1_of(trainer)
    validation = validation_of(trainer, best)
    for use, tiles, by_tile in (
        ("validation", datamodule.fold.validation, validation["by_tile"]),
        ("test", datamodule.fold.test, polygon_f1.by_tile),
    ):
        rows = tile_rows(tiles, by_tile)
        write_csv(folder / f"{use}_tiles.csv", TILE_COLUMNS, rows)
        log_table(trainer.loggers, f"{use}/tiles", TILE_COLUMNS, rows)
    if polygon_f1.curve:
        columns, rows = list(polygon_f1.curve[0]), [list(point.values()) for point in polygon_f1.curve]
        write_csv(folder / "threshold.csv", columns, rows)
        log_table(trainer.loggers, "test/threshold", columns, rows)
        path = folder / "figures" / "threshold.png"
        save_figure(threshold_figure(polygon_f1.curve, scored_on(trainer, datamodule)), path)
        log_picture(trainer.loggers, "test/threshold", path, trainer.global_step)
    if choice is not None:
        table = choice.table()
        write_csv(folder / "calibration.csv", list(table[0]), [list(row.values()) for row in table])
        path = folder / "figures" / "calibration.png"
        save_figure(calibration_figure(table, choice.fields), path)
        log_picture(trainer.loggers, "validation/calibration", path, trainer.global_step)
    if trainer.max_epochs != 0:
        steps = trainer.num_training_batches / trainer.accumulate_grad_batches
        course = Course(max(ceil(steps), 1), validation["step"], polygon_f1.oracle["f1"])
        save_figure(curves_figure(folder / "metrics.csv", course), folder / "figures" / "curves.png")
    log_pictures(trainer)
    path = folder / CONTACT_SHEET
    save_figure(draw_contact_sheet(name, trainer, datamodule), path)
    log_picture(trainer.loggers, "test/contact_sheet", path, trainer.global_step)


def tile_rows(tiles: Sequence[Tile], by_tile: Tensor) -> list[list[Any]]:
    """Return a row of TILE_COLUMNS for each tile that was scored; counts are whole numbers."""
    return [
        [tile.image_id, tile.bounds[0], tile.bounds[3]]
        + [int(value) if key in COUNTS else value for key, value in zip(COLUMNS, row, strict=True)]
        for tile, row in zip(tiles, by_tile.tolist(), strict=True)
        if row[0] != UNSEEN
    ]
