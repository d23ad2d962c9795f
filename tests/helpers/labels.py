"""Labels of a tile for the tests of targets."""

import numpy as np

from sn6.targets.target import TileLabels


def labels_of(instances, valid=True, heights=None, pixel_size=0.5):
    """Return the labels of a tile: instances (h, w), valid pixels (h, w), height of each number in m."""
    instances = np.asarray(instances, np.int32)
    if heights is None:
        heights = np.full(instances.max(initial=0) + 1, np.nan)
    return TileLabels(instances, np.broadcast_to(valid, instances.shape), np.asarray(heights, np.float64), pixel_size)
