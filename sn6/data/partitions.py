"""How the training tiles are divided by place into parts, of which one validates and the others train."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import shapely
from jaxtyping import Float, Int

PartitionName = Literal["columns", "ten_columns", "blocks"]
Bounds: TypeAlias = Float[np.ndarray, "n 4"]  # west, south, east, north of each tile, metres
Parts: TypeAlias = Int[np.ndarray, " n"]  # the part of each tile

COLUMN_EDGES = np.linspace(591550.0, 596250.0, 6)  # metres of easting, the baseline's
TEN_COLUMN_EDGES = np.linspace(591640.0, 596160.0, 11)  # the winner's
BLOCKS = 5
UNEVENNESS = 0.1  # of the tiles of a block: by how much the sides of a cut may differ from equal shares
TOLERANCE = 0.01  # metres; tiles that only touch share no ground


@dataclass(frozen=True)
class Partition:
    """One way to divide the ground.

    Attributes:
        count: of parts
        noun: what a part is called
        ends: the first and the last part, in words
        parts_of: bounds of the tiles → the part of each
        gap: so many parts on either side of one that validates or tests do not train, sharing ground or not
    """

    count: int
    noun: str
    ends: str
    parts_of: Callable[[Bounds], Parts]
    gap: int = 0


def columns_of(bounds: Bounds) -> Parts:
    """The baseline's five columns of easting by the left edges of the tiles, 0 in the west."""
    return by_easting(bounds, COLUMN_EDGES)


def ten_columns_of(bounds: Bounds) -> Parts:
    """The ten columns of easting of the challenge's winner by the left edges of the tiles, 0 in the west."""
    return by_easting(bounds, TEN_COLUMN_EDGES)


def by_easting(bounds: Bounds, published: Float[np.ndarray, " edges"]) -> Parts:
    """Columns between edges, the outer ones open.

    The edges are the `published` ones where the tiles span the baseline's columns, as in the real archive, else
    equal parts of the extent of the left edges.
    """
    west = bounds[:, 0]
    is_real = west.min() <= COLUMN_EDGES[0] and west.max() >= COLUMN_EDGES[-1]
    edges = published if is_real else np.linspace(west.min(), west.max(), len(published))
    return np.digitize(west, edges[1:-1])


def blocks_of(bounds: Bounds) -> Parts:
    """Five blocks of about as many tiles each, between straight cuts that few tiles lie across.

    The tiles are cut in two, and the pieces again, from west to east or from south to north, whichever way loses the
    fewest tiles: those that share ground with tiles on the other side of a cut are what a fold drops.
    """
    blocks = cut(np.arange(len(bounds)), BLOCKS, bounds, overlapping_pairs(bounds, bounds))
    parts = np.empty(len(bounds), dtype=np.int64)
    for number, tiles in enumerate(blocks.tiles):
        parts[tiles] = number
    return parts


class Blocks(NamedTuple):
    """Tiles divided into blocks, and how many of them lie across a cut."""

    across: int
    tiles: list[Int[np.ndarray, "_"]]


def cut(tiles: Int[np.ndarray, " m"], count: int, bounds: Bounds, pairs: Int[np.ndarray, "2 p"]) -> Blocks:
    """The best of all ways to cut `tiles` into `count` blocks by halves, each cut where it is cheapest.

    Args:
        tiles: places in `bounds`
        count: of blocks
        bounds: of all tiles
        pairs: places of tiles that share ground
    """
    if count == 1:
        return Blocks(0, [tiles])
    inside = np.zeros(len(bounds), dtype=bool)
    inside[tiles] = True
    pairs = pairs[:, inside[pairs].all(axis=0)]
    ways = []
    for axis in (0, 1):
        order = tiles[np.argsort(bounds[tiles, axis], kind="stable")]
        across = tiles_across(order, bounds[order, axis], pairs)
        for first in sorted({count // 2, count - count // 2}):
            share, slack = len(tiles) * first / count, len(tiles) / count * UNEVENNESS
            low = max(round(share - slack), min(first, len(tiles)))
            high = max(low, min(round(share + slack), len(tiles) - (count - first)))
            at = low + int(across[low : high + 1].argmin())
            one, other = cut(order[:at], first, bounds, pairs), cut(order[at:], count - first, bounds, pairs)
            ways.append(Blocks(int(across[at]) + one.across + other.across, one.tiles + other.tiles))
    return min(ways, key=lambda way: way.across)


def tiles_across(
    order: Int[np.ndarray, " m"], places: Float[np.ndarray, " m"], pairs: Int[np.ndarray, "2 p"]
) -> Int[np.ndarray, " cuts"]:
    """For a cut after each number of tiles, 0 to m, how many tiles share ground with one on its other side.

    Args:
        order: the tiles one after another
        places: their coordinate; a cut between equal ones would be no straight line, and counts as m
        pairs: of these tiles that share ground, each both ways round and each tile with itself
    """
    size = len(order)
    rank = np.zeros(order.max(initial=-1) + 1, dtype=np.int64)
    rank[order] = np.arange(size)
    one, other = rank[pairs]
    first, last = np.arange(size), np.arange(size)
    np.minimum.at(first, one, other)
    np.maximum.at(last, one, other)
    # A tile is across the cuts after its first partner up to its last.
    across = np.cumsum(np.bincount(first + 1, minlength=size + 1) - np.bincount(last + 1, minlength=size + 1))
    across[1:-1][np.diff(places) == 0] = size
    return across


def overlapping_pairs(bounds: Float[np.ndarray, "n 4"], others: Float[np.ndarray, "m 4"]) -> Int[np.ndarray, "2 p"]:
    """The places of squares and of others that share ground; touching by up to a centimetre is not sharing."""
    if not len(bounds) or not len(others):
        return np.empty((2, 0), dtype=np.int64)
    inner = bounds + np.array([TOLERANCE, TOLERANCE, -TOLERANCE, -TOLERANCE])
    return shapely.STRtree(shapely.box(*others.T)).query(shapely.box(*inner.T), predicate="intersects")


PARTITIONS: dict[PartitionName, Partition] = {
    "columns": Partition(5, "column", "0 (west) to 4 (east)", columns_of),
    # A tile of 450 m cannot reach over a column of 452 m: the winner dropped both neighbours whole.
    "ten_columns": Partition(10, "column", "0 (west) to 9 (east)", ten_columns_of, gap=1),
    "blocks": Partition(BLOCKS, "block", f"0 to {BLOCKS - 1}", blocks_of),
}
