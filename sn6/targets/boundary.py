"""Weights of the pixels between neighbouring buildings: equation 2 of the U-Net paper.

Source: Ronneberger, Fischer, Brox, MICCAI 2015, section 3.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Bool, Float32, Int32
from scipy.ndimage import distance_transform_edt, find_objects

TOLERANCE = 1e-6  # a boundary term under this may be left out


@dataclass(frozen=True)
class PixelWeights:
    """w = w_c + w0·exp(-(d1 + d2)² / 2σ²), in two parts: the second knows nothing of the fold.

    Attributes:
        w0: height of the boundary term
        sigma: its width, pixels
    """

    w0: float
    sigma: float

    def boundary(self, instances: Int32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
        """The second part, of a whole tile: see `boundary_term`."""
        return boundary_term(instances, self.w0, self.sigma)

    def total(
        self, mask: Bool[np.ndarray, "*s"], boundary: Float32[np.ndarray, "*s"], building_fraction: float
    ) -> Float32[np.ndarray, "*s"]:
        """Both parts, of any part of a tile; w_c balances the classes by `building_fraction`."""
        background, building = class_weights(building_fraction)
        return np.where(mask, np.float32(building), np.float32(background)) + boundary


def boundary_term(instances: Int32[np.ndarray, "h w"], w0: float, sigma: float) -> Float32[np.ndarray, "h w"]:
    """w0·exp(-(d1 + d2)² / 2σ²) at every pixel, to within `TOLERANCE` and the rounding of float32.

    d1 and d2 are the distances from a pixel's centre to the centres of the nearest pixels of the nearest and
    the second nearest building. On a building d1 is 0 and d2 the distance to its neighbour, so both sides of
    a party wall weigh most. Where there are fewer than two buildings the term is 0.

    Args:
        instances: label of the building at each pixel, 0 for none; labels may have gaps
        w0: height of the term
        sigma: its width, pixels
    """
    # The term is over the tolerance only where d1 + d2 < reach.
    reach = sigma * math.sqrt(2 * math.log(max(w0 / TOLERANCE, 1)))
    term = distance_to_two_buildings(instances, reach)
    np.square(term, out=term)
    term /= -2 * sigma**2
    np.exp(term, out=term)
    term *= w0
    return term


def distance_to_two_buildings(instances: Int32[np.ndarray, "h w"], reach: float) -> Float32[np.ndarray, "h w"]:
    """d1 + d2, exact wherever it is under `reach`; elsewhere `reach` or more, infinite where it is not known.

    A building is measured in its window alone, by one distance transform. The window holds the whole building, so its
    distances are true, and every pixel where its distance and that of another building sum to less than `reach`.
    Where d1 + d2 is under `reach`, both thus come from windows that hold the pixel; a distance that no window holds
    can only be missing from a sum that is `reach` or more.
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
    """The label of each building that has a neighbour within `reach`, and its window: rows and columns.

    The boxes around the buildings tell the windows. Say two buildings begin at rows a and b, and the distances of row
    p from both sum to less than `reach`. Then p > a - `reach`. And p > (a + b - `reach`) / 2: where p lies before both,
    the sum is a + b - 2p at least; else p lies at or after one of them, and less than `reach` before the other.
    """
    boxes = {label: box for label, box in enumerate(find_objects(instances), start=1) if box}  # labels have gaps
    sides = [[(side.start, side.stop) for side in box] for box in boxes.values()]
    first, stop = np.moveaxis(np.array(sides, dtype=np.float64).reshape(-1, 2, 2), 2, 0)  # of each building and axis
    squares = shapely.box(*first.T, *stop.T)
    one, other = shapely.STRtree(squares).query(squares, predicate="dwithin", distance=reach)
    one, other = one[one != other], other[one != other]
    low, high = first.copy(), stop.copy()
    np.minimum.at(low, one, (first[one] + first[other] - reach) / 2)
    np.maximum.at(high, one, (stop[one] + stop[other] + reach) / 2)
    low = np.floor(np.maximum(low, np.maximum(first - reach, 0))).astype(int)
    high = np.ceil(np.minimum(high, stop + reach)).astype(int)
    labels, places = list(boxes), np.stack([low, high], axis=2).tolist()
    for building in np.unique(one):
        rows, columns = places[building]
        yield labels[building], (slice(*rows), slice(*columns))


def class_weights(building_fraction: float) -> tuple[float, float]:
    """w_c of background and of buildings: inverse to their share of the pixels, with mean 1 over the pixels.

    Where one class is missing both weigh 1.

    >>> class_weights(0.2)
    (0.625, 2.5)
    """
    if building_fraction in (0, 1):
        return 1.0, 1.0
    return 0.5 / (1 - building_fraction), 0.5 / building_fraction
