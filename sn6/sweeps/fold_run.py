"""A finished run of one fold: its checkpoint, its config, and the tiles that it validated."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sn6.checkpoints.run_files import FINAL_WEIGHTS
from sn6.errors import UserError
from sn6.files import read_json
from sn6.sweeps.job_file import JOB_FILE, read_job
from sn6.training.resume import METRICS_FILE, is_complete
from sn6.training.saved_config import CONFIG_FILE, saved_config

DATA_KEYS = ("product", "partition", "fold", "test_column")  # that the config of a run must have
TILES_FILE = "validation_tiles.csv"


@dataclass(frozen=True)
class FoldRun:
    """A finished run.

    Attributes:
        folder: of the run, or of its last stage
        checkpoint: of the epoch with the best validation
        config: of the run, or of its last stage
        fold: the part that validated
        tiles: image ids of the tiles that it validated
    """

    folder: Path
    checkpoint: Path
    config: Mapping[str, Any]
    fold: int
    tiles: tuple[str, ...]


def run_folders(folder: Path) -> list[Path]:
    """Return the subfolders that runs or jobs have written to, without those that a run moved aside."""
    if not folder.is_dir():
        return []
    subfolders = [path for path in sorted(folder.iterdir()) if path.is_dir() and ".old" not in path.name]
    files = (JOB_FILE, CONFIG_FILE, f"*/{CONFIG_FILE}")
    return [path for path in subfolders if any(any(path.glob(name)) for name in files)]


def finished_stage(folder: Path, key: str) -> tuple[Path, Path]:
    """Return the folder of the last stage of a run, and its checkpoint with the best validation.

    Args:
        folder: of the run
        key: that named it, for the message

    Raises:
        UserError: the run is not finished
    """
    checkpoints = [folder / name for name in FINAL_WEIGHTS if name.endswith(".ckpt")]
    checkpoint = next(filter(Path.exists, checkpoints), None)
    stage = folder if checkpoint is None else checkpoint.parents[1]
    metrics = stage / METRICS_FILE
    if checkpoint is None or not metrics.exists() or not is_complete(read_json(metrics)):
        error = read_job(folder / JOB_FILE).get("error")
        raise UserError(
            f"{folder} is not finished{f' ({error})' if error else ''}; run the command that made it again, which "
            "resumes it, or delete the folder",
            kind="not_found",
            key=key,
            value=str(folder),
        )
    return stage, checkpoint


def read_fold_run(folder: Path) -> FoldRun:
    """Read a run.

    Raises:
        UserError: it is not finished, or a file is broken
    """
    stage, checkpoint = finished_stage(folder, "runs")
    config = saved_config(stage)
    missing = [f"data.{key}" for key in DATA_KEYS if key not in config["data"]]
    missing += [] if "polygons" in config else ["polygons"]
    if missing:
        raise UserError(
            f"{stage / CONFIG_FILE} has no {missing[0]}, as a run of an older version of sn6; train it again",
            kind="wrong_data",
            key=stage / CONFIG_FILE,
        )
    return FoldRun(stage, checkpoint, config, config["data"]["fold"], validated_tiles(stage / TILES_FILE))


def validated_tiles(path: Path) -> tuple[str, ...]:
    """Read the image ids of the tiles that a run validated.

    Raises:
        UserError: the file is missing, broken or empty, or names a tile twice
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            tiles = tuple(row["image_id"] for row in csv.DictReader(file))
    except (OSError, ValueError, KeyError, csv.Error):
        tiles = ()
    if not tiles or not all(tiles) or len(set(tiles)) < len(tiles):
        raise UserError(f"{path} is missing or broken; restore it, or run the fold again", kind="unreadable", key=path)
    return tiles
