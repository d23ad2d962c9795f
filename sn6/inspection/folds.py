"""The folds of an archive: how many tiles each keeps, and how much ground its parts share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sn6.data.folds import Fold, bounds_of, make_fold, overlaps_any
from sn6.data.partitions import PARTITIONS, PartitionName
from sn6.datasets.archive import Tile
from sn6.errors import UserError
from sn6.inspection.faults import Fault

SEED = 0  # of the random split


@dataclass(frozen=True)
class Overlap:
    """A fold in numbers of tiles.

    Attributes:
        train, validation, dropped: its tiles
        seen: validation tiles that share ground with a training tile
        seen_undropped: the same if nothing were dropped
        seen_at_random: the same of a random split into parts of these sizes
    """

    train: int
    validation: int
    dropped: int
    seen: int
    seen_undropped: int
    seen_at_random: int


Folds = Mapping[PartitionName, Mapping[int, Fold]]


def folds_of(tiles: Sequence[Tile], test: Sequence[Tile]) -> tuple[dict[PartitionName, dict[int, Fold]], list[Fault]]:
    """Every fold of every split that has tiles in all parts, by the number of the part that validates.

    Args:
        tiles: labelled ones of the split "train"
        test: those of the split "test_public" whose truth is known, from whose ground all keep away
    """
    folds: dict[PartitionName, dict[int, Fold]] = {split: {} for split in PARTITIONS}
    told = ""
    for split in PARTITIONS:
        for number in range(PARTITIONS[split].count):
            try:
                folds[split][number] = make_fold(tiles, number, None, test, split)
            except UserError as error:
                told = told or str(error)
    return folds, [] if folds["columns"] else [Fault("folds", "train", told)]


def measure_overlap(fold: Fold, tiles: Sequence[Tile]) -> Overlap:
    """Counts the tiles of a fold, and those that validate on ground of the others.

    Args:
        fold: of `tiles`
        tiles: all that it was made of
    """
    validation = {tile.image_id for tile in fold.validation}
    others = [tile for tile in tiles if tile.image_id not in validation]
    order = np.random.default_rng(SEED).permutation(len(tiles))
    drawn = [tiles[i] for i in order]
    size, rest = len(fold.validation), len(fold.train)
    return Overlap(
        len(fold.train),
        len(fold.validation),
        len(fold.dropped),
        count_overlapping(fold.validation, fold.train),
        count_overlapping(fold.validation, others),
        count_overlapping(drawn[:size], drawn[size : size + rest]),
    )


def count_overlapping(tiles: Sequence[Tile], training: Sequence[Tile]) -> int:
    """How many of `tiles` share ground with a training tile."""
    return int(overlaps_any(bounds_of(tiles), bounds_of(training)).sum())
