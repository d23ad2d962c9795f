"""The small parts of a row of houses are where the radar can tell the houses apart, and repeat with their width."""

import numpy as np
import pytest
import shapely

from sn6.simulation.blocks import perimeter, terraces
from sn6.simulation.fittings import CORNER_SIZE, corners, porches, roof_details, roof_plant, row_of
from sn6.simulation.ground import FIRST_ROOF, Cover

WIDTH, DEPTH, N = 6.0, 9.0, 40


@pytest.fixture
def row():
    """Forty equal houses, their doors in the south at y = 4."""
    houses = [shapely.box(WIDTH * i, 4.0, WIDTH * (i + 1), 4.0 + DEPTH) for i in range(N)]
    return row_of(houses, np.full(N, 5.5), np.full(N, 3.0), np.zeros(N, bool))


def drawn(build, *args, seeds=range(12)):
    """Return the parts that a function draws with several seeds, those with at least half of the houses."""
    rows = [build(np.random.default_rng(seed), *args) for seed in seeds]
    return [ground for ground in rows if len(ground.shape) > N / 2]


def test_a_corner_is_before_the_facade_at_a_party_wall(row):
    kept = drawn(corners, row, row.south, -1.0)
    assert len(kept) > 6
    for ground in kept:
        west, south, east, north = shapely.bounds(ground.shape).T
        np.testing.assert_allclose((west + east) / 2 % WIDTH, 0, atol=1e-9)
        np.testing.assert_allclose(north, 4.0)
        np.testing.assert_allclose(south, 4.0 - CORNER_SIZE)


def test_porches_repeat_with_the_width_of_the_houses(row):
    """In the same place of each house, or mirrored in every second one."""
    for ground in drawn(porches, row, row.south, -1.0):
        west, _, east, north = shapely.bounds(ground.shape).T
        house = np.floor((west + east) / 2 / WIDTH)
        offset = west % WIDTH
        mirrored = WIDTH - east % WIDTH
        same = np.abs(offset - offset[0]) < 1e-6
        assert (same | (np.abs(mirrored - offset[0]) < 1e-6) | (np.abs(offset - mirrored[0]) < 1e-6)).all()
        assert len(set(house)) == len(house)
        np.testing.assert_allclose(north, 4.0)


def test_party_walls_rise_above_both_roofs(row):
    walls = 0
    for seed in range(16):
        for ground in roof_details(np.random.default_rng(seed), row):
            west, south, east, north = shapely.bounds(ground.shape).T
            if len(west) and np.allclose(north - south, DEPTH):
                walls += 1
                np.testing.assert_allclose((west + east) / 2 % WIDTH, 0, atol=1e-9)
                assert (ground.height > 5.5).all()
                assert (ground.rise == 3.0).all()
    assert walls > 5


def test_plant_is_on_its_roof():
    bounds = (10.0, 20.0, 70.0, 50.0)
    for seed in range(5):
        plant = roof_plant(np.random.default_rng(seed), bounds, 8.0)
        assert (plant.height > 8.0).all()
        assert shapely.covered_by(plant.shape, shapely.box(*bounds).buffer(1.0)).all()


@pytest.mark.parametrize("build", [terraces, perimeter])
def test_neighbours_differ_and_do_not_overlap(build):
    differ = []
    for seed in range(6):
        ground = build(np.random.default_rng(seed), 100.0, 60.0)
        houses = ground.where((ground.cover >= FIRST_ROOF) & (shapely.area(ground.shape) > 20))
        one, other = shapely.STRtree(houses.shape).query(houses.shape, predicate="touches")
        overlap = shapely.area(shapely.intersection(houses.shape[one], houses.shape[other]))
        assert overlap.max(initial=0) < 1e-6
        differ += (np.abs(houses.height[one] - houses.height[other]) > 0.5).tolist()
        assert (ground.cover == Cover.CORNER).sum() > 0
    assert np.mean(differ) > (0.6 if build is perimeter else 0.2)
