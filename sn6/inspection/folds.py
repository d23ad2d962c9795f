"""Measure the folds of an archive: their sizes, and how many validation tiles overlap training tiles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sn6.data.folds import Fold, bounds_of, count_overlapping, make_fold
from sn6.data.partitions import PARTITIONS, PartitionName
from sn6.datasets.declaration import Tile
from sn6.errors import UserError
from sn6.inspection.faults import Fault

SEED = 0  # of the random split

Folds = Mapping[PartitionName, Mapping[int, Fold]]


@dataclass(frozen=True)
class Overlap:
    """The numbers of tiles of a fold.

    Attributes:
        train, validation, dropped: tiles of the fold
        overlapping: validation tiles that overlap a training tile
        overlapping_before_dropping: the same if no tile were dropped
        overlapping_in_random_split: the same in a random split of these sizes
    """

    train: int
    validation: int
    dropped: int
    overlapping: int
    overlapping_before_dropping: int
    overlapping_in_random_split: int


def make_folds(tiles: Sequence[Tile], test: Sequence[Tile], default: PartitionName) -> tuple[Folds, list[Fault]]:
    """Make every fold of every partition that has both training and validation tiles, by the number of the fold.

    Args:
        tiles: labelled tiles of the split "train"
        test: tiles of the split "test_public" with known ground truth; tiles that overlap them are dropped
        default: partition that a run divides the ground by; the fault is that it has no fold
    """
    folds: dict[PartitionName, dict[int, Fold]] = {partition: {} for partition in PARTITIONS}
    message = ""
    for partition in sorted(PARTITIONS, key=lambda name: name != default):
        for number in range(PARTITIONS[partition].count):
            try:
                folds[partition][number] = make_fold(tiles, number, None, test, partition)
            except UserError as error:
                message = message or str(error)
    return folds, [] if folds.get(default) else [Fault("folds", "train", message)]


def measure_overlap(fold: Fold, tiles: Sequence[Tile]) -> Overlap:
    """Count the tiles of a fold, and its validation tiles that overlap other tiles.

    Args:
        fold: a fold of `tiles`
        tiles: all tiles that the fold was made of
    """
    validation = {tile.image_id for tile in fold.validation}
    others = [tile for tile in tiles if tile.image_id not in validation]
    shuffled = [tiles[i] for i in np.random.default_rng(SEED).permutation(len(tiles))]
    size, rest = len(fold.validation), len(fold.train)
    return Overlap(
        train=rest,
        validation=size,
        dropped=len(fold.dropped),
        overlapping=count_overlapping(fold.validation, bounds_of(fold.train)),
        overlapping_before_dropping=count_overlapping(fold.validation, bounds_of(others)),
        overlapping_in_random_split=count_overlapping(shuffled[:size], bounds_of(shuffled[size : size + rest])),
    )
