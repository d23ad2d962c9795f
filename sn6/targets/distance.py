"""Compute the distance of each pixel of a building to the border of its building, party walls counted.

Sources: Bai, Urtasun, Deep Watershed Transform for Instance Segmentation, CVPR 2017, for the head; Felzenszwalb,
Huttenlocher, Distance Transforms of Sampled Functions, Theory of Computing 8, 2012, for the algorithm, here with the
minimum over a bounded reach.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Int64, Shaped
from pydantic import PositiveFloat

from sn6.targets.rasterize import smallest_unsigned
from sn6.targets.target import STEPS, Interpolation, Target, TileLabels


@dataclass(frozen=True)
class Distance(Target):
    """Map each building to the distance from its own border, as a fraction of `reach`; the background is 0.

    Attributes:
        reach: distance in m from which on the map is 1
    """

    reach: PositiveFloat = 5.0
    stored_range: ClassVar[tuple[float, float] | None] = (0, 1)
    interpolation: ClassVar[Interpolation] = "bilinear"

    def tile(self, labels: TileLabels) -> Float32[np.ndarray, "1 h w"]:
        """Compute min(d / `reach`, 1), see `border_distances`."""
        reach = self.reach / labels.pixel_size
        pixels, squares = border_distances(labels.observed, reach)
        layer = np.zeros((1, *labels.instances.shape), dtype=np.float32)
        layer.ravel()[pixels] = np.minimum(np.sqrt(squares, dtype=np.float32) / np.float32(reach), 1)
        return layer

    def warp(self, pixels: Any, scale: float, rotation: float) -> Any:
        """Multiply the distances by the scale; those of `reach` and more, which are not known, stay 1.

        With a scale below 1 this is too much where the distance was between `reach` and `reach` / `scale`.
        """
        beyond = pixels > 1 - 0.5 / STEPS
        return (pixels * scale + beyond * (1 - scale)).clip(max=1)


def border_distances(
    instances: Int32[np.ndarray, "h w"], reach: float
) -> tuple[Int64[np.ndarray, " n"], Int32[np.ndarray, " n"]]:
    """Compute d² in px², d = min |p - q| over all q that are not of the building at p, for each pixel p of a building.

    p and q are the centres of pixels, and q may be beyond the tile: the outermost pixels of a building have d = 1, at a
    party wall and at the tile's border too.

    d² = min over s of (s² + g(p + s)²), with shifts s along the row that stay on the building, or reach its first pixel
    beyond, where g = 0; g is the distance to the border within the column.

    Args:
        instances: number of the building at each pixel, 0 for background
        reach: in pixels

    Returns:
        The flat index of each pixel of a building, in order, and d² there; exact up to `reach`², above it otherwise.
    """
    bound = int(reach) + 1
    numbers = smallest_unsigned(instances)
    columns, rows = runs_of(np.ascontiguousarray(numbers.T)), runs_of(numbers)
    in_column = np.zeros(numbers.shape[::-1], dtype=np.min_scalar_type(bound))
    in_column.ravel()[columns.pixels] = np.minimum(columns.to_border, bound)
    # All runs one after the other, a zero before and after each. Beyond a zero at shift s all values exceed s².
    places = np.arange(1, len(rows.pixels) + 1) + rows.numbers
    squares = np.zeros(places[-1] + 2 if len(places) else 1, dtype=np.int32)
    squares[places] = in_column.T.ravel()[rows.pixels]
    squares *= squares
    nearest = squares.copy()
    for shift in range(1, min(bound, len(squares))):
        shifted = squares + np.int32(shift**2)
        np.minimum(nearest[shift:], shifted[:-shift], out=nearest[shift:])
        np.minimum(nearest[:-shift], shifted[shift:], out=nearest[:-shift])
    return rows.pixels, nearest[places]


class Runs(NamedTuple):
    """The pixels of all maximal runs of one building in the rows of an image.

    Attributes:
        pixels: flat index of each pixel, in order
        numbers: number of the run of each pixel, from 0
        to_border: number of steps along the row from each pixel to the nearest one beyond its run
    """

    pixels: Int64[np.ndarray, " n"]
    numbers: Int64[np.ndarray, " n"]
    to_border: Int64[np.ndarray, " n"]


def runs_of(instances: Shaped[np.ndarray, "h w"]) -> Runs:
    """Return the runs of equal numbers other than 0; a run ends at the end of its row."""
    flat = instances.ravel()
    is_start = np.ones(len(flat) + 1, dtype=bool)
    np.not_equal(flat[1:], flat[:-1], out=is_start[1:-1])
    is_start[:: instances.shape[1]] = True
    bounds = np.flatnonzero(is_start)
    is_building = flat[bounds[:-1]] > 0
    starts, stops = bounds[:-1][is_building], bounds[1:][is_building]
    lengths = stops - starts
    numbers = np.repeat(np.arange(len(starts)), lengths)
    pixels = np.arange(len(numbers)) + (starts - np.cumsum(lengths) + lengths)[numbers]
    return Runs(pixels, numbers, np.minimum(pixels - starts[numbers] + 1, stops[numbers] - pixels))
