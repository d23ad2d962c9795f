"""Which tiles train and which validate: parts of the ground, with no ground in two of them.

The strips of SpaceNet 6 fly over the same ground again and again, so a random split trains on the ground that it
validates on and overstates the score by about 40%. The baseline of the challenge split by five columns of easting,
and still 46.8% of its validation tiles touched a training tile. Here those training tiles are dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sn6.data.partitions import PARTITIONS, PartitionName, overlapping_pairs
from sn6.datasets.archive import Tile
from sn6.errors import UserError


@dataclass(frozen=True)
class Fold:
    """The tiles of one fold.

    Attributes:
        train: tiles to train on
        validation: tiles that choose the epoch
        test: tiles that are only scored
        dropped: training or validation tiles left out because they share ground with the others
    """

    train: list[Tile]
    validation: list[Tile]
    test: list[Tile]
    dropped: list[Tile]


def make_fold(
    tiles: Sequence[Tile],
    fold: int,
    test_column: int | None,
    test: Sequence[Tile] = (),
    split: PartitionName = "columns",
) -> Fold:
    """Splits the labelled training tiles of an archive.

    Args:
        tiles: of the split "train"
        fold: the part that validates, such as 0 (west) to 4 (east) of the columns
        test_column: a part kept out of everything and scored at the end
        test: tiles of the split "test_public" with known truth, scored at the end where `test_column` is None
        split: how the ground is divided into parts

    Returns:
        The fold; its test tiles are the column's, else `test`, else the validation tiles once more.

    Raises:
        UserError: nothing to train on or to validate with
    """
    check_parts(split, fold, test_column)
    if not tiles:
        raise UserError("the archive has no training tile with labels; nothing can be trained on it")
    parts = PARTITIONS[split].parts_of(bounds_of(tiles))
    if test_column is not None:
        test = of_parts(tiles, parts == test_column)
        if not test:
            raise UserError(f"data.test_column={test_column} holds no tile; {held(split, parts)}")
    validation = without_overlap(of_parts(tiles, parts == fold), test)
    kept_out = [part for part in (fold, test_column) if part is not None]
    near = np.abs(parts[:, None] - kept_out).min(axis=1) <= PARTITIONS[split].gap
    train = without_overlap(of_parts(tiles, ~near), [*validation, *test])
    if not validation or not train:
        part = "train" if validation else "validate"
        raise UserError(
            f"data.fold={fold} leaves no tile to {part} with: {len(tiles)} tiles, {held(split, parts)}; "
            "choose another data.fold or a larger archive"
        )
    ground = bounds_of(train)
    assert not overlaps_any(ground, bounds_of(validation)).any(), "a training tile shares ground with a validation tile"
    assert not overlaps_any(ground, bounds_of(test)).any(), "a training tile shares ground with a test tile"
    kept = {tile.image_id for tile in (*train, *validation, *test)}
    dropped = [tile for tile in tiles if tile.image_id not in kept]
    return Fold(train, validation, list(test) or validation, dropped)


def check_parts(split: PartitionName, fold: int, test_column: int | None) -> None:
    """Raises a UserError where the split has no such parts, or both are one."""
    count, noun, ends = PARTITIONS[split].count, PARTITIONS[split].noun, PARTITIONS[split].ends
    for key, part in (("data.fold", fold), ("data.test_column", test_column)):
        if part is not None and not 0 <= part < count:
            raise UserError(f"{key}={part} is no {noun}; the {noun}s of data.split={split} are {ends}")
    if test_column == fold:
        raise UserError(f"data.test_column={fold} is the {noun} that validates; choose another, or another data.fold")


def of_parts(tiles: Sequence[Tile], chosen: Bool[np.ndarray, " n"]) -> list[Tile]:
    """The tiles whose part is chosen."""
    return [tile for tile, is_chosen in zip(tiles, chosen, strict=True) if is_chosen]


def held(split: PartitionName, parts: Int[np.ndarray, " n"]) -> str:
    """The parts that hold tiles, for a message."""
    return f"{PARTITIONS[split].noun}s with tiles: {', '.join(map(str, np.unique(parts)))}"


def bounds_of(tiles: Sequence[Tile]) -> Float[np.ndarray, "n 4"]:
    """West, south, east and north of each tile in metres."""
    return np.array([tile.bounds for tile in tiles], dtype=np.float64).reshape(-1, 4)


def overlaps_any(bounds: Float[np.ndarray, "n 4"], others: Float[np.ndarray, "m 4"]) -> Bool[np.ndarray, " n"]:
    """Which squares share ground with any of the others; touching by up to a centimetre is not sharing."""
    shared = np.zeros(len(bounds), dtype=bool)
    shared[overlapping_pairs(bounds, others)[0]] = True
    return shared


def without_overlap(tiles: Sequence[Tile], others: Sequence[Tile]) -> list[Tile]:
    """Those of `tiles` that share no ground with `others`."""
    shared = overlaps_any(bounds_of(tiles), bounds_of(others))
    return of_parts(tiles, ~shared)
