"""Read partial results for the files of a prediction: as they are, or regularised."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import shapely
from jaxtyping import Shaped

from sn6.footprints import Footprints
from sn6.footprints.regularization import regularize
from sn6.prediction.partial_results import read_part


def read_footprints(path: Path, pixel_metres: float, regular: bool) -> Iterator[Footprints]:
    """Yield the footprints of an image or a map in order, those that are regularised all at once.

    Args:
        path: of its partial results
        pixel_metres: pixel size in m
        regular: whether they are regularised
    """
    chunks = read_part(path)
    if not regular:
        yield from chunks
        return
    footprints = Footprints.concatenated(list(chunks))
    yield replace(footprints, polygons=regularize_scaled(footprints.polygons, pixel_metres))


def regularize_scaled(polygons: Shaped[np.ndarray, "n"], metres: float) -> Shaped[np.ndarray, "n"]:
    """Regularise polygons in a unit of so many metres."""
    return shapely.transform(regularize(shapely.transform(polygons, lambda xy: xy * metres)), lambda xy: xy / metres)
