"""Targets of one tile as they are stored: against scikit-image and scipy over the whole tile for each building.

Mask, inner edge, contact and distance, without and with the boundary weights of the U-Net paper.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.morphology import dilation

from benchmarks.boundary import SIGMA, W0
from benchmarks.comparison import Row, medians, require
from benchmarks.oracle import TARGET_LIMITS, WINNER, crowded_labels
from benchmarks.street_map import SIZE
from sn6.datasets.spacenet6 import PIXEL
from sn6.targets.boundary import BoundaryWeights
from sn6.targets.distance import Distance
from sn6.targets.mask import Mask
from sn6.targets.target import STEPS, Target, TileLabels, tile_layers

EDGE, WINDOW, REACH = 2, 7, 10  # px: width of the inner edge, side of the contact's window, reach of the distance
HEADS: Mapping[str, Target] = {"mask": Mask(), **WINNER, "distance": Distance()}
WEIGHTS = {"weights": BoundaryWeights(W0, SIGMA * PIXEL)}
WITH_WEIGHTS_LIMITS = {60: 0.035, 300: 0.095}  # buildings → s
PEER = "scikit-image and scipy, whole tile for each building"


def rows(counts: Sequence[int] = tuple(TARGET_LIMITS), size: int = SIZE, repeats: int = 3) -> Iterator[Row]:
    """Yield two rows for each number of buildings on a tile of `size` pixels."""
    for count in counts:
        labels = crowded_labels(count, size)
        inputs = f"{size}×{size}, {count} buildings"
        for name, targets, limits in (
            ("targets", HEADS, TARGET_LIMITS),
            ("targets and boundary weights", {**HEADS, **WEIGHTS}, WITH_WEIGHTS_LIMITS),
        ):
            ours = partial(new_tile_layers, targets, labels)
            theirs = partial(whole_tile_targets, labels.instances, with_weights="weights" in targets)
            agreement = check_agreement(f"{name} of {inputs}", ours(), theirs())
            seconds = medians({"ours": ours, "theirs": theirs}, repeats)
            yield Row(name, inputs, seconds["ours"], PEER, seconds["theirs"], agreement, max_ours=limits.get(count))


def new_tile_layers(targets: Mapping[str, Target], labels: TileLabels) -> dict[str, np.ndarray]:
    """Compute the layers of new labels: those that were used keep what targets share."""
    return tile_layers(targets, replace(labels))


def check_agreement(what: str, ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> str:
    """Check that all layers are equal, and say how well.

    Args:
        what: for messages
        ours: layers (1, h, w) as they are stored: in `STEPS` from 0 to 1, the weights as they are
        theirs: the same maps (h, w), not rounded

    Raises:
        Mismatch: they differ
    """
    require(ours.keys() == theirs.keys(), f"{what}: sn6 gives {', '.join(ours)}, {PEER} {', '.join(theirs)}")
    for name, layer in theirs.items():
        step = 1 if name == "weights" else STEPS
        tolerance = 1e-5 if name == "weights" else 0.5 + 1e-4 if name == "distance" else 0.0
        difference = np.abs(ours[name][0] - layer * float(step)).max()
        require(difference <= tolerance, f"{what}: {name} of sn6 and {PEER} differ by {difference / step:.2g}")
    parts = "mask, edge, contact equal, distance to half a step of 1/255"
    return f"{parts}, weights to 1e-5" if "weights" in theirs else parts


def whole_tile_targets(instances: np.ndarray, with_weights: bool) -> dict[str, np.ndarray]:
    """Compute the maps (h, w) the usual way: a distance transform and a dilation of the tile for each building."""
    buildings = np.unique(instances[instances > 0])
    inside, near = np.zeros(instances.shape), np.zeros(instances.shape, dtype=int)
    nearest, second = np.full(instances.shape, np.inf), np.full(instances.shape, np.inf)
    for number in buildings:
        building = instances == number
        inside += distance_transform_edt(np.pad(building, 1))[1:-1, 1:-1]  # beyond the tile there is no building
        near += dilation(building, np.ones((WINDOW, WINDOW)))
        if with_weights:
            distance = distance_transform_edt(~building)
            second = np.minimum(second, np.maximum(nearest, distance))
            nearest = np.minimum(nearest, distance)
    maps = {
        "mask": instances > 0,
        "edge": (inside > 0) & (inside <= EDGE),
        "contact": near > 1,
        "distance": np.minimum(inside / REACH, 1),
    }
    return maps | ({"weights": W0 * np.exp(-((nearest + second) ** 2) / (2 * SIGMA**2))} if with_weights else {})
