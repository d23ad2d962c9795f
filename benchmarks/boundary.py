"""Boundary weights of the U-Net paper (equation 2): windows against a distance transform of the tile per building.

Time, and the peak of the arrays; the weights agree to 1e-5.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from scipy.ndimage import distance_transform_edt

from benchmarks.comparison import Row, medians, peak_of_arrays, require
from benchmarks.street_map import SIZE, terraces
from sn6.datasets.spacenet6 import PIXEL
from sn6.targets.boundary import boundary_term
from sn6.targets.rasterize import rasterize_instances

W0, SIGMA = 10.0, 5.0  # as in the paper
MAX_SIDE = 46.0  # px, of a building among 60
SEED = 1  # the first whose 60 buildings have a median of 150 to 200 m², as those of SpaceNet 6
TARGETS = {60: 100.0, 300: 250.0}  # number of buildings → min_ratio
PEER = "scipy, whole tile for each building"


def rows(counts: Sequence[int] = tuple(TARGETS), size: int = SIZE, repeats: int = 5) -> Iterator[Row]:
    """Yield two rows for each number of buildings on a tile of `size` pixels."""
    for count in counts:
        max_side = MAX_SIDE * min(1, (60 / count) ** 0.5)
        buildings = terraces(np.random.default_rng(SEED), count, size, max_side)
        instances = rasterize_instances(buildings, size, size)
        median = np.median(np.bincount(instances.ravel(), minlength=count + 1)[1:]) * PIXEL**2
        inputs = f"{size}×{size}, {count} buildings, median {median:.0f} m²"
        difference = np.abs(boundary_term(instances, W0, SIGMA) - whole_tiles(instances)).max()
        require(difference < 1e-5, f"boundary weights of {inputs}: sn6 and {PEER} differ by {difference:.2g}")
        agreement = f"to 1e-5 ({difference:.1g})"
        ours, theirs = partial(boundary_term, instances, W0, SIGMA), partial(whole_tiles, instances)
        seconds = medians({"ours": ours, "theirs": theirs}, repeats)
        yield Row("boundary weights", inputs, seconds["ours"], PEER, seconds["theirs"], agreement, TARGETS.get(count))
        peaks = peak_of_arrays(ours), peak_of_arrays(theirs)
        yield Row("boundary weights, memory", inputs, peaks[0], PEER, peaks[1], agreement, unit="bytes")


def whole_tiles(instances: np.ndarray) -> np.ndarray:
    """Compute the weights the usual way: sort the distances to every building at every pixel, and use the first two."""
    labels = np.unique(instances[instances > 0])
    distances = np.sort(np.stack([distance_transform_edt(instances != label) for label in labels], axis=-1), axis=-1)
    return W0 * np.exp(-((distances[..., 0] + distances[..., 1]) ** 2) / (2 * SIGMA**2))
