"""Compute the weights of pixels between neighbouring buildings: equation 2 of the U-Net paper.

Source: Ronneberger, Fischer, Brox, MICCAI 2015, section 3.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import shapely
from jaxtyping import Float32, Int32
from scipy.ndimage import distance_transform_edt, find_objects

from sn6.targets.target import Interpolation, Target, TileLabels

TOLERANCE = 1e-6  # a boundary term below this may be set to 0


@dataclass(frozen=True)
class BoundaryWeights(Target):
    """Compute w = w_c + w0·exp(-(d1 + d2)² / 2σ²) in two terms; only the first one depends on the fold.

    Attributes:
        w0: height of the boundary term
        sigma: width of the boundary term in m; the paper's 5 px are 2.5 m here
    """

    w0: float
    sigma: float
    interpolation: ClassVar[Interpolation] = "bilinear"
    needs_building_fraction: ClassVar[bool] = True

    def tile(self, labels: TileLabels) -> Float32[np.ndarray, "1 h w"]:
        """Compute the second term over a whole tile, see `boundary_term`."""
        return boundary_term(labels.instances, self.w0, self.sigma / labels.pixel_size)[None]

    def crop(self, layer: Any, mask: Any, building_fraction: float | None) -> Any:
        """Add both terms over any window of a tile; w_c balances the classes by `building_fraction`."""
        assert building_fraction is not None
        background, building = class_weights(building_fraction)
        # mask·building + (1 - mask)·background + layer, in place: one of the products is 0, the other one exactly w_c
        weights = 1 - mask
        weights *= background
        weights += mask * building
        weights += layer
        return weights

    def warp(self, pixels: Any, scale: float, rotation: float) -> Any:
        """Return w0·exp(-(`scale`·(d1 + d2))² / 2σ²): the width of the term stays where distances grow."""
        return (pixels / self.w0) ** (scale**2) * self.w0 if self.w0 else pixels


def boundary_term(instances: Int32[np.ndarray, "h w"], w0: float, sigma: float) -> Float32[np.ndarray, "h w"]:
    """Compute w0·exp(-(d1 + d2)² / 2σ²) at every pixel, to within `TOLERANCE` and the rounding of float32.

    d1 and d2 are the distances from the centre of a pixel to the centres of the nearest pixels of the nearest and the
    second nearest building. On a building d1 is 0 and d2 is the distance to its neighbour, so that both sides of a
    party wall have the largest weights. With fewer than two buildings the term is 0.

    Args:
        instances: number of the building at each pixel, 0 for background; numbers may have gaps
        w0: height of the term
        sigma: width of the term, pixels
    """
    # The term exceeds the tolerance only where d1 + d2 < reach.
    reach = sigma * math.sqrt(2 * math.log(max(w0 / TOLERANCE, 1)))
    term = distance_to_two_buildings(instances, reach)
    np.square(term, out=term)
    term /= -2 * sigma**2
    np.exp(term, out=term)
    term *= w0
    return term


def distance_to_two_buildings(instances: Int32[np.ndarray, "h w"], reach: float) -> Float32[np.ndarray, "h w"]:
    """Compute d1 + d2, exact where it is below `reach`; elsewhere `reach` or more, infinite where it is unknown.

    Each building has one distance transform, over its window only. The window contains the whole building, so that the
    distances in it are exact, and every pixel where the distance to this building and that to another one sum to less
    than `reach`. Where d1 + d2 is below `reach`, both therefore come from windows that contain the pixel; a distance
    outside all windows can only be missing from a sum of `reach` or more.
    """
    nearest = np.full(instances.shape, np.inf, dtype=np.float32)
    second = nearest.copy()
    for label, window in building_windows(instances, reach):
        distance = distance_transform_edt(instances[window] != label).astype(np.float32)
        d1, d2 = nearest[window], second[window]
        np.minimum(d2, np.maximum(d1, distance), out=d2)
        np.minimum(d1, distance, out=d1)
    nearest += second
    return nearest


def building_windows(instances: Int32[np.ndarray, "h w"], reach: float) -> Iterator[tuple[int, tuple[slice, slice]]]:
    """Yield the number of each building that has a neighbour within `reach`, and its window: rows and columns.

    The windows follow from the bounding boxes of the buildings. Let two buildings begin at rows a and b, and let the
    distances of row p from both sum to less than `reach`. Then p > a - `reach`. And p > (a + b - `reach`) / 2: if p is
    before both, the sum is at least a + b - 2p; otherwise p is at or after one of them, and less than `reach` before
    the other.
    """
    boxes = {label: box for label, box in enumerate(find_objects(instances), start=1) if box}  # numbers may have gaps
    limits = [[(side.start, side.stop) for side in box] for box in boxes.values()]
    first, stop = np.moveaxis(np.array(limits, dtype=np.float64).reshape(-1, 2, 2), 2, 0)  # (buildings, axes) each
    squares = shapely.box(*first.T, *stop.T)
    one, other = shapely.STRtree(squares).query(squares, predicate="dwithin", distance=reach)
    one, other = one[one != other], other[one != other]
    low, high = first.copy(), stop.copy()
    np.minimum.at(low, one, (first[one] + first[other] - reach) / 2)
    np.maximum.at(high, one, (stop[one] + stop[other] + reach) / 2)
    low = np.floor(np.maximum(low, np.maximum(first - reach, 0))).astype(int)
    high = np.ceil(np.minimum(high, stop + reach)).astype(int)
    labels, windows = list(boxes), np.stack([low, high], axis=2).tolist()
    for building in np.unique(one):
        rows, columns = windows[building]
        yield labels[building], (slice(*rows), slice(*columns))


def class_weights(building_fraction: float) -> tuple[float, float]:
    """Return w_c of background and of buildings: inverse to their fraction of the pixels, with mean 1 over all pixels.

    Where one class is missing, both weights are 1.

    >>> class_weights(0.2)
    (0.625, 2.5)
    """
    if building_fraction in (0, 1):
        return 1.0, 1.0
    return 0.5 / (1 - building_fraction), 0.5 / building_fraction
