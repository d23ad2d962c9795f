"""Outlines of footprints that touch: no gaps and no overlaps where they share walls."""

import numpy as np
import pytest
import shapely
from scipy import ndimage
from scipy.spatial import KDTree

from sn6.footprints.polygonize import polygonize
from sn6.footprints.walls import pixel_walls_of, simplify_outlines, walls_of


def parcels(seed, size=120):
    """Return regions of noise, divided between random centres: many touch, some with holes and islands."""
    rng = np.random.default_rng(seed)
    nearest = KDTree(rng.integers(0, size, (14, 2))).query(np.argwhere(np.ones((size, size))))[1] + 1
    is_building = ndimage.gaussian_filter(rng.normal(size=(size, size)), 3) > -0.04
    return polygonize(np.where(is_building, nearest.reshape(size, size), 0).astype(np.int32))[0]


def test_the_walls_of_two_squares():
    squares = np.array([shapely.box(0, 0, 4, 4), shapely.box(4, 1, 7, 3)], dtype=object)
    walls = pixel_walls_of(squares)
    assert len(walls.xy) == 16 + 10
    assert walls.is_shared.sum() == 2 * 2
    assert walls.groups().tolist() == [0, 0]
    assert {tuple(corner) for corner in walls.xy[walls.junctions()].tolist()} == {(4, 1), (4, 3)}
    assert not walls_of(squares).is_shared.any()  # the large one has no corners there
    apart = pixel_walls_of(np.array([shapely.box(0, 0, 4, 4), shapely.box(4, 4, 7, 7)], dtype=object))
    assert len(set(apart.groups().tolist())) == 2  # a corner is no wall
    assert not apart.junctions().any()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tolerance", [0.8, 1.0, 1.5])
def test_shared_walls_are_simplified_once(seed, tolerance):
    exact = parcels(seed)
    simple = simplify_outlines(exact, tolerance, 0.0)
    assert shapely.is_valid(simple).all()
    assert (shapely.get_type_id(simple) == shapely.GeometryType.POLYGON).all()
    corners = shapely.get_num_coordinates
    assert corners(simple).sum() < 0.75 * corners(exact).sum()
    assert shapely.area(simple).sum() == pytest.approx(shapely.area(shapely.union_all(simple)), abs=1e-6)  # no overlap
    one, other = np.nonzero(pixel_pairs(exact))
    assert len(one) > 5
    for a, b in zip(one, other, strict=True):  # what was shared is shared: both have the same simplified points
        shared = simple[a].boundary.intersection(simple[b].boundary).length
        assert shared > 0
        ends = exact[a].boundary.intersection(exact[b].boundary)
        assert ends.hausdorff_distance(simple[a].boundary.intersection(simple[b].boundary)) <= 2 * tolerance + 1
    outlines = shapely.get_exterior_ring(simple), shapely.get_exterior_ring(exact)
    assert (shapely.hausdorff_distance(*outlines) <= 1.5 * tolerance + 1e-9).all()


def pixel_pairs(polygons):
    """Return whether two polygons share a side of a pixel, for each pair once."""
    lengths = shapely.length(shapely.intersection(polygons[:, None], polygons[None]))
    areas = shapely.area(shapely.intersection(polygons[:, None], polygons[None]))
    return np.triu((lengths >= 1) & (areas == 0), 1)


def test_footprints_that_touch_nothing_are_simplified_by_themselves():
    alone = polygonize(ndimage.label(np.random.default_rng(0).random((40, 40)) > 0.6)[0].astype(np.int32))[0]
    simple = simplify_outlines(alone, 1.0, 0.0)
    for polygon, outline in zip(alone, simple, strict=True):
        assert simplify_outlines(np.array([polygon]), 1.0, 0.0)[0].equals_exact(outline)


def test_an_island_in_a_hole_shares_all_of_its_wall():
    grid = np.ones((30, 30), dtype=np.int32)
    rows, columns = np.mgrid[:30, :30]
    grid[np.hypot(rows - 15, columns - 14) < 8] = 2
    ring, island = simplify_outlines(polygonize(grid)[0], 1.5, 0.0)
    assert shapely.get_num_coordinates(island) < 16
    assert island.exterior.equals(ring.interiors[0])
    assert ring.area + island.area == 900


def test_a_wall_stays_in_both_where_one_would_become_too_small():
    grid = np.zeros((14, 26), dtype=np.int32)
    grid[1:13, 1:13] = np.tril(np.ones((12, 12), dtype=np.int32))  # 78 px, as a triangle 72
    grid[1:13, 1:13][grid[1:13, 1:13] == 0] = 2
    stairs, other = simplify_outlines(polygonize(grid)[0], 1.0, 70.0)
    assert 70 <= stairs.area < 78 or other.area >= 66
    kept, beside = simplify_outlines(polygonize(grid)[0], 1.0, 78.0)
    assert kept.area == 78
    assert kept.area + beside.area == shapely.union(kept, beside).area == 144
