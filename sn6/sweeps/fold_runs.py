"""The runs of a folder that differ in their fold only, and the tiles that each of them validated."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sn6.data.folds import bounds_of, make_fold
from sn6.data.partitions import PARTITIONS
from sn6.datasets.declaration import DataSet, Tile
from sn6.datasets.fingerprint import data_fingerprint
from sn6.datasets.from_config import open_data_set, path_keys
from sn6.errors import UserError, counted
from sn6.sweeps.fold_run import FoldRun, read_fold_run, run_folders
from sn6.training.resume import METRICS_FILE
from sn6.training.run_identity import differences
from sn6.training.run_inputs import saved_inputs, value_of
from sn6.training.saved_config import CONFIG_FILE

FOLD_KEY, ROOT_KEY = "data.fold", "data.root"


@dataclass(frozen=True)
class FoldRuns:
    """Runs that validate each part of an archive once, in the order of their folds.

    Attributes:
        folder: that contains the runs
        runs: the runs
        data_set: of their tiles
        tiles: the validated tiles of each run
        unvalidated: number of labelled tiles that no run validated
    """

    folder: Path
    runs: tuple[FoldRun, ...]
    data_set: DataSet
    tiles: tuple[list[Tile], ...]
    unvalidated: int

    def note(self) -> str | None:
        """Return how many labelled tiles no run validated, in a line; None where all are validated."""
        if not self.unvalidated:
            return None
        total = self.unvalidated + sum(map(len, self.tiles))
        return (
            f"{self.unvalidated} of {counted(total, 'labelled training tile')} are in no fold's validation and not "
            "scored: they overlap test tiles, are in data.test_column, or are beyond trainer.limit_val_batches"
        )

    @property
    def proposals(self) -> Path:
        """Return the file of the out-of-fold footprints."""
        return self.folder / "proposals.csv"

    @property
    def fold_of(self) -> dict[str, int]:
        """Return the fold of each validated tile, by its image id."""
        return {image_id: run.fold for run in self.runs for image_id in run.tiles}

    @property
    def config(self) -> Mapping[str, Any]:
        """Return the config that the runs share, but for the fold."""
        return self.runs[0].config


def find_fold_runs(folder: Path, root: Path | None) -> FoldRuns:
    """Find the runs in the subfolders of `folder`, and check that together they are one result.

    Args:
        folder: such as that of a sweep over `data.fold`
        root: the archive; None takes that of the runs

    Raises:
        UserError: there are none, one is not finished, they differ in more than the fold, a fold is missing or there
            twice, or the archive is not that of the runs, or they have none
    """
    if (folder / METRICS_FILE).exists() or (folder / CONFIG_FILE).exists():
        raise UserError(
            f"runs={folder} is one run; give the folder that contains the runs of all folds, such as that of a sweep "
            "over data.fold",
            kind="wrong_data",
            key="runs",
            value=str(folder),
        )
    folders = run_folders(folder)
    if not folders:
        raise UserError(
            f"runs={folder} contains no runs; `python -m sn6.run -m data.fold=0,1,2,3,4 name={folder.name} ...` makes "
            "them",
            kind="not_found",
            key="runs",
            value=str(folder),
        )
    runs = sorted(map(read_fold_run, folders), key=lambda run: run.fold)
    check_same_recipe(runs)
    data = dict(runs[0].config["data"])
    if root is not None:
        images = path_keys(data)[0]
        if images != ROOT_KEY:
            raise UserError(
                f"root={root} is for runs on an archive; those in {folder} name their images by {images}",
                kind="conflict",
                key="root",
                value=str(root),
            )
        data["root"] = str(root)
    data_set = open_data_set(data)
    check_archive(runs, data_set)
    labelled = labelled_tiles(data_set, data_set.product(data["product"], "data.product").name)
    check_folds(folder, runs, data_set)
    by_id = {tile.image_id: tile for tile in labelled}
    for run in runs:
        if unknown := [image_id for image_id in run.tiles if image_id not in by_id]:
            raise UserError(
                f"{data_set.root} has no labelled tile {unknown[0]}, which {run.folder} validated; set root= to the "
                "archive of the runs",
                kind="wrong_data",
                key="root",
                value=unknown[0],
            )
    tiles = tuple([by_id[image_id] for image_id in run.tiles] for run in runs)
    return FoldRuns(folder, tuple(runs), data_set, tiles, len(labelled) - sum(map(len, tiles)))


def check_same_recipe(runs: Sequence[FoldRun]) -> None:
    """Raise a UserError where runs differ in more than their fold; an archive is known by its contents."""
    first, *others = runs
    for other in others:
        keys = path_keys(first.config["data"])
        inputs = [saved_inputs(run.folder).get(keys[0]) for run in (first, other)]
        differ = differences(first.config, other.config, may_train_longer=False)
        differ.pop(FOLD_KEY, None)
        if None not in inputs:
            for key in keys:
                differ.pop(key, None)
            if inputs[0] != inputs[1]:
                differ[keys[0]] = tuple(value_of(run.config, keys[0]) for run in (first, other))
        if differ:
            key, (value, other_value) = next(iter(differ.items()))
            raise UserError(
                f"{first.folder} and {other.folder} are not folds of one training: {key} is {value} in the one and "
                f"{other_value} in the other; put runs that differ in {FOLD_KEY} only into a folder of their own",
                kind="conflict",
                key=key,
                value=other_value,
            )


def check_archive(runs: Sequence[FoldRun], data_set: DataSet) -> None:
    """Raise a UserError where the archive is not the one that the runs have read."""
    recorded = saved_inputs(runs[0].folder).get(path_keys(runs[0].config["data"])[0], {})
    now = (
        data_fingerprint(data_set, data_set.product(runs[0].config["data"]["product"], "data.product").name)
        if recorded
        else {}
    )
    if any(now.get(part) != recorded[part] for part in recorded):
        raise UserError(
            f"{data_set.root} is not the archive that {runs[0].folder} was trained on; set root= to a copy of that one",
            kind="conflict",
            key="root",
            value=str(data_set.root),
        )


def check_folds(folder: Path, runs: Sequence[FoldRun], data_set: DataSet) -> None:
    """Raise a UserError where a fold that has tiles is missing, a fold is there twice, or a tile is in two of them."""
    folds = Counter(run.fold for run in runs)
    twice = [fold for fold, number in folds.items() if number > 1]
    if twice:
        same = " and ".join(str(run.folder) for run in runs if run.fold == twice[0])
        raise UserError(
            f"{same} have the same {FOLD_KEY}={twice[0]}; keep one run of each fold in {folder}",
            kind="conflict",
            key=FOLD_KEY,
            value=twice[0],
        )
    missing = [fold for fold in possible_folds(runs[0].config, data_set) if fold not in folds]
    if missing:
        listed = ",".join(map(str, missing))
        raise UserError(
            f"{folder} has no run of {FOLD_KEY}={listed}; run it with the overrides of the others",
            kind="not_found",
            key=FOLD_KEY,
            value=missing,
        )
    validated_by: dict[str, FoldRun] = {}
    for run in runs:
        for image_id in run.tiles:
            if (other := validated_by.setdefault(image_id, run)) is not run:
                raise UserError(
                    f"the tile {image_id} is in the validation of {other.folder} and of {run.folder}; run the folds "
                    "again with the same version of sn6",
                    kind="conflict",
                    key=FOLD_KEY,
                    value=image_id,
                )


def possible_folds(config: Mapping[str, Any], data_set: DataSet) -> list[int]:
    """Return the parts of the ground that can be a fold: those with tiles to train and to validate with."""
    data = config["data"]
    index = data_set.main_product() or data_set.product(data["product"], "data.product").name
    tiles = labelled_tiles(data_set, index)
    test: list[Tile] = []
    if data["test_column"] is None and data_set.has_test_labels:
        test = [tile for tile in data_set.tiles("test_public", index) if data_set.has_labels(tile)]
    result = []
    for part in sorted(set(PARTITIONS[data["partition"]].assign(bounds_of(tiles)).tolist()) - {data["test_column"]}):
        try:
            make_fold(tiles, part, data["test_column"], test, data["partition"])
        except UserError:
            continue
        result.append(part)
    return result


def labelled_tiles(data_set: DataSet, product: str) -> list[Tile]:
    """Return the training tiles of a product that have labels."""
    return [tile for tile in data_set.tiles("train", product) if data_set.has_labels(tile)]
