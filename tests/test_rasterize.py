"""Rasterize polygons to instance masks."""

import numpy as np
import pytest
import shapely
from shapely import affinity

from sn6.targets.rasterize import drop_unobserved, rasterize_instances


def test_a_pixel_belongs_to_a_building_if_its_centre_is_inside():
    mask = rasterize_instances([shapely.box(0.6, 0.4, 3.4, 2.6)], 4, 5)
    assert mask.tolist() == [[0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]]


def test_a_courtyard_is_background():
    courtyard = shapely.Polygon([(0, 0), (5, 0), (5, 3), (0, 3)], [[(1, 1), (2, 1), (2, 2), (1, 2)]])
    assert rasterize_instances([courtyard], 3, 5).tolist() == [[1] * 5, [1, 0, 1, 1, 1], [1] * 5]


def test_the_later_of_two_overlapping_buildings_takes_the_pixels():
    mask = rasterize_instances([shapely.box(0, 0, 3, 1), shapely.box(2, 0, 4, 1)], 1, 5)
    assert mask.tolist() == [[1, 1, 2, 2, 0]]


def test_the_parts_of_a_multipolygon_have_one_number():
    parts = shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(2, 0, 3, 1)])
    assert rasterize_instances(np.array([parts]), 1, 4).tolist() == [[1, 0, 1, 0]]


def test_an_empty_polygon_keeps_its_number():
    mask = rasterize_instances([shapely.Polygon(), shapely.box(0, 0, 1, 1), shapely.box(50, 50, 60, 60)], 1, 2)
    assert mask.tolist() == [[2, 0]]


@pytest.mark.parametrize("polygons", [[], np.array([], dtype=object), [shapely.Polygon()]])
def test_no_buildings_give_background(polygons):
    mask = rasterize_instances(polygons, 3, 4)
    assert mask.dtype == np.int32
    assert not mask.any()
    assert mask.shape == (3, 4)


def test_more_than_255_buildings():
    mask = rasterize_instances([shapely.box(i, 0, i + 1, 1) for i in range(700)], 1, 700)
    assert mask.dtype == np.int32
    assert mask[0].tolist() == list(range(1, 701))


@pytest.mark.parametrize("seed", range(5))
def test_masks_are_equal_to_a_test_of_each_pixel_centre(seed):
    rng = np.random.default_rng(seed)
    shape = shapely.Polygon([(0, 0), (14, 0), (14, 5), (6, 5), (6, 12), (0, 12)], [[(1, 1), (4, 1), (2, 4)]])
    polygons = [
        affinity.translate(affinity.rotate(shape, rng.uniform(0, 360)), *rng.uniform(-5, 50, 2)) for _ in range(12)
    ]
    rows, columns = np.mgrid[:50, :60] + 0.5
    expected = np.zeros((50, 60), dtype=int)
    for number, polygon in enumerate(polygons, start=1):
        expected[shapely.contains_xy(polygon, columns, rows)] = number
    assert (rasterize_instances(polygons, 50, 60) == expected).all()


def test_buildings_without_a_valid_pixel_are_dropped():
    instances = np.array([[1, 1, 2, 2, 0, 3]], dtype=np.int32)
    valid = np.array([[False, True, False, False, True, True]])
    remaining = drop_unobserved(instances, valid)
    assert remaining.tolist() == [[1, 1, 0, 0, 0, 3]]
    assert remaining.dtype == np.int32


def test_without_a_valid_pixel_all_buildings_are_dropped():
    instances = np.array([[1, 2]], dtype=np.int32)
    assert not drop_unobserved(instances, np.zeros((1, 2), dtype=bool)).any()
