"""Footprints computed block by block equal those of the whole map."""

import numpy as np
import pytest
import shapely
from scipy import ndimage
from scipy.special import expit

from sn6.footprints.blocks import footprints_by_blocks
from sn6.footprints.threshold import Threshold

PIXEL_SIZE = 0.5


def by_blocks(logits, options, block):
    """Return the polygons and confidences of all blocks, and the largest number of pixels read at once."""
    sizes = []

    def read(rows, columns):
        sizes.append((rows.stop - rows.start) * (columns.stop - columns.start))
        part = logits[rows, columns]
        return {"mask": expit(part)[None]}, ~np.isnan(part)

    chunks = list(footprints_by_blocks(read, *logits.shape, options, PIXEL_SIZE, block))
    polygons = np.concatenate([chunk.polygons for chunk in chunks])
    return polygons, np.concatenate([chunk.confidences for chunk in chunks]), max(sizes)


def from_top_left(polygons):
    """Return an order that depends only on the positions of the polygons."""
    return np.lexsort(np.vstack([shapely.bounds(polygons).T, shapely.area(polygons)])) if len(polygons) else []


def maps():
    """Yield maps of blobs from single pixels to many blocks, with nodata; a comb; a full and an empty map."""
    for seed, sigma, scale in ((0, 3.0, 30), (1, 1.0, 8), (2, 0.0, 3), (3, 8.0, 90)):
        noise = np.random.default_rng(seed).normal(size=(173, 230))
        logits = ndimage.gaussian_filter(noise, sigma).astype(np.float32) * scale
        logits[40:90, 100:115] = np.nan
        yield logits
    comb = np.full((173, 230), -2, dtype=np.float32)  # one building whose teeth cross many blocks
    comb[3, :] = comb[:, ::4] = 2
    yield comb
    yield np.full((173, 230), 2, dtype=np.float32)
    yield np.full((173, 230), -2, dtype=np.float32)


@pytest.mark.parametrize(
    ("block", "options"),
    [
        (32, Threshold()),
        (32, Threshold(threshold=0.38, min_area=0.0, simplify=0.0)),
        (50, Threshold(threshold=0.7, min_area=3.0, simplify=1.0)),
        (50, Threshold(threshold=0.38, min_area=0.0, simplify=0.0)),
        (64, Threshold()),
        (500, Threshold()),
    ],
)
def test_blocks_give_the_footprints_of_the_whole_map(block, options):
    for logits in maps():
        whole = options({"mask": expit(logits)[None]}, ~np.isnan(logits), PIXEL_SIZE)
        polygons, confidences, largest = by_blocks(logits, options, block)
        assert largest <= block**2
        assert len(polygons) == len(whole)
        ours, theirs = from_top_left(polygons), from_top_left(whole.polygons)
        for polygon, expected in zip(polygons[ours], whole.polygons[theirs], strict=True):
            assert shapely.equals_exact(polygon, expected, normalize=True)
        assert (confidences[ours] == whole.confidences[theirs]).all()


def test_a_building_on_the_corner_of_four_blocks_is_one_polygon_with_few_corners():
    logits = np.full((64, 64), -3, dtype=np.float32)
    logits[20:50, 25:40] = 3
    logits[30:36, 30:34] = -3  # a courtyard on the corner
    polygons, confidences, _ = by_blocks(logits, Threshold(), 32)
    assert len(polygons) == 1
    assert polygons[0].equals(
        shapely.Polygon(shapely.box(25, 20, 40, 50).exterior, [shapely.box(30, 30, 34, 36).exterior])
    )
    assert shapely.get_num_coordinates(polygons[0]) == 10
    assert confidences[0] == pytest.approx(1 / (1 + np.exp(-3)))


def test_a_part_below_the_minimum_area_counts_with_the_rest_of_its_building():
    logits = np.full((40, 64), -3, dtype=np.float32)
    logits[10:20, 30:40] = 3  # 20 pixels left of the block edge, 80 right of it
    logits[25:33, 33:43] = 3
    logits[32, 33] = -3  # 79 pixels
    assert [polygon.bounds for polygon in by_blocks(logits, Threshold(), 32)[0]] == [(30, 10, 40, 20)]


def test_buildings_that_touch_at_a_corner_across_blocks_stay_separate():
    logits = np.full((64, 64), -3, dtype=np.float32)
    logits[20:32, 20:32] = logits[32:44, 32:44] = 3
    assert len(by_blocks(logits, Threshold(), 32)[0]) == 2
