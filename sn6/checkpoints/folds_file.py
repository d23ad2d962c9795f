"""The file that makes one result of the runs of a folder: their checkpoints, and the operating point of all."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sn6.checkpoints.polygonizer import build_polygonizer, field_values, target_of
from sn6.checkpoints.run_files import FINAL_WEIGHTS
from sn6.datasets.fingerprint import file_sha256
from sn6.errors import UserError
from sn6.files import read_json, write_text
from sn6.footprints.polygonizer import Polygonizer

FOLDS_FILE = "operating_point.json"


@dataclass(frozen=True)
class Folds:
    """Runs of different folds whose outputs are averaged.

    Attributes:
        path: the file
        checkpoints: of the runs, in the order of their folds
        point: `_target_` and fields of the polygonizer, and how they were chosen
    """

    path: Path
    checkpoints: tuple[Path, ...]
    point: Mapping[str, Any]

    def polygonizer(self, own: Polygonizer, **given: float | None) -> Polygonizer:
        """Return the polygonizer at the operating point of all runs, with the fields that are given.

        Args:
            own: of one of the runs, of the same class
            given: field → value, None keeps that of the operating point

        Raises:
            UserError: the file names another class, or a field or value that the class refuses
        """
        if target_of(self.point) != target_of(own.to_dict()):
            raise UserError(
                f"{self.path} is for {target_of(self.point)}, but the checkpoints have {target_of(own.to_dict())}; "
                f"{how_to_make(self.path.parent)}",
                kind="conflict",
                key=self.path,
            )
        values = {key: value for key, value in given.items() if value is not None}
        return build_polygonizer(field_values(self.point) | values, str(self.path))

    def averaging_warning(self, flips: bool, scales: Sequence[float]) -> str | None:
        """Return a warning if outputs are averaged over other flips or scales than the point was calibrated with."""
        calibrated = bool(self.point.get("flips", False)), list(self.point.get("scales", [1.0]))
        if (flips, list(scales)) == calibrated:
            return None
        shown = f"flips={str(calibrated[0]).lower()} and scales={calibrated[1]}"
        return f"{self.path} was calibrated with {shown}; give the same, or calibrate again with these"


def write_folds(folder: Path, checkpoints: Sequence[Path], point: Mapping[str, Any]) -> None:
    """Write the file.

    Args:
        folder: that contains the runs
        checkpoints: of the runs
        point: `_target_` and fields of the polygonizer, and how they were chosen
    """
    runs = [{"checkpoint": str(path.relative_to(folder)), "sha256": file_sha256(path)} for path in checkpoints]
    write_text(folder / FOLDS_FILE, json.dumps({**point, "runs": runs}, indent=2) + "\n")


def read_folds(folder: Path) -> Folds | None:
    """Read the file of a folder of runs; None where `folder` is no such folder.

    Raises:
        UserError: the folder contains runs and no such file, the file is broken, or a checkpoint is another than when
            it was written
    """
    path = folder / FOLDS_FILE
    if not path.exists():
        is_run = any((folder / name).exists() for name in FINAL_WEIGHTS)
        runs_below = {one for name in FINAL_WEIGHTS for one in folder.glob("*") if (one / name).exists()}
        if not is_run and len(runs_below) > 1:
            raise UserError(
                f"checkpoint={folder} contains runs, but no {FOLDS_FILE}; {how_to_make(folder)} where they are folds; "
                "or give one run, or several as checkpoint=[a,b]",
                kind="not_found",
                key="checkpoint",
                value=str(folder),
            )
        return None
    point = read_json(path)
    try:
        runs = {folder / run["checkpoint"]: str(run["sha256"]) for run in point["runs"]}
        target_of(point)
    except (KeyError, TypeError, AttributeError):
        runs = {}
    if not runs:
        raise UserError(f"{path} names no runs; {how_to_make(folder)}", kind="wrong_data", key=path)
    for checkpoint, sha256 in runs.items():
        if not checkpoint.is_file() or file_sha256(checkpoint) != sha256:
            raise UserError(
                f"{checkpoint} is missing, or another file than that of {path}; {how_to_make(folder)} again",
                kind="conflict",
                key=path,
                value=str(checkpoint),
            )
    return Folds(path, tuple(runs), point)


def how_to_make(folder: Path) -> str:
    """Return the command that writes the file."""
    return f"`python -m sn6.score runs={folder}` writes it"
