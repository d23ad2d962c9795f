"""Count the pixels and the buildings of each class by themselves."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from sn6.footprints import Footprints, Labels
from sn6.metrics.matching import Counts, counted_area, match_tile


@dataclass(frozen=True)
class ClassCounts:
    """What is counted of one class on a tile.

    Attributes:
        intersection: valid pixels that are of the class and predicted as such
        union: valid pixels that are of the class or predicted as such
        counts: of its buildings, matched with the proposals of this class alone
    """

    intersection: int
    union: int
    counts: Counts


def count_class(
    number: int,
    predicted: Int64[np.ndarray, "h w"],
    truth: Int64[np.ndarray, "h w"],
    valid: Bool[np.ndarray, "h w"],
    proposed: Footprints,
    labels: Labels,
    pixel_size: float,
) -> ClassCounts:
    """Count one class on a tile.

    Args:
        number: of the class, from 1
        predicted: most probable class of each pixel, 0 for background
        truth: class of each pixel
        valid: false on nodata
        proposed: proposals with their classes, in the frame of the labels
        labels: all buildings with their classes
        pixel_size: m
    """
    assert proposed.classes is not None
    assert labels.classes is not None
    ours, theirs = (predicted == number) & valid, (truth == number) & valid
    of_proposals, of_buildings = proposed.classes == number, labels.classes == number
    match = match_tile(
        labels.polygons[of_buildings],
        proposed.polygons[of_proposals],
        proposed.confidences[of_proposals],
        counted_area(pixel_size),
    )
    return ClassCounts(int((ours & theirs).sum()), int((ours | theirs).sum()), match.counts)
