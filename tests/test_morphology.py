"""Holes that are filled and openings, by hand and against plain loops."""

import numpy as np
import pytest
from helpers.errors import user_error
from scipy import ndimage

from sn6.footprints.morphology import fill_holes, open_mask
from sn6.footprints.threshold import Threshold


def draw(*rows):
    return np.array([[0 if sign in ".n" else int(sign) for sign in row] for row in rows], dtype=np.int32)


def test_holes_smaller_than_the_limit_are_filled_with_their_component():
    components = draw("11111.", "1.1.1.", "111.1.", "11111.", "......", "22222.", "2...2.", "2...2.", "22222.")
    ground = components == 0
    assert (fill_holes(components, ground, 2) != components).sum() == 1  # the hole of one pixel at (1, 1)
    filled = fill_holes(components, ground, 3)
    assert (
        filled == draw("11111.", "11111.", "11111.", "11111.", "......", "22222.", "2...2.", "2...2.", "22222.")
    ).all()
    assert (fill_holes(components, ground, 6) == filled).all()
    assert (fill_holes(components, ground, 7)[5:, :5] == 2).all()


def test_pixels_that_touch_at_a_corner_are_one_hole():
    components = draw("11111", "1.111", "11.11", "11111")
    assert (fill_holes(components, components == 0, 2) == components).all()
    assert (fill_holes(components, components == 0, 3) == 1).all()


def test_holes_with_another_component_with_nodata_or_open_to_the_border_stay():
    island = draw("11111", "1...1", "1.2.1", "1...1", "11111")
    assert (fill_holes(island, island == 0, 99) == island).all()
    alone = np.where(island == 1, 1, 0).astype(np.int32)  # as when the island is handled elsewhere
    assert (fill_holes(alone, island == 0, 99) == alone).all()
    nodata = draw("11111", "1...1", "11111")
    ground = nodata == 0
    ground[1, 2] = False
    assert (fill_holes(nodata, ground, 99) == nodata).all()
    bay = draw("11.11", "1...1", "11111")
    assert (fill_holes(bay, bay == 0, 99) == bay).all()


@pytest.mark.parametrize("radius", [1.0, 1.5, 2.0, 3.0, 4.3])
def test_an_opening_is_the_union_of_the_discs_inside(radius):
    noise = ndimage.gaussian_filter(np.random.default_rng(int(radius)).normal(size=(40, 46)), 2)
    mask = noise > -0.05
    reach = int(radius)
    disc = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) <= radius
    around = 3 * reach
    padded, expected = np.pad(mask, around, mode="edge"), np.zeros((40 + 2 * around, 46 + 2 * around), dtype=bool)
    for row in range(reach, len(padded) - reach):
        for column in range(reach, padded.shape[1] - reach):
            window = np.s_[row - reach : row + reach + 1, column - reach : column + reach + 1]
            if padded[window][disc].all():
                expected[window] |= disc
    opened = open_mask(mask, radius)
    assert (opened == expected[around:-around, around:-around]).all()
    assert mask.sum() > opened.sum() > 0
    assert (open_mask(mask, 0.9) == mask).all()


def test_a_building_cut_by_the_border_keeps_its_corners():
    mask = np.zeros((30, 30), dtype=bool)
    mask[:12, 5:20] = True
    opened = open_mask(mask, 3.0)
    assert opened[0, 5]
    assert opened[0, 19]
    assert not opened[11, 5]


def test_a_bridge_is_cut_and_a_hole_filled_before_buildings_are_counted():
    mask = np.zeros((1, 40, 90), dtype=np.float32)
    mask[0, 5:35, 5:35] = mask[0, 5:35, 50:80] = 0.9
    mask[0, 18:21, 35:50] = 0.9  # 1.5 m wide
    mask[0, 18:22, 18:22] = 0.1  # 4 m²
    valid = np.ones(mask.shape[1:], dtype=bool)
    (one,) = Threshold(simplify=0.0)({"mask": mask}, valid, 0.5).polygons
    assert one.area == 2 * 900 + 45 - 16
    cleaned = Threshold(simplify=0.0, fill_holes=5.0, opening=1.0)
    houses = cleaned({"mask": mask}, valid, 0.5)
    assert len(houses) == 2
    assert not any(house.interiors for house in houses.polygons)
    assert cleaned.instances({"mask": mask}, valid, 0.5).max() == 2
    assert houses.confidences[0] == pytest.approx((houses.polygons[0].area * 0.9 - 16 * 0.8) / houses.polygons[0].area)
    kept = Threshold(simplify=0.0, fill_holes=4.0, opening=1.0)({"mask": mask}, valid, 0.5)
    assert sum(len(house.interiors) for house in kept.polygons) == 1


@pytest.mark.parametrize("key", ["fill_holes", "opening"])
@pytest.mark.parametrize("value", [-1.0, float("inf")])
def test_values_out_of_range_are_errors(key, value):
    with user_error("invalid_value", key=key, value=value):
        Threshold(**{key: value})
