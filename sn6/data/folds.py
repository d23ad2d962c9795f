"""Which tiles train and which validate: columns by easting, with no ground in both.

The strips of SpaceNet 6 fly over the same ground again and again, so a random split trains on the ground that it
validates on and overstates the score by about 40%. The baseline of the challenge split by five columns of easting,
and still 46.8% of its validation tiles touched a training tile. Here those training tiles are dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Bool, Float, Int

from sn6.data.archive import Tile
from sn6.errors import UserError

COLUMNS = 5
PUBLISHED_EDGES = np.linspace(591550.0, 596250.0, COLUMNS + 1)  # metres of easting, the baseline's
TOLERANCE = 0.01  # metres; tiles that only touch share no ground


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


def make_fold(tiles: Sequence[Tile], fold: int, test_column: int | None, test: Sequence[Tile] = ()) -> Fold:
    """Splits the labelled training tiles of an archive.

    Args:
        tiles: of the split "train"
        fold: the column that validates, 0 (west) to 4 (east)
        test_column: a column kept out of everything and scored at the end
        test: tiles of the split "test_public" with known truth, scored at the end where `test_column` is None

    Returns:
        The fold; its test tiles are the column's, else `test`, else the validation tiles once more.

    Raises:
        UserError: nothing to train on or to validate with
    """
    for key, column in (("data.fold", fold), ("data.test_column", test_column)):
        if column is not None and not 0 <= column < COLUMNS:
            raise UserError(f"{key}={column} is no column; the columns are 0 (west) to {COLUMNS - 1} (east)")
    if test_column == fold:
        raise UserError(f"data.test_column={fold} is the column that validates; choose another, or another data.fold")
    columns = columns_of(np.array([tile.bounds[0] for tile in tiles]))
    if test_column is not None:
        test = [tile for tile, column in zip(tiles, columns, strict=True) if column == test_column]
        if not test:
            raise UserError(f"data.test_column={test_column} holds no tile; columns with tiles: {held(columns)}")
    inside = [tile for tile, column in zip(tiles, columns, strict=True) if column == fold]
    outside = [t for t, c in zip(tiles, columns, strict=True) if c not in (fold, test_column)]
    validation = apart_from(inside, test)
    train = apart_from(outside, [*validation, *test])
    if not validation or not train:
        part = "train" if validation else "validate"
        raise UserError(
            f"data.fold={fold} leaves no tile to {part} with: {len(tiles)} tiles, columns with tiles: {held(columns)}; "
            "choose another data.fold or a larger archive"
        )
    ground = bounds_of(train)
    assert not share_ground(ground, bounds_of(validation)).any(), "a training tile shares ground with a validation tile"
    assert not share_ground(ground, bounds_of(test)).any(), "a training tile shares ground with a test tile"
    kept = {tile.image_id for tile in (*train, *validation, *test)}
    dropped = [tile for tile in tiles if tile.image_id not in kept]
    return Fold(train, validation, list(test) or validation, dropped)


def columns_of(west: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The column 0..4 of each tile by its left edge; the outer columns are open.

    The edges are the published ones where the tiles span them, as in the real archive, else equal parts of the
    extent of the left edges.
    """
    spans = west.min() <= PUBLISHED_EDGES[0] and west.max() >= PUBLISHED_EDGES[-1]
    edges = PUBLISHED_EDGES if spans else np.linspace(west.min(), west.max(), COLUMNS + 1)
    return np.digitize(west, edges[1:-1])


def held(columns: Int[np.ndarray, " n"]) -> str:
    """The columns that hold tiles, for a message."""
    return ", ".join(map(str, np.unique(columns)))


def bounds_of(tiles: Sequence[Tile]) -> Float[np.ndarray, "n 4"]:
    """West, south, east and north of each tile in metres."""
    return np.array([tile.bounds for tile in tiles], dtype=np.float64).reshape(-1, 4)


def share_ground(bounds: Float[np.ndarray, "n 4"], others: Float[np.ndarray, "m 4"]) -> Bool[np.ndarray, " n"]:
    """Which squares share ground with any of the others; touching by up to a centimetre is not sharing."""
    shared = np.zeros(len(bounds), dtype=bool)
    if len(bounds) and len(others):
        inner = bounds + np.array([TOLERANCE, TOLERANCE, -TOLERANCE, -TOLERANCE])
        tree = shapely.STRtree(shapely.box(*others.T))
        shared[tree.query(shapely.box(*inner.T), predicate="intersects")[0]] = True
    return shared


def apart_from(tiles: Sequence[Tile], others: Sequence[Tile]) -> list[Tile]:
    """Those of `tiles` that share no ground with `others`."""
    shared = share_ground(bounds_of(tiles), bounds_of(others))
    return [tile for tile, is_shared in zip(tiles, shared, strict=True) if not is_shared]
