"""Merging of the footprints of overlapping tiles, on hand-made cases."""

import numpy as np
import pytest
import shapely
from shapely import box

from sn6.footprints.merging import join_halves, suppress_overlaps


def kept(polygons, confidences, tiles, cut=None):
    cut = np.array([False] * len(polygons) if cut is None else cut, dtype=bool)
    confidences, tiles = np.array(confidences, dtype=np.float64), np.array(tiles, dtype=np.int64)
    return suppress_overlaps(np.array(polygons, dtype=object), confidences, tiles, cut).tolist()


def test_of_two_footprints_of_a_building_the_more_confident_is_kept():
    assert kept([box(0, 0, 10, 10), box(1, 1, 11, 11)], [0.6, 0.8], [0, 1]) == [1]


def test_footprints_of_one_tile_never_drop_each_other():
    assert kept([box(0, 0, 10, 10), box(1, 1, 11, 11)], [0.6, 0.8], [0, 0]) == [0, 1]


def test_neighbours_that_share_at_most_half_are_both_kept():
    assert kept([box(0, 0, 10, 10), box(5, 0, 15, 10)], [0.6, 0.8], [0, 1]) == [0, 1]


def test_a_row_of_houses_is_kept_as_one_block_or_house_by_house():
    houses = [box(x, 0, x + 10, 10) for x in (0, 10, 20)]
    assert kept([box(0, 0, 30, 10), *houses], [0.9, 0.8, 0.8, 0.8], [0, 1, 1, 1]) == [0]
    assert kept([box(0, 0, 30, 10), *houses], [0.7, 0.8, 0.8, 0.6], [0, 1, 1, 1]) == [1, 2, 3]


def test_a_complete_building_precedes_one_that_a_tile_edge_cuts():
    assert kept([box(0, 0, 10, 10), box(0, 0, 30, 10)], [0.9, 0.6], [0, 1], [True, False]) == [1]


def test_a_dropped_footprint_drops_no_other():
    chain = [box(0, 0, 10, 10), box(4, 0, 14, 10), box(8, 0, 18, 10)]  # each shares more than half with the next only
    assert kept(chain, [0.9, 0.8, 0.7], [0, 1, 2]) == [0, 2]


def test_no_footprints_give_no_footprints():
    assert kept([], [], []) == []


def test_halves_on_both_sides_of_an_edge_are_joined():
    polygons = [box(0, 0, 10, 10), box(10, 2, 30, 10), box(40, 0, 50, 10), box(50, 10, 60, 20), box(60, 0, 65, 9)]
    joined, confidences, first = join_halves(
        np.array(polygons), np.array([0.6, 0.9, 0.5, 0.7, 0.8]), np.array([True, True, True, True, False])
    )
    by_area = sorted(zip(shapely.area(joined).tolist(), confidences.tolist(), first.tolist(), strict=True))
    # two that touch at a corner stay separate
    assert [(area, index) for area, _, index in by_area] == [(45, 4), (100, 2), (100, 3), (260, 1)]
    assert by_area[-1][1] == pytest.approx((100 * 0.6 + 160 * 0.9) / 260)
    assert (shapely.get_type_id(joined) == shapely.GeometryType.POLYGON).all()
