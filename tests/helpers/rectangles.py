"""Tiles that overlap, straight from the definition."""

import numpy as np


def overlaps(tiles, others):
    """Which pairs share more than a centimetre in both directions: (n, m) bool."""
    a, b = (np.array([t.bounds for t in side]).reshape(-1, 1, 4) for side in (tiles, others))
    b = b.swapaxes(0, 1)
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    return (width > 0.01) & (height > 0.01)
