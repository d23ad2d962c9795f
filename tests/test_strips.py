"""The planned strips have the properties of the published ones."""

from collections import defaultdict
from itertools import combinations

import numpy as np
import pytest
import shapely
from numpy.testing import assert_allclose

from sn6.errors import UserError
from sn6.simulation.strips import plan_tiles


@pytest.mark.parametrize(
    ("tiles", "test_tiles", "size"),
    [
        *((*counts, 900) for counts in [(1, 1), (2, 0), (12, 2), (24, 8), (35, 4), (40, 8), (97, 40), (3400, 2061)]),
        *((*counts, 128) for counts in [(1, 1), (24, 8), (97, 40)]),  # far more tiles would fit
        *((*counts, 1800) for counts in [(2, 0), (40, 8), (3400, 2061)]),  # the fewest tiles fit
    ],
)
def test_strips_are_arranged_as_in_the_published_archive(tiles, test_tiles, size):
    side = size / 2
    planned = plan_tiles(tiles, test_tiles, size, seed=5)
    split = {name: [tile for tile in planned if tile.strip.split == name] for name in ("train", "test_public")}
    assert [len(tiles) for tiles in split.values()] == [tiles, test_tiles]
    assert sorted(tile.number for tile in planned) == list(range(1, tiles + test_tiles + 1))
    x, y = np.array([(tile.x, tile.y) for tile in planned]).T
    assert x.min() >= 590112 - 0.001
    assert x.max() <= 596252
    assert y.min() >= 5745920 - 0.001
    assert y.max() <= 5753195.001
    strips = defaultdict(list)
    for tile in planned:
        strips[tile.strip].append(tile)
    assert len({strip.name for strip in strips}) == len(strips)
    for strip, cut in strips.items():
        steps = np.array([((tile.x - cut[0].x) / side, (cut[0].y - tile.y) / side) for tile in cut])
        assert_allclose(steps, steps.round(), atol=0.01)  # the tiles of a strip are adjacent
        assert len({tuple(step) for step in steps.round()}) == len(cut)
        squares = shapely.unary_union([shapely.box(*tile.bounds) for tile in cut])
        assert strip.imaged.within(squares.envelope.buffer(0.01 * side))
        assert strip.imaged.area < 0.95 * squares.envelope.area
    for several in (tiles for tiles in split.values() if len(tiles) > 1):
        assert {tile.strip.orientation for tile in several} == {0, 1}


def test_three_strips_of_both_look_directions_cover_the_same_ground():
    strips = defaultdict(list)
    for tile in plan_tiles(24, 8, 900, seed=0):
        strips[tile.strip].append(shapely.box(*tile.bounds))
    train = {strip: shapely.unary_union(squares) for strip, squares in strips.items() if strip.split == "train"}
    assert {len(strips[strip]) for strip in train} == {8}
    assert {strip.orientation for strip in train} == {0, 1}
    for one, other in combinations(train.values(), 2):
        assert one.intersection(other).area > 0.6 * one.area
        assert abs(one.bounds[0] - other.bounds[0]) > 5  # metres: each has its own offset


def test_a_full_archive_covers_its_ground_3_to_45_times():
    """The published tiles do so at most 42 times, from both look directions over most of the ground."""
    planned = [tile for tile in plan_tiles(3401, 2061, 900, seed=0) if tile.strip.split == "train"]
    rng = np.random.default_rng(0)
    points = shapely.points(rng.uniform((590200, 5746000), (596600, 5753190), (4000, 2)))
    tree = shapely.STRtree([tile.strip.imaged.intersection(shapely.box(*tile.bounds)) for tile in planned])
    point, tile = tree.query(points, predicate="within")
    times = np.bincount(point, minlength=len(points))
    covered = times[times > 0]
    assert np.percentile(covered, 5) < 10
    assert 12 < covered.mean() < 36
    assert covered.max() <= 45
    flags = np.array([planned[i].strip.orientation for i in tile])
    both = [set(flags[point == i]) == {0, 1} for i in np.flatnonzero(times > 8)[:200]]
    assert np.mean(both) > 0.95


def test_gains_and_offsets_of_passes_are_small_and_centred():
    strips = list({tile.strip: None for tile in plan_tiles(3401, 2061, 900, seed=0)})
    gains = np.array([strip.gain for strip in strips])  # dB
    offsets = np.array([strip.offset for strip in strips])  # metres
    assert np.abs(gains.mean(axis=0)).max() < 0.3
    assert 1.5 < gains.std() < 4
    assert np.corrcoef(gains.T).min() > 0.8  # of all bands together
    assert np.abs(offsets).max() < 3
    assert 0.3 < offsets.std() < 1


@pytest.mark.parametrize("passes", [1, 3, 16])
def test_each_side_images_the_same_ground_as_often_as_asked(passes):
    planned = plan_tiles(2 * passes * 8, 0, 900, seed=0, passes=passes)
    squares = defaultdict(list)
    for tile in planned:
        squares[tile.strip].append(shapely.box(*tile.bounds))
    assert [strip.orientation for strip in squares].count(0) == passes
    assert [strip.orientation for strip in squares].count(1) == passes
    common = shapely.intersection_all([shapely.unary_union(tiles) for tiles in squares.values()])
    assert common.area > 0.5 * 8 * 450**2  # square metres that all passes image


def test_too_few_passes_for_so_many_tiles_are_refused():
    with pytest.raises(UserError) as caught:
        plan_tiles(3401, 2061, 900, seed=0, passes=1)
    assert (caught.value.kind, caught.value.key) == ("conflict", "passes")
