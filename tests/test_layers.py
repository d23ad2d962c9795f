"""Layers of a tile for dashboards: each pixel has the outcome of its building, at the size of the picture."""

import numpy as np
import shapely

from sn6.metrics.matching import match_tile
from sn6.plots.layers import CLASSES, compute_layers


def test_each_pixel_has_the_outcome_of_its_building():
    boxes = [shapely.box(100, 100, 200, 200), shapely.box(300, 100, 400, 200), shapely.box(500, 500, 502, 502)]
    truth = np.array([*boxes, shapely.Polygon()])  # an empty polygon keeps its number
    proposals = np.array([shapely.box(700, 700, 800, 800), shapely.box(100, 100, 200, 210), shapely.box(0, 0, 2, 2)])
    match = match_tile(truth, proposals, np.array([0.9, 0.8, 0.7]), 80.0)
    picture = np.zeros((900, 900), dtype=np.float32)
    picture[:, 450:] = 1.0
    layers = compute_layers(picture, truth, proposals, match)
    assert layers.picture.shape == (450, 450)
    assert (layers.picture[:, :225] == 0).all()
    assert (layers.picture[:, 225:] == 255).all()
    expected = {name: np.zeros((450, 450), dtype=np.uint8) for name in CLASSES}
    expected["ground truth"][50:100, 50:100] = 1  # found
    expected["ground truth"][50:100, 150:200] = 2  # missed
    expected["ground truth"][250, 250] = 3  # 4 px²
    expected["proposals"][50:105, 50:100] = 1
    expected["proposals"][350:400, 350:400] = 2
    expected["proposals"][0, 0] = 3
    for name, mask in expected.items():
        np.testing.assert_array_equal(layers.masks[name], mask)


def test_a_colour_picture_without_buildings():
    nothing = np.array([], dtype=object)
    picture = np.full((40, 30, 3), 0.5, dtype=np.float32)
    layers = compute_layers(picture, nothing, nothing, match_tile(nothing, nothing, np.array([]), 80.0))
    assert layers.picture.shape == (40, 30, 3)
    assert all(mask.shape == (40, 30) and not mask.any() for mask in layers.masks.values())
