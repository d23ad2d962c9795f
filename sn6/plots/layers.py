"""Compute the layers of a tile that a dashboard switches on and off: the image, its ground truth, its proposals."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from jaxtyping import Float32, Shaped, UInt8
from PIL import Image

from sn6.footprints import Polygons
from sn6.metrics.matching import Match
from sn6.targets.rasterize import rasterize_instances

LONGEST = 512  # pixels of a side, so that the picture of a tile stays below 100 KB
CLASSES = {  # layer → number of a class → its name; 0 is background
    "ground truth": {1: "true positive", 2: "false negative", 3: "too small to count"},
    "proposals": {1: "true positive", 2: "false positive", 3: "too small to count"},
}


@dataclass(frozen=True, eq=False)
class Layers:
    """A tile as layers of one size.

    Attributes:
        picture: the image, grey or RGB
        masks: name of the layer → number of the class at each pixel, as in CLASSES
    """

    picture: UInt8[np.ndarray, "h w *rgb"]
    masks: dict[str, UInt8[np.ndarray, "h w"]]


def compute_layers(
    picture: Float32[np.ndarray, "height width *rgb"],
    truth: Shaped[np.ndarray, "truths"],
    proposals: Shaped[np.ndarray, "proposals"],
    match: Match,
) -> Layers:
    """Reduce a tile by a whole factor to at most LONGEST pixels a side, and rasterize its buildings by outcome.

    Args:
        picture: of the tile, 0 to 1
        truth: ground truth in pixels
        proposals: proposals in pixels
        match: result of matching the proposals with the ground truth
    """
    factor = -(-max(picture.shape[:2]) // LONGEST)
    small: Any = Image.fromarray((picture * 255).round().astype(np.uint8)).reduce(factor)
    matched = np.isin(np.arange(len(truth)), match.truth_of_proposal)
    sides = {
        "ground truth": (truth, np.select([matched, match.false_negatives], [1, 2], 3)),
        "proposals": (proposals, np.select([match.true_positives, match.false_positives], [1, 2], 3)),
    }
    masks = {}
    for name, (polygons, classes) in sides.items():
        numbers = rasterize_instances(reduce_polygons(polygons, factor), small.height, small.width)
        masks[name] = np.append(0, classes).astype(np.uint8)[numbers]
    return Layers(np.asarray(small), masks)


def reduce_polygons(polygons: Polygons, factor: int) -> Shaped[np.ndarray, "_"]:
    """Return polygons in the pixels of an image that is reduced by `factor`."""
    reduced: Any = shapely.transform(np.asarray(polygons, dtype=object), lambda points: points / factor)
    return reduced
