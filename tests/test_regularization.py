"""Regularised footprints: shapes by hand, and properties of many."""

import numpy as np
import pytest
import shapely
from scipy import ndimage
from shapely.affinity import rotate, scale, translate

from sn6.footprints.polygonize import polygonize
from sn6.footprints.regularization import regularize
from sn6.footprints.walls import simplify_outlines
from sn6.targets.rasterize import rasterize_instances

PIXEL = 0.5  # m
L = shapely.Polygon([(0, 0), (24, 0), (24, 10), (12, 10), (12, 22), (0, 22)])
CHAMFERED = shapely.Polygon([(0, 0), (24, 0), (24, 12), (16, 20), (0, 20)])


def stairs(*shapes):
    """Return the outlines of the pixels of shapes in metres."""
    in_pixels = np.array([scale(shape, 1 / PIXEL, 1 / PIXEL, origin=(0, 0)) for shape in shapes], dtype=object)
    return shapely.transform(polygonize(rasterize_instances(in_pixels, 200, 200))[0], lambda xy: xy * PIXEL)


def placed(shape, angle):
    return translate(rotate(shape, angle, origin=(0, 0)), 45, 40)


def angles(polygon):
    """Return the directions of the sides in degrees, modulo 180."""
    steps = np.diff(shapely.get_coordinates(polygon), axis=0)
    return np.rad2deg(np.arctan2(*steps.T[::-1])) % 180


def off(values, angle):
    """Return how far directions are from an angle, modulo 90°."""
    return np.abs((values - angle + 45) % 90 - 45)


def overlap_over_union(one, other):
    return one.intersection(other).area / one.union(other).area


@pytest.mark.parametrize("angle", [0, 8, 17, 33, 45, 60, 81])
@pytest.mark.parametrize(("shape", "corners"), [(shapely.box(0, 0, 20, 12), 4), (L, 6)])
def test_pixel_stairs_become_right_angles(shape, corners, angle):
    (before,) = stairs(placed(shape, angle))
    (after,) = regularize(np.array([before], dtype=object))
    assert shapely.get_num_coordinates(after) == corners + 1
    found = angles(after)
    assert off(found, found[0]).max() < 1e-3
    assert off(found, angle).max() < 3
    assert after.area == pytest.approx(before.area, rel=1e-2)
    assert overlap_over_union(after, placed(shape, angle)) > 0.9


def test_a_wall_at_45_degrees_stays_one():
    (before,) = stairs(placed(CHAMFERED, 25))
    (after,) = regularize(np.array([before], dtype=object))
    found = angles(after)
    assert len(found) == 5
    assert off(found * 2, found[0] * 2).max() < 1e-2  # multiples of 45°
    assert (off(found, found[0]) > 40).sum() in (1, 4)  # one of them oblique
    assert overlap_over_union(after, placed(CHAMFERED, 25)) > 0.94


@pytest.mark.parametrize("simplify", [0.0, 1.0])
def test_row_houses_go_on_sharing_their_walls(simplify):
    houses = [placed(shapely.box(left, 0, left + 9, 12 + shift), 20) for left, shift in ((0, 0), (9, 3), (18, 0))]
    before = stairs(*houses)
    in_pixels = shapely.transform(before, lambda xy: xy / PIXEL)
    before = shapely.transform(simplify_outlines(in_pixels, simplify, 0.0), lambda xy: xy * PIXEL)
    after = regularize(before)
    assert not any(new.equals(old) for new, old in zip(after, before, strict=True))
    for one, other in ((0, 1), (1, 2)):
        assert after[one].intersection(after[other]).area < 1e-6
        assert after[one].boundary.intersection(after[other].boundary).length > 10
    assert not after[0].intersects(after[2])
    assert shapely.union_all(after).geom_type == "Polygon"
    assert not shapely.union_all(after).interiors  # no gap
    found = np.concatenate([angles(house) for house in after])
    assert off(found, found[0]).max() < 1e-2


@pytest.mark.parametrize("radius", [4, 6, 10, 15])
def test_a_circle_stays(radius):
    circles = np.array([*stairs(shapely.Point(40.2, 40.1).buffer(radius)), shapely.Point(0, 0).buffer(radius)])
    for before, after in zip(circles, regularize(circles), strict=True):
        assert after.equals(before)


def test_a_building_that_does_not_fit_stays_and_its_neighbour_keeps_the_shared_wall():
    ring = shapely.Point(30, 30).buffer(14)
    house = rotate(shapely.box(30, 22, 75, 38), 10, origin=(30, 30)).difference(ring)
    before = stairs(ring, house)
    after = regularize(before)
    assert after[0].equals(before[0])
    assert after[1].intersection(after[0]).area < 1e-6
    assert shapely.get_num_coordinates(after[1]) < shapely.get_num_coordinates(before[1])
    shared = before[0].boundary.intersection(before[1].boundary).length
    assert after[0].boundary.intersection(after[1].boundary).length == pytest.approx(shared)


def test_a_courtyard_is_turned_with_its_building():
    court = shapely.box(0, 0, 30, 24).difference(shapely.box(9, 8, 20, 16))
    (after,) = regularize(stairs(placed(court, 30)))
    assert len(after.interiors) == 1
    assert len(after.interiors[0].coords) == len(after.exterior.coords) == 5
    assert off(angles(shapely.Polygon(after.interiors[0])), angles(shapely.Polygon(after.exterior))[0]).max() < 1e-2


def crowd(seed):
    """Return noisy buildings in metres, many of which touch, as a network and a watershed give them."""
    rng = np.random.default_rng(seed)
    shapes = [
        placed(shapely.box(x, y, x + rng.uniform(9, 16), y + rng.uniform(9, 15)), 17)
        for x in range(-30, 60, 13)
        for y in range(-30, 60, 17)
    ]
    labels = rasterize_instances(np.array([scale(one, 2, 2, origin=(0, 0)) for one in shapes]), 260, 260)
    noise = ndimage.gaussian_filter(rng.normal(size=labels.shape), 2) * 4
    labels = np.where(ndimage.gaussian_filter((labels > 0).astype(float), 1.5) + 0.2 * noise > 0.5, labels, 0)
    polygons = simplify_outlines(polygonize(labels.astype(np.int32))[0], 1.0, 40.0)
    return shapely.transform(polygons[shapely.area(polygons) > 80], lambda xy: xy * PIXEL + (430_000, 5_700_000))


@pytest.mark.parametrize("seed", range(3))
def test_areas_are_kept_and_nothing_new_overlaps(seed):
    before = crowd(seed)
    after = regularize(before)
    changed = ~shapely.equals(before, after)
    assert len(before) > 20
    assert changed.mean() > 0.3
    assert shapely.is_valid(after).all()
    assert (shapely.get_type_id(after) == shapely.GeometryType.POLYGON).all()
    assert shapely.area(after) == pytest.approx(shapely.area(before), rel=0.02)
    common = shapely.area(shapely.intersection(before, after))
    assert (common / shapely.area(shapely.union(before, after)) >= 0.85 - 1e-9).all()
    one, other = np.triu_indices(len(after), 1)
    overlaps = [shapely.area(shapely.intersection(some[one], some[other])) for some in (before, after)]
    assert (overlaps[1] <= overlaps[0] + 0.021).all()
    walls = [
        shapely.length(shapely.intersection(shapely.boundary(some[one]), shapely.boundary(some[other])))
        for some in (before, after)
    ]
    shares = walls[0] > 4
    assert shares.sum() > 3
    assert (walls[1][shares] > 0.5 * walls[0][shares]).all()
    assert regularize(before[:0]).size == 0


def test_the_result_does_not_depend_on_what_is_far_away():
    before = crowd(5)
    far = np.array([shapely.box(430_900, 5_700_900, 430_920, 5_700_910)])
    together = regularize(np.concatenate([before, far]))
    assert shapely.equals_exact(regularize(before), together[:-1], tolerance=1e-4).all()
    assert together[-1].equals(far[0])


@pytest.mark.timeout(30)
def test_an_outline_of_very_many_corners_stays_and_takes_no_minutes():
    x = np.arange(2000.0)
    zigzag = np.concatenate([np.stack([x, 4 * (x % 2)], 1), np.stack([x[::-1], 20 + 4 * (x[::-1] % 2)], 1)])
    zigzag, house = shapely.Polygon(zigzag), shapely.box(0, 40, 20, 52)
    one, other = regularize(np.array([zigzag, house]))
    assert one.equals(zigzag)
    assert other.symmetric_difference(house).area < 1e-6
