"""Weights of the pixels between neighbouring buildings: equation 2 of the U-Net paper.

Source: Ronneberger, Fischer, Brox, MICCAI 2015, section 3.
"""

import math

import numpy as np
from jaxtyping import Float32, Int32
from scipy.ndimage import distance_transform_edt, find_objects

TOLERANCE = 1e-6  # a boundary term under this may be left out


def boundary_weights(
    instances: Int32[np.ndarray, "h w"], class_weights: tuple[float, float], w0: float, sigma: float
) -> Float32[np.ndarray, "h w"]:
    """w = w_c + w0·exp(-(d1 + d2)² / 2σ²) at every pixel, to within `TOLERANCE` and the rounding of float32.

    d1 and d2 are the distances from a pixel's centre to the centres of the nearest pixels of the nearest and
    the second nearest building. On a building d1 is 0 and d2 the distance to its neighbour, so both sides of
    a party wall weigh most. Where there are fewer than two buildings the second term is 0.

    Args:
        instances: label of the building at each pixel, 0 for none; labels may have gaps
        class_weights: w_c of background and of buildings
        w0: height of the boundary term
        sigma: its width, pixels
    """
    weights = np.where(instances > 0, class_weights[1], class_weights[0]).astype(np.float32)
    # The term is over the tolerance only where d1 + d2 < reach.
    reach = sigma * math.sqrt(2 * math.log(max(w0 / TOLERANCE, 1)))
    distance = distance_to_two_buildings(instances, reach)
    near = distance < reach
    weights[near] += w0 * np.exp(-(distance[near] ** 2) / (2 * sigma**2))
    return weights


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
