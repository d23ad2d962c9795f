"""The simulated city: its contents, and that every part can be generated separately."""

from math import hypot

import numpy as np
import pytest
import shapely

from sn6.simulation.ground import Cover, Ground, make_objects
from sn6.simulation.scene import Scene, is_centre
from sn6.simulation.strips import harbour_basins, plan_tiles
from sn6.simulation.surface import grain_at, rasterize_ground
from sn6.simulation.tile import cut_footprints


@pytest.fixture(scope="module")
def city():
    """Polygons and heights of the buildings of one square kilometre."""
    ground = Scene(seed=3, density=1.0).ground((591000.0, 5750000.0, 592000.0, 5751000.0))
    return ground.shape[ground.is_building], (ground.height + ground.rise)[ground.is_building]


@pytest.fixture(scope="module")
def port() -> Ground:
    """The objects of three square kilometres of another city."""
    return Scene(seed=0, density=1.0).ground((591000.0, 5748000.0, 592500.0, 5750000.0))


def test_buildings_vary_and_do_not_overlap(city):
    shapes, heights = city
    pairs = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    one, other = pairs[:, pairs[0] < pairs[1]]
    assert shapely.area(shapely.intersection(shapes[one], shapes[other])).max() < 1e-6
    assert (shapely.length(shapely.intersection(shapes[one], shapes[other])) > 5).sum() > 30  # party walls, metres
    assert (shapely.get_num_interior_rings(shapes) > 0).any()
    assert (shapely.area(shapes) < 20).any()
    assert (shapely.area(shapes) > 1000).any()
    assert heights.min() == 2.5
    assert heights.max() > 20


def test_areas_and_heights_are_those_of_a_dutch_city(port):
    """Most are houses of two or three storeys; few are large or high; none exceeds 90 m."""
    buildings = port.where(port.is_building)
    areas, heights = shapely.area(buildings.shape), buildings.height + buildings.rise
    assert 40 < np.median(areas) < 120  # m²
    assert 0.05 < (areas > 500).mean() < 0.25
    assert 0.07 < areas.sum() / 3e6 < 0.25  # of the ground is built on
    assert 6 < np.median(heights) < 12
    assert heights.max() <= 90
    assert (heights > 40).any()


def test_the_city_contains_every_kind_of_object(port):
    assert set(port.cover) == set(Cover) - {Cover.STREET}  # the street is where there is no object
    buildings = port.where(port.is_building)
    round_ones = shapely.area(buildings.shape) / shapely.area(shapely.minimum_bounding_circle(buildings.shape)) > 0.95
    assert round_ones.sum() > 5  # tanks
    roofs = shapely.union_all(buildings.shape)
    crowns = port.shape[port.cover == Cover.TREE]
    overhanging = shapely.area(shapely.intersection(crowns, roofs)) > 1
    assert overhanging.any()
    assert shapely.intersects(shapely.centroid(crowns[overhanging]), roofs).mean() < 0.05  # they grow beside the roof


@pytest.fixture(scope="module")
def medium():
    """The tiles and labels of the first strip of a medium archive."""
    planned = plan_tiles(96, 32, 900, seed=0)
    scene = Scene(0, 1.0, harbour_basins(planned))
    return [(tile, cut_footprints(scene, tile)) for tile in planned[:16]]


@pytest.mark.slow
def test_a_tile_has_about_63_label_rows():
    """Over the ground of two medium archives; a dense centre has hundreds, a park has one row without a polygon."""
    numbers = []
    for seed in (0, 3):
        planned = plan_tiles(96, 128, 900, seed)
        scene = Scene(seed, 1.0, harbour_basins(planned))
        numbers += [max(len(cut_footprints(scene, tile)), 1) for tile in planned[::7]]
    assert np.mean(numbers) == pytest.approx(63, rel=0.25)


def test_three_tenths_of_a_dense_centre_are_built_on():
    """Its middle 450 m, without the districts around it."""
    rows = np.array(list(np.ndindex(40, 40))) + 50  # groups of two districts of 320 m
    south, west = next(640.0 * row for row in rows if is_centre(0, *(2 * row).tolist()))
    square = (west + 95, south + 95, west + 545, south + 545)
    ground = Scene(0, 1.0).ground(square)
    built = shapely.intersection(ground.shape[ground.is_building], shapely.box(*square))
    assert shapely.area(built).sum() / 450**2 > 0.3


@pytest.mark.slow
def test_a_medium_archive_contains_every_kind_of_hard_tile(medium):
    kinds = set()
    for tile, labels in medium:
        polygons = np.array([label.polygon for label in labels], dtype=object)
        imaged = shapely.transform(tile.strip.imaged, lambda xy, t=tile: (xy - (t.x, t.y)) / (0.5, -0.5))
        valid = imaged.intersection(shapely.box(0, 0, 900, 900)).area / 900**2
        pairs = shapely.STRtree(polygons).query(polygons, predicate="touches")
        properties = {
            "empty": not labels and valid > 0.5,
            "mostly nodata": valid < 0.1,
            "over nodata": (shapely.area(shapely.difference(polygons, imaged)) > 20).any(),
            "under 20 m2": (shapely.area(polygons) < 80).any(),
            "hole": (shapely.get_num_interior_rings(polygons) > 0).any(),
            "party wall": (shapely.length(shapely.intersection(*polygons[pairs])) > 10).any(),
        }
        kinds |= {kind for kind, present in properties.items() if present}
    assert kinds == {"empty", "mostly nodata", "over nodata", "under 20 m2", "hole", "party wall"}


def test_a_gable_roof_rises_evenly_from_its_eaves_to_the_ridge_in_the_middle():
    house = shapely.box(591010.0, 5749980.0, 591030.0, 5749990.0)
    ground = make_objects(np.random.default_rng(0), Cover.TILES, [house], height=5.0, rise=4.0)
    surface = rasterize_ground(ground, 0, 591000.0, 5750000.0, (60, 80))
    across = surface.height[18:42, 40]  # south from 2 m before the house
    expected = [0, 0, *(5.2 + 0.4 * np.arange(10)), *(5.2 + 0.4 * np.arange(10)[::-1]), 0, 0]
    np.testing.assert_allclose(across, expected, atol=1e-4)


def test_the_grain_depends_on_the_coordinates_not_on_the_tile():
    large = grain_at((1, 2), 591000.0, 5750000.0, (700, 600))
    part = grain_at((1, 2), 591050.0, 5749900.0, (90, 80))
    np.testing.assert_array_equal(part, large[200:290, 100:180])
    assert large.mean() == pytest.approx(0, abs=0.01)
    assert large.std() == pytest.approx(1, abs=0.01)
    assert not (grain_at((1, 3), 591050.0, 5749900.0, (90, 80)) == part).any()


def test_crowns_are_round_and_centred_on_their_tree():
    crown = shapely.Point(591020.0, 5749980.0).buffer(8.0)
    ground = make_objects(np.random.default_rng(0), Cover.TREE, [crown], height=12.0)
    height = rasterize_ground(ground, 0, 591000.0, 5750000.0, (80, 80)).height
    row, column = np.nonzero(height)
    distance = np.array([hypot(c - 39.5, r - 39.5) for r, c in zip(row, column, strict=True)])
    assert distance.max() < 16.5
    assert height[row, column][distance < 4].mean() > 10
    assert height[row, column][distance > 13].mean() < 8


def test_a_part_of_the_ground_is_the_same_when_generated_separately(city):
    shapes, _ = city
    part = (591300.0, 5750400.0, 591400.0, 5750460.0)
    ground = Scene(seed=3, density=1.0).ground(part)
    expected = {shape.wkb for shape in shapes if shape.intersects(shapely.box(*part))}
    assert expected
    assert {shape.wkb for shape in ground.shape[ground.is_building]} == expected


def test_the_ground_truth_mask_does_not_reach_a_perfect_score_because_of_terraces(city):
    """A mask shows buildings that touch as one; its polygons are scored against the ground truth here."""
    shapes = [shape for shape in city[0] if shape.area >= 20]
    merged = shapely.get_parts(shapely.unary_union(shapes))
    tp = sum(any(a.intersection(b).area > 0.5 * a.union(b).area for b in shapes) for a in merged)
    assert 0.5 < 2 * tp / (len(merged) + len(shapes)) < 0.85
