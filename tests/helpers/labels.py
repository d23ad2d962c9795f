"""Labels of a tile for the tests of targets."""

import numpy as np

from sn6.targets.target import TileLabels


def labels_of(instances, valid=True, heights=None, pixel_size=0.5):
    """Return the labels of a tile: instances (h, w), valid pixels (h, w), height of each number in m."""
    instances = np.asarray(instances, np.int32)
    if heights is None:
        heights = np.full(instances.max(initial=0) + 1, np.nan)
    return TileLabels(instances, np.broadcast_to(valid, instances.shape), np.asarray(heights, np.float64), pixel_size)


def random_buildings(rng, shape, number, largest):
    """Draw overlapping rectangles: many touch, some are cut into pieces or covered."""
    instances = np.zeros(shape, np.int32)
    for label in range(1, number + 1):
        top, left = rng.integers(0, shape[0] - 2), rng.integers(0, shape[1] - 2)
        height, width = rng.integers(1, largest, 2)
        instances[top : top + height, left : left + width] = label
    return instances
