"""Compute a heat map of the centres of buildings.

Source: Cheng et al., Panoptic-DeepLab, CVPR 2020, section 3.2: centres of mass, Gaussians of one width.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32, Float64, Int32
from pydantic import PositiveFloat

from sn6.targets.target import Interpolation, Target, TileLabels

TOLERANCE = 1e-3  # values below this may be 0; half a step of the store is 2e-3


@dataclass(frozen=True)
class Centre(Target):
    """Map each pixel to exp(-d² / 2σ²), with its distance d to the nearest centre of a building.

    Attributes:
        sigma: σ in m
    """

    sigma: PositiveFloat = 1.5
    stored_range: ClassVar[tuple[float, float] | None] = (0, 1)
    interpolation: ClassVar[Interpolation] = "bilinear"

    def tile(self, labels: TileLabels) -> Float32[np.ndarray, "1 h w"]:
        """Compute the heat map, see `heat_map`."""
        instances = labels.observed
        height, width = instances.shape
        return heat_map(centres_of(instances), height, width, self.sigma / labels.pixel_size)[None]

    def warp(self, pixels: Any, scale: float, rotation: float) -> Any:
        """Return exp(-(`scale`·d)² / 2σ²): the width of the heat stays where distances grow."""
        return pixels ** (scale**2)


def centres_of(instances: Int32[np.ndarray, "h w"]) -> Float64[np.ndarray, "n 2"]:
    """Return row and column of the centre of each building: the mean of its pixels; NaN for a number without a pixel.

    The centre of a building with a court may be in the court. The first row is that of the background: NaN.
    """
    flat = instances.ravel()
    pixels = np.flatnonzero(flat > 0)
    numbers, count = flat[pixels], instances.max(initial=0) + 1
    sizes = np.bincount(numbers, minlength=count).astype(np.float64)
    sizes[sizes == 0] = np.nan
    sums = [np.bincount(numbers, weights, count) for weights in np.divmod(pixels, instances.shape[1])]
    return np.stack(sums, axis=1) / sizes[:, None]


def heat_map(
    centres: Float64[np.ndarray, "n 2"], height: int, width: int, sigma: float
) -> Float32[np.ndarray, "{height} {width}"]:
    """Compute exp(-d² / 2σ²), to within `TOLERANCE`, for the distance d from each pixel to the nearest centre.

    Args:
        centres: rows and columns in pixels; those that are NaN are left out
        height: of the map
        width: of the map
        sigma: in pixels
    """
    heat = np.zeros((height, width), dtype=np.float32)
    reach = sigma * math.sqrt(-2 * math.log(TOLERANCE))
    for row, column in centres[~np.isnan(centres[:, 0])]:
        top, bottom = max(math.ceil(row - reach), 0), math.floor(row + reach) + 1
        left, right = max(math.ceil(column - reach), 0), math.floor(column + reach) + 1
        window = heat[top:bottom, left:right]
        rows, columns = np.ogrid[top : top + window.shape[0], left : left + window.shape[1]]
        factors = (np.exp((axis - at) ** 2 / (-2 * sigma**2)) for axis, at in ((rows, row), (columns, column)))
        np.maximum(window, np.multiply(*factors, dtype=np.float32, casting="same_kind"), out=window)
    return heat
