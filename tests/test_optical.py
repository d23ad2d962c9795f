"""The simulated optical images: the roof, walls and shadow of a single tower, and the contents of the bands."""

from dataclasses import replace

import numpy as np
import pytest
import shapely

from sn6.simulation.ground import Cover, concatenate, make_objects
from sn6.simulation.optical import (
    multispectral,
    natural_colour,
    optical_image,
    pan_sharpen,
    panchromatic,
    relief_displacement,
)
from sn6.simulation.surface import Surface, rasterize_ground

MARGIN = 130
B, G, R, NIR = range(4)


def surface(height: float, cover: Cover = Cover.SHEET) -> Surface:
    """Return a flat-roofed building of 20 m x 20 m, at rows and columns 80 to 120, on a street, without texture."""
    shape = (200 + 2 * MARGIN, 200)
    inside = np.zeros(shape, bool)
    inside[MARGIN + 80 : MARGIN + 120, 80:120] = True
    tone, grain = (np.zeros((numbers, *shape), np.float32) for numbers in (4, 2))
    return Surface(np.where(inside, int(cover), 0), np.where(inside, height, 0).astype(np.float32), tone, grain)


def test_a_roof_is_displaced_to_the_north_by_its_height_and_casts_its_shadow_there():
    """At a height of 50 m: a displacement of 6 m, 12 rows; a shadow of 50 m, 100 rows from the building."""
    image = optical_image(surface(50.0), MARGIN)
    column = image[G, :, 100]
    street, roof = column[150], column.max()
    assert roof > 1.5 * street
    bright = np.flatnonzero(column == roof)
    assert (bright.min(), bright.max()) == (80 - 12, 119 - 12)
    facade = column[120 - 11 : 120]
    assert (facade < 0.6 * roof).all()  # the wall below the edge of the roof, over the footprint
    dark = np.flatnonzero(column[:68] < 0.5 * street)
    assert abs(int(dark.min()) - 0) <= 1  # 80 - 100 is outside
    image = optical_image(surface(25.0), MARGIN)
    dark = np.flatnonzero(image[G, :70, 100] < 0.5 * street)
    assert abs(int(dark.min()) - 30) <= 1
    np.testing.assert_array_equal(image[G, :, 30], street)  # no shadow beside it


def test_flat_ground_is_not_displaced():
    source, facade = relief_displacement(np.zeros((30, 7), np.float32))
    np.testing.assert_array_equal(source, np.arange(30)[:, None].repeat(7, axis=1))
    assert not facade.any()


def test_a_high_building_hides_the_ground_behind_it():
    """A pond 10 rows behind a tower of 100 m, whose roof is displaced by 24 rows, is invisible."""
    tower = surface(100.0)
    cover = np.array(tower.cover)
    cover[MARGIN + 62 : MARGIN + 76, 80:120] = int(Cover.WATER)
    shown = optical_image(replace(tower, cover=cover), MARGIN)
    hidden = optical_image(tower, MARGIN)
    np.testing.assert_array_equal(shown[:, :, 80:120], hidden[:, :, 80:120])
    low = replace(tower, height=tower.height / 20)
    assert (optical_image(replace(low, cover=cover), MARGIN) != optical_image(low, MARGIN)).any()


def test_vegetation_is_bright_in_the_near_infrared_and_water_dark():
    ground = concatenate(
        [
            make_objects(
                np.random.default_rng(0), cover, [shapely.box(591000.0 + x, 5749900.0, 591020.0 + x, 5750100.0)]
            )
            for x, cover in ((0, Cover.LAWN), (20, Cover.WATER), (40, Cover.TREE), (60, Cover.BITUMEN))
        ]
    )
    image = optical_image(rasterize_ground(ground, 0, 591000.0, 5750000.0, (100, 160)), 0)
    lawn, water, tree, roof = (image[:, :, x + 5 : x + 35].mean(axis=(1, 2)) for x in (0, 40, 80, 120))
    ndvi = [(c[NIR] - c[R]) / (c[NIR] + c[R]) for c in (lawn, tree, water, roof)]
    assert min(ndvi[:2]) > 0.6
    assert max(ndvi[2:]) < 0.3
    assert water[NIR] == pytest.approx(min(c[NIR] for c in (lawn, water, tree, roof)))


def test_the_coloured_bands_have_a_resolution_of_two_metres_and_are_sharpened_by_the_panchromatic_one():
    """A stripe of 1 m is visible in PAN, hardly in RGBNIR, and again in PS-RGBNIR."""
    image = np.full((4, 80, 80), 200.0, np.float32)
    image[:, :, 40:42] = 400.0
    contrast = {
        "pan": panchromatic(image)[0, 40, 40] / panchromatic(image)[0, 40, 20],
        "coarse": multispectral(image)[R, 20].max() / multispectral(image)[R, 20, 5],
        "sharp": pan_sharpen(image)[R, 40, 40:42].max() / pan_sharpen(image)[R, 40, 20],
    }
    assert contrast["coarse"] < 1.55
    assert contrast["pan"] > contrast["coarse"] + 0.1
    assert contrast["sharp"] > contrast["coarse"] + 0.1
    assert multispectral(image).shape == (4, 40, 40)


def test_counts_are_within_their_range_and_never_nodata():
    image = np.stack([np.full((8, 8), value, np.float32) for value in (0.0, 1e5, 300.0, 50.0)])
    colours = pan_sharpen(image)
    assert (colours.dtype, int(colours.min()), int(colours.max())) == (np.uint16, 1, 2047)
    eight = natural_colour(colours)
    assert eight.dtype == np.uint8
    assert eight.min() >= 1
    np.testing.assert_array_equal(eight[0] > eight[2], np.ones((8, 8), bool))  # R before B
