"""Mark the pixels where buildings touch or nearly touch.

Source: the winner of SpaceNet 6 (zbigniewwojna, 2020) learned the mask, the inner edges and the contacts of buildings:
pixels with two buildings within 3 px.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float32, Int32, Shaped
from pydantic import PositiveFloat

from sn6.targets.rasterize import smallest_unsigned
from sn6.targets.target import Target, TileLabels


@dataclass(frozen=True)
class Contact(Target):
    """Map the pixels whose square window holds two or more buildings to 1, all others to 0.

    Attributes:
        radius: half-width of the window in m, rounded to pixels and at least one: 1.5 m give 7 × 7 pixels of 0.5 m
    """

    radius: PositiveFloat = 1.5
    stored_range: ClassVar[tuple[float, float] | None] = (0, 1)

    def tile(self, labels: TileLabels) -> Float32[np.ndarray, "1 h w"]:
        """Compute the contacts, see `contact`."""
        return contact(labels.observed, max(round(self.radius / labels.pixel_size), 1)).astype(np.float32)[None]


def contact(instances: Int32[np.ndarray, "h w"], radius: int) -> Bool[np.ndarray, "h w"]:
    """Return where the (2·`radius` + 1)² window holds two or more buildings: their largest and smallest number differ.

    Args:
        instances: number of the building at each pixel, 0 for background
        radius: half-width of the window in pixels
    """
    numbers = smallest_unsigned(instances)
    largest = maximum_of_window(numbers, radius)
    # Negative numbers as unsigned ones: the background is lowest, then come the numbers from the largest down.
    smallest = np.negative(maximum_of_window(np.negative(numbers), radius))
    return largest != smallest


def maximum_of_window(pixels: Shaped[np.ndarray, "h w"], radius: int) -> Shaped[np.ndarray, "h w"]:
    """Compute the maximum over the (2·`radius` + 1)² window of each pixel; beyond the image there is 0.

    The maximum of 2n pixels is that of two maxima of n, so that the steps grow with the logarithm of the radius.
    """
    width = 2 * radius + 1
    padded = np.pad(pixels, radius)
    for axis in (0, 1):
        lines, covered = padded.swapaxes(0, axis), 1
        while covered < width:
            step = min(covered, width - covered)
            lines, covered = np.maximum(lines[:-step], lines[step:]), covered + step
        padded = lines.swapaxes(0, axis)
    return padded
