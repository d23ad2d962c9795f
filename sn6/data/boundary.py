"""Weights of the pixels between neighbouring buildings: equation 2 of the U-Net paper.

Source: Ronneberger, Fischer, Brox, MICCAI 2015, section 3.
"""

import math
from dataclasses import dataclass

import numpy as np
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
    distance = distance_to_two_buildings(instances, reach)
    near = distance < reach
    term = np.zeros(instances.shape, dtype=np.float32)
    term[near] = w0 * np.exp(-(distance[near] ** 2) / (2 * sigma**2))
    return term


def distance_to_two_buildings(instances: Int32[np.ndarray, "h w"], reach: float) -> Float32[np.ndarray, "h w"]:
    """d1 + d2, exact wherever it is under `reach`; elsewhere `reach` or more.

    A building is measured in a window of `reach` around it alone, by one distance transform. The window holds
    the whole building, so its distances are true, and every pixel that has the building within `reach`. Where
    d1 + d2 is under `reach`, d1 and d2 are too, so both come from windows that hold the pixel; a distance
    that no window holds can only be missing from a sum that is `reach` or more.
    """
    nearest = np.full(instances.shape, np.inf, dtype=np.float32)
    second = nearest.copy()
    margin = math.ceil(reach)
    for label, box in enumerate(find_objects(instances), start=1):
        if box is None:  # a gap in the labels
            continue
        window = tuple(slice(max(side.start - margin, 0), side.stop + margin) for side in box)
        distance = distance_transform_edt(instances[window] != label).astype(np.float32)
        d1, d2 = nearest[window], second[window]
        np.minimum(d2, np.maximum(d1, distance), out=d2)
        np.minimum(d1, distance, out=d1)
    return nearest + second


def class_weights(building_fraction: float) -> tuple[float, float]:
    """w_c of background and of buildings: inverse to their share of the pixels, with mean 1 over the pixels.

    Where one class is missing both weigh 1.

    >>> class_weights(0.2)
    (0.625, 2.5)
    """
    if building_fraction in (0, 1):
        return 1.0, 1.0
    return 0.5 / (1 - building_fraction), 0.5 / building_fraction
