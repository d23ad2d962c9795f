"""The footprints of a large map by blocks are those of the map taken whole."""

import numpy as np
import pytest
import shapely
from scipy import ndimage

from sn6.footprints.blocks import PolygonOptions, footprints_by_blocks
from sn6.footprints.polygonize import footprints_from_logits


def by_blocks(logits, rule, block, pixel=0.5):
    """All footprints, and the largest rectangle that was asked for."""
    asked = []

    def read(rows, columns):
        asked.append((rows.stop - rows.start) * (columns.stop - columns.start))
        return logits[rows, columns]

    found = list(footprints_by_blocks(read, *logits.shape, rule, pixel, block))
    polygons = np.concatenate([one.polygons for one in found])
    return polygons, np.concatenate([one.confidences for one in found]), max(asked)


def by_place(polygons):
    """Their order from the top left, whatever order they came in."""
    return np.lexsort(np.vstack([shapely.bounds(polygons).T, shapely.area(polygons)])) if len(polygons) else []


def maps():
    for seed, sigma, scale in ((0, 3.0, 30), (1, 1.0, 8), (2, 0.0, 3), (3, 8.0, 90)):
        noise = np.random.default_rng(seed).normal(size=(173, 230))
        logits = ndimage.gaussian_filter(noise, sigma).astype(np.float32) * scale
        logits[40:90, 100:115] = np.nan
        yield logits
    comb = np.full((173, 230), -2, dtype=np.float32)  # one building whose teeth go down through many blocks
    comb[3, :] = comb[:, ::4] = 2
    yield comb
    yield np.full((173, 230), 2, dtype=np.float32)
    yield np.full((173, 230), -2, dtype=np.float32)


@pytest.mark.parametrize("block", [32, 50, 64, 500])
@pytest.mark.parametrize("rule", [PolygonOptions(), PolygonOptions(0.7, 3.0, 1.0), PolygonOptions(-0.5, 0.0, 0.0)])
def test_blocks_give_the_footprints_of_the_whole_map(block, rule):
    for logits in maps():
        whole = footprints_from_logits(logits, ~np.isnan(logits), rule.threshold, rule.min_area, rule.simplify)
        polygons, confidences, largest = by_blocks(logits, rule, block)
        assert largest <= block**2
        assert len(polygons) == len(whole)
        ours, theirs = by_place(polygons), by_place(whole.polygons)
        for polygon, expected in zip(polygons[ours], whole.polygons[theirs], strict=True):
            assert shapely.equals_exact(polygon, expected, normalize=True)
        assert confidences[ours] == pytest.approx(whole.confidences[theirs], abs=1e-9)


def test_a_building_over_the_corner_of_four_blocks_is_one_with_few_corners():
    logits = np.full((64, 64), -3, dtype=np.float32)
    logits[20:50, 25:40] = 3
    logits[30:36, 30:34] = -3  # a courtyard on the corner
    polygons, confidences, _ = by_blocks(logits, PolygonOptions(), 32)
    assert len(polygons) == 1
    assert polygons[0].equals(
        shapely.Polygon(shapely.box(25, 20, 40, 50).exterior, [shapely.box(30, 30, 34, 36).exterior])
    )
    assert shapely.get_num_coordinates(polygons[0]) == 10
    assert confidences[0] == pytest.approx(1 / (1 + np.exp(-3)))


def test_a_part_too_small_for_a_building_counts_with_the_rest_of_it():
    logits = np.full((40, 64), -3, dtype=np.float32)
    logits[10:20, 30:40] = 3  # 20 pixels on the left of the border, 80 on the right
    logits[25:33, 33:43] = 3
    logits[32, 33] = -3  # 79 pixels
    assert [polygon.bounds for polygon in by_blocks(logits, PolygonOptions(), 32)[0]] == [(30, 10, 40, 20)]


def test_houses_that_meet_at_a_corner_across_blocks_stay_two():
    logits = np.full((64, 64), -3, dtype=np.float32)
    logits[20:32, 20:32] = logits[32:44, 32:44] = 3
    assert len(by_blocks(logits, PolygonOptions(), 32)[0]) == 2
