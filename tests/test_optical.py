"""The simulated optical images: where roofs, walls and shadows of a lone tower lie, and what the bands show."""

from dataclasses import replace

import numpy as np
import pytest
import shapely

from sn6.simulation.ground import Cover, joined, things
from sn6.simulation.optical import leaning, multispectral, natural_colour, optical_image, panchromatic, sharpened
from sn6.simulation.surface import Surface, surface_of

MARGIN = 130
B, G, R, NIR = range(4)


def surface(height: float, cover: Cover = Cover.SHEET) -> Surface:
    """A flat-roofed building of 20 m x 20 m, at rows and columns 80 to 120, in a street, without texture."""
    shape = (200 + 2 * MARGIN, 200)
    inside = np.zeros(shape, bool)
    inside[MARGIN + 80 : MARGIN + 120, 80:120] = True
    zeros = np.zeros((2, *shape), np.float32)
    return Surface(np.where(inside, int(cover), 0), np.where(inside, height, 0).astype(np.float32), zeros, zeros)


def test_a_roof_leans_to_the_north_by_its_height_and_casts_its_shadow_there():
    """50 m high: 6 m of lean, 12 rows; 50 m of shadow, 100 rows from the building's place."""
    image = optical_image(surface(50.0), MARGIN)
    column = image[G, :, 100]
    street, roof = column[150], column.max()
    assert roof > 1.5 * street
    bright = np.flatnonzero(column == roof)
    assert (bright.min(), bright.max()) == (80 - 12, 119 - 12)
    facade = column[120 - 11 : 120]
    assert (facade < 0.6 * roof).all()  # the wall below the roof's edge, over its own footprint
    dark = np.flatnonzero(column[:68] < 0.5 * street)
    assert abs(int(dark.min()) - 0) <= 1  # 80 - 100 lies outside
    image = optical_image(surface(25.0), MARGIN)
    dark = np.flatnonzero(image[G, :70, 100] < 0.5 * street)
    assert abs(int(dark.min()) - 30) <= 1
    np.testing.assert_array_equal(image[G, :, 30], street)  # beside it nothing


def test_nothing_moves_on_flat_ground():
    source, facade = leaning(np.zeros((30, 7), np.float32))
    np.testing.assert_array_equal(source, np.arange(30)[:, None].repeat(7, axis=1))
    assert not facade.any()


def test_a_high_building_hides_what_stands_behind_it():
    """10 rows behind a tower of 100 m, which leans by 24 rows, a pond is not to be seen."""
    tower = surface(100.0)
    cover = np.array(tower.cover)
    cover[MARGIN + 62 : MARGIN + 76, 80:120] = int(Cover.WATER)
    shown = optical_image(replace(tower, cover=cover), MARGIN)
    hidden = optical_image(tower, MARGIN)
    np.testing.assert_array_equal(shown[:, :, 80:120], hidden[:, :, 80:120])
    low = replace(tower, height=tower.height / 20)
    assert (optical_image(replace(low, cover=cover), MARGIN) != optical_image(low, MARGIN)).any()


def test_vegetation_is_bright_in_the_near_infrared_and_water_dark():
    ground = joined(
        [
            things(np.random.default_rng(0), cover, [shapely.box(591000.0 + x, 5749900.0, 591020.0 + x, 5750100.0)])
            for x, cover in ((0, Cover.LAWN), (20, Cover.WATER), (40, Cover.TREE), (60, Cover.BITUMEN))
        ]
    )
    image = optical_image(surface_of(ground, 0, 591000.0, 5750000.0, (100, 160)), 0)
    lawn, water, tree, roof = (image[:, :, x + 5 : x + 35].mean(axis=(1, 2)) for x in (0, 40, 80, 120))
    ndvi = [(c[NIR] - c[R]) / (c[NIR] + c[R]) for c in (lawn, tree, water, roof)]
    assert min(ndvi[:2]) > 0.6
    assert max(ndvi[2:]) < 0.3
    assert water[NIR] == pytest.approx(min(c[NIR] for c in (lawn, water, tree, roof)))


def test_the_coloured_bands_are_seen_at_two_metres_and_sharpened_by_the_panchromatic_one():
    """A stripe of 1 m: PAN shows it, RGBNIR hardly, PS-RGBNIR again."""
    image = np.full((4, 80, 80), 200.0, np.float32)
    image[:, :, 40:42] = 400.0
    contrast = {
        "pan": panchromatic(image)[0, 40, 40] / panchromatic(image)[0, 40, 20],
        "coarse": multispectral(image)[R, 20].max() / multispectral(image)[R, 20, 5],
        "sharp": sharpened(image)[R, 40, 40:42].max() / sharpened(image)[R, 40, 20],
    }
    assert contrast["coarse"] < 1.55
    assert contrast["pan"] > contrast["coarse"] + 0.1
    assert contrast["sharp"] > contrast["coarse"] + 0.1
    assert multispectral(image).shape == (4, 40, 40)


def test_counts_stay_within_their_types_and_off_nodata():
    image = np.stack([np.full((8, 8), value, np.float32) for value in (0.0, 1e5, 300.0, 50.0)])
    colours = sharpened(image)
    assert (colours.dtype, int(colours.min()), int(colours.max())) == (np.uint16, 1, 2047)
    eight = natural_colour(colours)
    assert eight.dtype == np.uint8
    assert eight.min() >= 1
    np.testing.assert_array_equal(eight[0] > eight[2], np.ones((8, 8), bool))  # R before B
