"""Find finished runs, read what they reached on the test tiles, and group those that differ in their seed only."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from sn6.config.overrides import key_of
from sn6.errors import UserError
from sn6.files import read_json
from sn6.metrics.comparison import PARTS, SCORES, RunResult
from sn6.sweeps.comparison import SEED
from sn6.sweeps.fold_run import finished_stage, run_folders
from sn6.sweeps.job_file import JOB_FILE, read_job
from sn6.training.resume import METRICS_FILE
from sn6.training.run_identity import differences
from sn6.training.saved_config import saved_config

TILES_FILE = "test_tiles.csv"
KINDS = ("tp", "fp", "fn")


@dataclass(frozen=True, eq=False)
class TileCounts:
    """What is counted on each test tile, in the order of their names.

    Attributes:
        names: image ids
        corners: west and north edge of each tile in m
        counts: true positives, false positives, false negatives, for each of PARTS
    """

    names: tuple[str, ...]
    corners: Float[np.ndarray, "tiles 2"]
    counts: Int64[np.ndarray, "parts tiles 3"]


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """A finished run.

    Attributes:
        folder: as it was found
        label: what names it beside others: the overrides of its job but the seed, or its folder
        config: of its last stage
        result: of its last stage
        tiles: names of the test tiles
        corners: west and north edge of each of them in m
        scored_on: what the tiles are
    """

    folder: Path
    label: str
    config: Mapping[str, Any]
    result: RunResult
    tiles: tuple[str, ...]
    corners: Float[np.ndarray, "tiles 2"]
    scored_on: str


def find_runs(path: Path) -> Iterator[Path]:
    """Yield the folder of a run, or those of the jobs of a sweep that have finished.

    Raises:
        UserError: there is neither
    """
    jobs = [job.parent for job in sorted(path.glob(f"*/{JOB_FILE}"))]
    if jobs:
        finished = [job for job in jobs if ".old" not in job.name and read_job(job / JOB_FILE)["status"] == "finished"]
        if not finished:
            raise UserError(f"no job of the sweep {path} has finished", kind="not_found", key="runs", value=str(path))
        yield from finished
    elif (path / METRICS_FILE).exists() or not (inner := run_folders(path)):
        yield path
    else:
        yield from inner


def read_run(folder: Path) -> ComparedRun:
    """Read a finished run.

    Raises:
        UserError: it is not finished, or a file is broken or of an older version
    """
    if not folder.is_dir():
        message = f"runs: there is no folder {folder}; give folders of runs or sweeps, such as outputs/NAME"
        raise UserError(message, kind="not_found", key="runs", value=str(folder))
    stage, _ = finished_stage(folder, "runs")
    test, counted = read_json(stage / METRICS_FILE)["test"], read_tile_counts(stage / TILES_FILE)
    scores = [*(f"{prefix}f1" for prefix in PARTS.values()), *(key for key in SCORES.values() if key in test)]
    needed: dict[str, type] = {"scored_on": str} | dict.fromkeys(scores, float)
    if wrong := [key for key, kind in needed.items() if not isinstance(test.get(key), (kind, int))]:
        path = stage / METRICS_FILE
        message = f"{path} has no valid test.{wrong[0]}, as a run of an older version of sn6; train the run again"
        raise UserError(message, kind="wrong_data", key=path, value=wrong[0])
    result = RunResult(test, counted.counts)
    return ComparedRun(
        folder, label_of(folder), saved_config(stage), result, counted.names, counted.corners, test["scored_on"]
    )


def label_of(folder: Path) -> str:
    """Return the overrides of a sweep's job but the seed, after the name of the sweep; else the name of the folder."""
    overrides = read_job(folder / JOB_FILE).get("overrides", [])
    swept = [override for override in overrides if key_of(override) != SEED]
    return ": ".join([folder.parent.name, *([", ".join(swept)] if swept else [])]) if overrides else folder.name


def read_tile_counts(path: Path) -> TileCounts:
    """Read what a run counted on each test tile.

    Raises:
        UserError: the file is missing, broken, or of a version that did not write where the tiles are
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = sorted(csv.DictReader(file), key=lambda row: row["image_id"])
        everything, touching = (
            np.array([[int(row[prefix + kind]) for kind in KINDS] for row in rows], dtype=np.int64).reshape(-1, 3)
            for prefix in (PARTS["all"], PARTS["touching"])
        )
        corners = np.array([(float(row["west"]), float(row["north"])) for row in rows]).reshape(-1, 2)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(
            f"{path} is missing, broken or of an older version ({type(error).__name__}: {error}); train the run again",
            kind="unreadable",
            key=path,
        ) from None
    counts = np.stack([everything, touching, everything - touching])
    return TileCounts(tuple(row["image_id"] for row in rows), corners, counts)


def group_runs(runs: Sequence[ComparedRun]) -> dict[str, list[ComparedRun]]:
    """Return the runs by the label of the first of those that differ in their seed only, in the order given.

    Raises:
        UserError: runs were scored on other tiles than the first one
    """
    groups: list[list[ComparedRun]] = []
    for run in runs:
        if run.tiles != runs[0].tiles or not np.array_equal(run.corners, runs[0].corners):
            raise UserError(
                f"{run.folder} was scored on other tiles ({len(run.tiles)} {run.scored_on}) than {runs[0].folder} "
                f"({len(runs[0].tiles)} {runs[0].scored_on}); compare runs on the same tiles",
                kind="conflict",
                key="runs",
                value=str(run.folder),
            )
        same = (one for one in groups if differences(one[0].config, run.config, False).keys() <= {SEED})
        if (group := next(same, None)) is None:
            groups.append([run])
        else:
            group.append(run)
    labels = [group[0].label for group in groups]
    return {
        label if labels.count(label) == 1 else str(group[0].folder): group
        for label, group in zip(labels, groups, strict=True)
    }
