"""Boundary weights of the U-Net paper (equation 2): windows against a distance transform of the tile a building.

Time, and the peak of the arrays; the weights agree to 1e-5.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from scipy.ndimage import distance_transform_edt

from benchmarks.comparison import Row, medians, peak_of_arrays, require
from benchmarks.street_map import SIZE, terraces
from sn6.datasets.layout import PIXEL
from sn6.targets.boundary import boundary_term
from sn6.targets.rasterize import rasterize_instances

W0, SIGMA = 10.0, 5.0  # as in the paper
LARGEST = 46.0  # px, side of a building among 60
SEED = 1  # the first whose 60 buildings have a median of 150 to 200 m², as those of SpaceNet 6
WANTED = {60: 100.0, 300: 250.0}
PEER = "scipy, the whole tile for each building"


def rows(counts: Sequence[int] = tuple(WANTED), size: int = SIZE, repeats: int = 5) -> Iterator[Row]:
    """Two rows for each number of buildings on a tile of `size` pixels."""
    for count in counts:
        largest = LARGEST * min(1, (60 / count) ** 0.5)
        buildings = terraces(np.random.default_rng(SEED), count, size, largest)
        instances = rasterize_instances(buildings, size, size)
        median = np.median(np.bincount(instances.ravel(), minlength=count + 1)[1:]) * PIXEL**2
        given = f"{size}×{size}, {count} buildings, median {median:.0f} m²"
        off = np.abs(boundary_term(instances, W0, SIGMA) - whole_tiles(instances)).max()
        require(off < 1e-5, f"boundary weights of {given}: the two ways differ by {off:.2g}")
        equality = f"to 1e-5 ({off:.1g})"
        ways = {"ours": partial(boundary_term, instances, W0, SIGMA), "theirs": partial(whole_tiles, instances)}
        seconds = medians(ways, repeats)
        peaks = {name: peak_of_arrays(way) for name, way in ways.items()}
        yield Row("boundary weights", given, seconds["ours"], PEER, seconds["theirs"], equality, WANTED.get(count))
        yield Row("their memory", given, peaks["ours"], PEER, peaks["theirs"], equality, unit="bytes")


def whole_tiles(instances: np.ndarray) -> np.ndarray:
    """The usual way: the distances to every building at every pixel, sorted; the first two count."""
    labels = np.unique(instances[instances > 0])
    distances = np.sort(np.stack([distance_transform_edt(instances != label) for label in labels], axis=-1), axis=-1)
    return W0 * np.exp(-((distances[..., 0] + distances[..., 1]) ** 2) / (2 * SIGMA**2))
