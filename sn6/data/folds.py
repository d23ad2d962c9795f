"""Select the tiles that train, validate and test: parts of the ground that do not overlap.

The strips of SpaceNet 6 cover the same ground many times, so that a random split trains on the ground that it
validates on and overstates the score by about 40%. The baseline of the challenge split by five columns of easting, and
still 46.8% of its validation tiles overlapped a training tile. Here those training tiles are dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from sn6.data.partitions import PARTITIONS, PartitionName, assign_columns, overlapping_pairs
from sn6.datasets.declaration import DataSet, Tile
from sn6.datasets.statistics import is_outside
from sn6.errors import UserError


@dataclass(frozen=True)
class Fold:
    """The tiles of one fold.

    Attributes:
        train: tiles to train on
        validation: tiles that select the epoch
        test: tiles that are only scored
        dropped: training or validation tiles that overlap the other tiles, and are left out
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
    partition: PartitionName = "columns",
) -> Fold:
    """Divide the labelled training tiles of an archive.

    Args:
        tiles: tiles of the split "train"
        fold: the validation part, such as 0 (west) to 4 (east) of the columns
        test_column: a part that neither trains nor validates and is scored at the end
        test: tiles of the split "test_public" with known ground truth, scored at the end where `test_column` is None
        partition: how the ground is divided into parts

    Returns:
        The fold. Its test tiles are those of `test_column`, otherwise `test`, otherwise the validation tiles.

    Raises:
        UserError: no tile to train or to validate with, or no such part
    """
    check_parts(partition, fold, test_column)
    if not tiles:
        raise UserError(
            "no training tile has labels; add those of the archive to data.root, or set data.labels of data=folder",
            kind="wrong_data",
            key="data.root",
        )
    parts = PARTITIONS[partition].assign(bounds_of(tiles))
    if test_column is not None:
        test = select_tiles(tiles, parts == test_column)
        if not test:
            raise UserError(
                f"data.test_column={test_column} has no tiles; {occupied_parts(partition, parts)}",
                kind="not_found",
                key="data.test_column",
                value=test_column,
            )
    validation = drop_overlapping(select_tiles(tiles, parts == fold), test)
    excluded = [part for part in (fold, test_column) if part is not None]
    is_near = np.abs(parts[:, None] - excluded).min(axis=1) <= PARTITIONS[partition].gap
    train = drop_overlapping(select_tiles(tiles, ~is_near), [*validation, *test])
    if not validation or not train:
        raise UserError(
            f"data.fold={fold} has no tiles to {'train' if validation else 'validate'} with; "
            f"{occupied_parts(partition, parts)}; set another data.fold or use a larger archive",
            kind="not_found",
            key="data.fold",
            value=fold,
        )
    area = bounds_of(train)
    assert not overlaps_any(area, bounds_of(validation)).any(), "a training tile overlaps a validation tile"
    assert not overlaps_any(area, bounds_of(test)).any(), "a training tile overlaps a test tile"
    used = {tile.image_id for tile in (*train, *validation, *test)}
    dropped = [tile for tile in tiles if tile.image_id not in used]
    return Fold(train, validation, list(test) or validation, dropped)


def with_product(fold: Fold, product: str) -> Fold:
    """Return the tiles of a fold that have `product`; test tiles, which are SAR only, stay.

    Raises:
        UserError: no tile is left to train or to validate with
    """
    train, validation = (
        [tile for tile in tiles if product in tile.products] for tiles in (fold.train, fold.validation)
    )
    if not train or not validation:
        raise UserError(
            f"too few tiles of the fold have {product}: {len(train)} to train and {len(validation)} to validate with; "
            "set another data.fold or data.product",
            kind="not_found",
            key="data.product",
            value=product,
        )
    test = [tile for tile in fold.test if tile.split == "test_public" or product in tile.products]
    return replace(fold, train=train, validation=validation, test=test)


def with_fraction(fold: Fold, fraction: float, seed: int) -> Fold:
    """Keep a fraction of the training tiles, at least one, in their order; the others count as dropped.

    With the same seed, the tiles of a smaller fraction are among those of a greater one.
    """
    number = max(round(fraction * len(fold.train)), 1)
    kept = set(np.random.default_rng(seed).permutation(len(fold.train))[:number].tolist())
    parts: tuple[list[Tile], list[Tile]] = ([], [])
    for index, tile in enumerate(fold.train):
        parts[index not in kept].append(tile)
    return replace(fold, train=parts[0], dropped=[*fold.dropped, *parts[1]])


def check_footprints(data_set: DataSet, tiles: Sequence[Tile]) -> None:
    """Raise a UserError where there is no tile with labels, or no footprint is on one.

    The first footprint on its tile ends the search: usually only one tile is looked at.
    """
    if not tiles:
        raise UserError(
            f"no training tile of {data_set.root} has labels; set {data_set.label_key} to labels of this ground",
            kind="wrong_data",
            key=data_set.label_key,
        )
    number = 0
    for tile in tiles:
        labels = data_set.labels(tile)
        if labels is not None and len(labels):
            if not is_outside(labels.polygons, *tile.size(data_set.pixel_size)).all():
                return
            number += len(labels)
    what = f"all {number} footprints of the training tiles" if number else f"no footprint of the {len(tiles)} tiles"
    where = "are outside their tiles" if number else "is on the images"
    raise UserError(
        f"{what} of {data_set.root} {where}; set {data_set.label_key} to labels of this ground, in "
        f"{data_set.label_format}",
        kind="wrong_data",
        key=data_set.label_key,
    )


def check_parts(partition: PartitionName, fold: int, test_column: int | None) -> None:
    """Raise a UserError where the partition has no such parts, or both are the same."""
    chosen = PARTITIONS[partition]
    for key, part in (("data.fold", fold), ("data.test_column", test_column)):
        if part is not None and not 0 <= part < chosen.count:
            raise UserError(
                f"invalid {key}={part}: the {chosen.noun}s of data.partition={partition} are {chosen.numbers}",
                kind="invalid_value",
                key=key,
                value=part,
            )
    if test_column == fold:
        raise UserError(
            f"data.test_column={fold} is also the validation {chosen.noun}; change data.test_column or data.fold",
            kind="conflict",
            key="data.test_column",
            value=fold,
        )


def select_tiles(tiles: Sequence[Tile], selected: Bool[np.ndarray, " n"]) -> list[Tile]:
    """Return the tiles at which `selected` is true."""
    return [tile for tile, is_selected in zip(tiles, selected, strict=True) if is_selected]


def occupied_parts(partition: PartitionName, parts: Int[np.ndarray, " n"]) -> str:
    """Return the numbers of the parts that have tiles, for a message."""
    return f"{PARTITIONS[partition].noun}s with tiles: {', '.join(map(str, np.unique(parts)))}"


def bounds_of(tiles: Sequence[Tile]) -> Float[np.ndarray, "n 4"]:
    """Return west, south, east and north of each tile in metres."""
    return np.array([tile.bounds for tile in tiles], dtype=np.float64).reshape(-1, 4)


def overlaps_any(bounds: Float[np.ndarray, "n 4"], others: Float[np.ndarray, "m 4"]) -> Bool[np.ndarray, " n"]:
    """Return which squares overlap any of the others by more than a centimetre."""
    overlapping = np.zeros(len(bounds), dtype=bool)
    overlapping[overlapping_pairs(bounds, others)[0]] = True
    return overlapping


def drop_overlapping(tiles: Sequence[Tile], others: Sequence[Tile]) -> list[Tile]:
    """Return those of `tiles` that overlap none of `others`."""
    return select_tiles(tiles, ~overlaps_any(bounds_of(tiles), bounds_of(others)))


def count_overlapping(tiles: Sequence[Tile], squares: Float[np.ndarray, "n 4"]) -> int:
    """Count the tiles that overlap any of the squares (west, south, east, north in metres), such as a training area."""
    return int(overlaps_any(bounds_of(tiles), squares).sum())


def squares_outside_column(tiles: Sequence[Tile], column: int) -> Float[np.ndarray, "n 4"]:
    """Return the bounds in metres of the tiles that are outside a column of the baseline's five."""
    bounds = bounds_of(tiles)
    return bounds[assign_columns(bounds) != column]
