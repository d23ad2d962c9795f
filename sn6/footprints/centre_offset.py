"""Buildings one by one from their centres and the offsets of their pixels to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64
from scipy import ndimage
from scipy.spatial import KDTree

from sn6.footprints.polygonizer import Maps, Polygonizer, Positive, Probability


@dataclass(frozen=True)
class CentreVoting(Polygonizer):
    """Give each pixel of a component to the centre that its offset points to (Panoptic-DeepLab, Cheng et al. 2020).

    Centres are the peaks of the map `centre` inside the component: values above `peak` that are the highest within
    `radius`. Each pixel votes for the peak that is nearest to its position plus its `offset`. The 4-connected parts of
    the pixels of one peak are buildings, and so is a component with one peak or none.

    Attributes:
        peak: value that a peak is above
        radius: m; half of the edge length of the square in which a peak is the highest
    """

    peak: Probability = 0.3
    radius: Positive = 2.5

    needs: ClassVar[tuple[str, ...]] = ("mask", "centre", "offset")
    candidates: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "threshold": (0.3, 0.5, 0.7),
        "peak": (0.1, 0.3, 0.5),
        "min_area": (20.0, 40.0, 60.0, 80.0),
    }

    def split(
        self, maps: Maps, components: Int32[np.ndarray, "height width"], pixel_size: float
    ) -> Int32[np.ndarray, "height width"]:
        """Divide components by the votes of their pixels."""
        boxes, regions = ndimage.find_objects(components), components.copy()
        radius, count = max(1, round(self.radius / pixel_size)), len(boxes)
        highest = ndimage.maximum(maps["centre"][0], components, np.arange(1, count + 1)) if count else ()
        for number in np.flatnonzero(np.asarray(highest) > self.peak) + 1:
            box = boxes[number - 1]
            inside = components[box] == number
            peaks = find_peaks(np.where(inside, maps["centre"][0][box], 0), self.peak, radius)
            if len(peaks) > 1:
                pixels, offsets = np.argwhere(inside), maps["offset"][:, *box][:, inside].T  # (n, 2)
                _, peak = KDTree(peaks).query(pixels + offsets.astype(np.float64) / pixel_size)
                parts, in_box = connected_parts(pixels, peak, inside)
                regions[box][inside] = parts + count
                count += in_box
        return regions

    def __str__(self) -> str:
        """Return the operating point in words."""
        return f"{super().__str__()}, centres > {self.peak:g}"


def find_peaks(centre: Float32[np.ndarray, "h w"], threshold: float, radius: int) -> Float64[np.ndarray, "n 2"]:
    """Return row and column of the peaks of a map; pixels of equal height that touch, also at a corner, are one.

    Args:
        centre: heights, 0 outside of the component
        threshold: which a peak is above
        radius: pixels; a peak is the highest in the square of 2·radius + 1 pixels around it
    """
    is_peak = (centre > threshold) & (centre == ndimage.maximum_filter(centre, 2 * radius + 1, mode="constant"))
    plateaus, count = ndimage.label(is_peak, structure=np.ones((3, 3)))
    return np.array(ndimage.center_of_mass(is_peak, plateaus, range(1, count + 1)), dtype=np.float64).reshape(-1, 2)


def connected_parts(
    pixels: Int64[np.ndarray, "n 2"], peak: Int64[np.ndarray, " n"], inside: Bool[np.ndarray, "h w"]
) -> tuple[Int32[np.ndarray, " n"], int]:
    """Return the number of the 4-connected part of equal peak of each pixel, from 1, and the number of parts.

    Args:
        pixels: row and column of the pixels of a component
        peak: of each pixel, from 0
        inside: whether a pixel of the box is one of them
    """
    votes = np.zeros(inside.shape, dtype=np.int32)
    votes[inside] = peak + 1
    parts, count = np.zeros_like(votes), 0
    for number in np.unique(peak + 1):
        of_peak, more = ndimage.label(votes == number)
        np.add(of_peak, count, out=parts, where=of_peak > 0)
        count += more
    return parts[inside], count
