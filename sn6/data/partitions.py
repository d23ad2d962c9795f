"""Partition the ground into parts, of which one validates and the others train."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import shapely
from jaxtyping import Float, Int

PartitionName = Literal["columns", "ten_columns", "blocks"]
Bounds: TypeAlias = Float[np.ndarray, "n 4"]  # west, south, east, north of each tile, metres
Parts: TypeAlias = Int[np.ndarray, " n"]  # number of the part of each tile

COLUMN_EDGES = np.linspace(591550.0, 596250.0, 6)  # metres of easting, of the baseline
TEN_COLUMN_EDGES = np.linspace(591640.0, 596160.0, 11)  # of the winner of the challenge
BLOCKS = 5
SLACK = 0.1  # of the tiles of a block: how far a cut may deviate from equal numbers of tiles
TOLERANCE = 0.01  # metres; tiles that only touch do not overlap


@dataclass(frozen=True)
class Partition:
    """One way to divide the ground into parts.

    Attributes:
        count: number of parts
        noun: name of a part
        numbers: numbers of the parts, for messages
        assign: bounds of the tiles → number of the part of each
        gap: number of parts on either side of the validation or test part that do not train, overlapping or not
    """

    count: int
    noun: str
    numbers: str
    assign: Callable[[Bounds], Parts]
    gap: int = 0


def assign_columns(bounds: Bounds) -> Parts:
    """Return the baseline's column of easting of each tile by its left edge, 0 (west) to 4 (east)."""
    return assign_by_easting(bounds, COLUMN_EDGES)


def assign_ten_columns(bounds: Bounds) -> Parts:
    """Return the winner's column of easting of each tile by its left edge, 0 (west) to 9 (east)."""
    return assign_by_easting(bounds, TEN_COLUMN_EDGES)


def assign_by_easting(bounds: Bounds, published: Float[np.ndarray, " edges"]) -> Parts:
    """Return the column of each tile; the outer columns are open.

    The edges are the `published` ones where the tiles span the baseline's columns, as in the published archive,
    otherwise equal parts of the extent of the left edges.
    """
    west = bounds[:, 0]
    is_published = west.min() <= COLUMN_EDGES[0] and west.max() >= COLUMN_EDGES[-1]
    edges = published if is_published else np.linspace(west.min(), west.max(), len(published))
    return np.digitize(west, edges[1:-1])


def assign_blocks(bounds: Bounds) -> Parts:
    """Return the block of each tile: five blocks of about equal numbers of tiles, between straight cuts.

    The tiles are cut in two, and the pieces again, from west to east or from south to north, where the fewest tiles
    overlap tiles on the other side of the cut: those are the tiles that a fold drops.
    """
    blocks = cut_blocks(np.arange(len(bounds)), BLOCKS, bounds, overlapping_pairs(bounds, bounds))
    parts = np.empty(len(bounds), dtype=np.int64)
    for number, tiles in enumerate(blocks.tiles):
        parts[tiles] = number
    return parts


class Blocks(NamedTuple):
    """Tiles divided into blocks, and how many of them overlap a tile on the other side of a cut."""

    across: int
    tiles: list[Int[np.ndarray, "_"]]


def cut_blocks(tiles: Int[np.ndarray, " m"], count: int, bounds: Bounds, pairs: Int[np.ndarray, "2 p"]) -> Blocks:
    """Return the best of all ways to cut `tiles` recursively into `count` blocks, each cut where it is cheapest.

    Args:
        tiles: indices into `bounds`
        count: number of blocks
        bounds: of all tiles
        pairs: indices of tiles that overlap
    """
    if count == 1:
        return Blocks(0, [tiles])
    inside = np.zeros(len(bounds), dtype=bool)
    inside[tiles] = True
    pairs = pairs[:, inside[pairs].all(axis=0)]
    options = []
    for axis in (0, 1):
        order = tiles[np.argsort(bounds[tiles, axis], kind="stable")]
        across = count_across(order, bounds[order, axis], pairs)
        for first in sorted({count // 2, count - count // 2}):
            target, slack = len(tiles) * first / count, len(tiles) / count * SLACK
            low = max(round(target - slack), min(first, len(tiles)))
            high = max(low, min(round(target + slack), len(tiles) - (count - first)))
            at = low + int(across[low : high + 1].argmin())
            one = cut_blocks(order[:at], first, bounds, pairs)
            other = cut_blocks(order[at:], count - first, bounds, pairs)
            options.append(Blocks(int(across[at]) + one.across + other.across, one.tiles + other.tiles))
    return min(options, key=lambda blocks: blocks.across)


def count_across(
    order: Int[np.ndarray, " m"], coordinates: Float[np.ndarray, " m"], pairs: Int[np.ndarray, "2 p"]
) -> Int[np.ndarray, " cuts"]:
    """Count for a cut after each number of tiles, 0 to m, the tiles that overlap one on its other side.

    Args:
        order: tiles in the order of their coordinates
        coordinates: of the tiles; a cut between equal ones would not be a straight line, and counts as m
        pairs: tiles of `order` that overlap, each pair in both orders and each tile with itself
    """
    size = len(order)
    rank = np.zeros(order.max(initial=-1) + 1, dtype=np.int64)
    rank[order] = np.arange(size)
    one, other = rank[pairs]
    first, last = np.arange(size), np.arange(size)
    np.minimum.at(first, one, other)
    np.maximum.at(last, one, other)
    # A tile is across the cuts after its first overlapping tile up to its last one.
    across = np.cumsum(np.bincount(first + 1, minlength=size + 1) - np.bincount(last + 1, minlength=size + 1))
    across[1:-1][np.diff(coordinates) == 0] = size
    return across


def overlapping_pairs(bounds: Float[np.ndarray, "n 4"], others: Float[np.ndarray, "m 4"]) -> Int[np.ndarray, "2 p"]:
    """Return the indices into `bounds` and `others` of squares that overlap by more than a centimetre."""
    if not len(bounds) or not len(others):
        return np.empty((2, 0), dtype=np.int64)
    inner = bounds + np.array([TOLERANCE, TOLERANCE, -TOLERANCE, -TOLERANCE])
    return shapely.STRtree(shapely.box(*others.T)).query(shapely.box(*inner.T), predicate="intersects")


PARTITIONS: dict[PartitionName, Partition] = {
    "columns": Partition(5, "column", "0 (west) to 4 (east)", assign_columns),
    # A tile of 450 m cannot extend beyond a column of 452 m: the winner dropped both neighbouring columns.
    "ten_columns": Partition(10, "column", "0 (west) to 9 (east)", assign_ten_columns, gap=1),
    "blocks": Partition(BLOCKS, "block", f"0 to {BLOCKS - 1}", assign_blocks),
}
