"""Halves of tiles that choose for each other share no ground with what they choose for."""

import itertools

import numpy as np
import pytest

from sn6.data.cross_fitting import cross_fit

SIDE = 450.0


def squares(*corners, side=SIDE):
    """Return the bounds of squares by their southwest corners in units of their side."""
    west, south = np.array(corners, dtype=np.float64).T * SIDE
    return np.stack([west, south, west + side, south + side], axis=1)


def share_ground(one, other):
    """Return whether two squares overlap by more than a centimetre, by plain arithmetic."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return min(width, height) > 0.01


def random_squares(rng):
    """Return squares of some revisits: some ground is far apart, most is seen several times."""
    count, extent = int(rng.integers(2, 60)), rng.uniform(1, 30)
    corners = rng.uniform(0, extent, (count, 2)) * (0.3, 1.0)
    return squares(*corners)


@pytest.mark.parametrize("seed", range(40))
def test_no_tile_shares_ground_with_a_tile_that_it_chooses_for(seed):
    bounds = random_squares(np.random.default_rng(seed))
    halves = cross_fit(bounds)
    if halves is None:
        return
    first, second = halves
    assert sorted([*first.tiles, *second.tiles]) == list(range(len(bounds)))  # each tile is in one half
    for half, other in ((first, second), (second, first)):
        assert len(half.choosers) > 0
        assert set(half.choosers) <= set(other.tiles)
        for index in other.tiles:
            is_apart = not any(share_ground(bounds[index], bounds[tile]) for tile in half.tiles)
            assert is_apart == (index in half.choosers)


def test_most_random_archives_can_be_halved():
    halved = [cross_fit(random_squares(np.random.default_rng(seed))) is not None for seed in range(40)]
    assert sum(halved) > 20


@pytest.mark.parametrize("seed", range(10))
def test_the_order_of_the_tiles_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    bounds = random_squares(rng)
    order = rng.permutation(len(bounds))
    one, other = cross_fit(bounds), cross_fit(bounds[order])
    if one is None:
        assert other is None
        return
    for half, permuted in zip(one, other, strict=True):
        for indices, of_permuted in ((half.tiles, permuted.tiles), (half.choosers, permuted.choosers)):
            assert set(indices) == set(order[of_permuted])
            assert list(of_permuted) == sorted(of_permuted)


def test_blocks_stay_together_and_halves_are_balanced():
    # blocks of 3, 3, 2, 2 tiles, far apart; the largest are first: 3 + 2 and 3 + 2
    sizes = (2, 3, 2, 3)
    bounds = np.concatenate([squares(*[(10 * n, 0.4 * k) for k in range(size)]) for n, size in enumerate(sizes)])
    halves = cross_fit(bounds)
    assert [len(half.tiles) for half in halves] == [5, 5]
    block = np.repeat(np.arange(4), sizes)
    for half, other in itertools.permutations(halves):
        assert not set(block[half.tiles]) & set(block[other.tiles])
        assert list(half.choosers) == list(other.tiles)


def test_a_chain_of_tiles_is_cut_at_its_median_northing():
    # eight tiles from south to north, each overlapping the next one by half
    halves = cross_fit(squares(*[(0, 0.5 * k) for k in range(8)]))
    by_tiles = {tuple(half.tiles): tuple(half.choosers) for half in halves}
    # tile 3 overlaps tile 4 across the cut, so that neither chooses
    assert by_tiles == {(0, 1, 2, 3): (5, 6, 7), (4, 5, 6, 7): (0, 1, 2)}


def test_a_block_of_two_thirds_is_not_cut():
    # 4 of 6 tiles are one block; the other two are blocks of their own
    chain = squares(*[(0, 0.5 * k) for k in range(4)])
    first, second = cross_fit(np.concatenate([chain, squares((9, 0), (9, 9))]))
    assert sorted(map(len, (first.tiles, second.tiles))) == [2, 4]
    assert any(set(half.tiles) == {0, 1, 2, 3} for half in (first, second))
    # 5 of 6 are cut: halves of three
    chain = squares(*[(0, 0.5 * k) for k in range(5)])
    halves = cross_fit(np.concatenate([chain, squares((9, 0))]))
    assert [len(half.tiles) for half in halves] == [3, 3]


@pytest.mark.parametrize(
    "bounds",
    [
        np.empty((0, 4)),
        squares((0, 0)),
        squares((0, 0), (0, 0)),  # the same ground twice
        squares((0, 0), (0.5, 0), (1, 0)),  # a row: all centres have one northing
        squares((0, 0), (0, 0.5), (0, 0.9)),  # no tile is free of the other side of the cut
    ],
)
def test_what_cannot_be_halved(bounds):
    assert cross_fit(bounds) is None


@pytest.mark.parametrize(("overlap", "is_block"), [(0.0, False), (0.009, False), (0.03, True)])
def test_an_overlap_of_a_centimetre_is_none(overlap, is_block):
    bounds = np.array([[0, 0, 450, 450], [450 - overlap, 0, 900, 450]], dtype=np.float64)
    assert (cross_fit(bounds) is None) == is_block
