"""Divide tiles into two halves that choose for each other, on tiles that share no ground."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from sn6.data.partitions import Bounds, overlapping_pairs

MAX_BLOCK = 2 / 3  # of the tiles; a larger block is cut in two


@dataclass(frozen=True, eq=False)
class Half:
    """One half of the tiles, and those of the other half that choose for it.

    Attributes:
        tiles: indices of its tiles, ascending
        choosers: indices of the tiles of the other half that share no ground with any of `tiles`, ascending
    """

    tiles: Int[np.ndarray, " n"]
    choosers: Int[np.ndarray, " m"]


def cross_fit(bounds: Bounds) -> tuple[Half, Half] | None:
    """Divide tiles into halves of about equal numbers, so that what is chosen on one half can be scored on the other.

    Tiles that share ground, directly or through others, are one block, and a block is in one half. The strips of
    SpaceNet 6 overlap so much that a column is one block: a block of more than two thirds of the tiles is cut at the
    median northing of its tiles' centres. Tiles that share ground across this cut do not choose. The halves depend on
    the set of the squares only, not on their order.

    Args:
        bounds: west, south, east and north of each tile in metres; an overlap of up to a centimetre is none

    Returns:
        The halves; None with fewer than two blocks, or where a half has no tile to choose for it.
    """
    shares_ground = np.zeros((len(bounds), len(bounds)), dtype=bool)
    one, other = overlapping_pairs(bounds, bounds)
    shares_ground[one, other] = shares_ground[other, one] = True
    blocks = [part for block in connected_blocks(shares_ground) for part in cut_large_block(block, bounds)]
    if len(blocks) < 2:
        return None
    first, second = balanced_halves(blocks, bounds)
    halves = (
        Half(first, second[~shares_ground[np.ix_(second, first)].any(axis=1)]),
        Half(second, first[~shares_ground[np.ix_(first, second)].any(axis=1)]),
    )
    return halves if all(len(half.choosers) for half in halves) else None


def connected_blocks(shares_ground: Bool[np.ndarray, "n n"]) -> list[Int[np.ndarray, "_"]]:
    """Return the indices of the tiles of each block, given which tiles share ground with which."""
    count, block = connected_components(coo_matrix(shares_ground), directed=False)
    return [np.flatnonzero(block == number) for number in range(count)]


def cut_large_block(block: Int[np.ndarray, " k"], bounds: Bounds) -> list[Int[np.ndarray, "_"]]:
    """Return the two parts of a block of more than `MAX_BLOCK` of all tiles, south and north; else the block itself."""
    if len(block) <= MAX_BLOCK * len(bounds):
        return [block]
    northing = bounds[block][:, [1, 3]].mean(axis=1)
    cuts = northing < np.median(northing), northing <= np.median(northing)
    is_south = min(cuts, key=lambda cut: abs(2 * cut.sum() - len(cut)))  # of tiles on the median, all are on one side
    return [part for part in (block[is_south], block[~is_south]) if len(part)]


def balanced_halves(
    blocks: list[Int[np.ndarray, "_"]], bounds: Bounds
) -> tuple[Int[np.ndarray, "_"], Int[np.ndarray, "_"]]:
    """Put each block, from the largest, into the half that has fewer tiles; among equal ones from the southwest."""
    ordered = sorted(blocks, key=lambda block: (-len(block), sorted(bounds[block].tolist())))
    halves: tuple[list[int], list[int]] = ([], [])
    for block in ordered:
        min(halves, key=len).extend(block.tolist())
    first, second = (np.sort(np.array(half, dtype=np.int64)) for half in halves)
    return first, second
