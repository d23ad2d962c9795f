"""Convert labelled regions to polygons: their outlines along the pixel edges, simplified, with shared walls once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from jaxtyping import Float32, Float64, Int32, Int64, Shaped
from scipy import ndimage

from sn6.footprints import Footprints
from sn6.footprints.walls import simplify_outlines


@dataclass(frozen=True, eq=False)
class Regions:
    """The 4-connected regions of a map, with their outlines along the pixel edges.

    Attributes:
        polygons: shapely Polygons in pixels
        sizes: number of pixels of each region
        sums: sum of the building probabilities of its pixels
        class_sums: sums of the probabilities of each class; k = 0 where there is one class
    """

    polygons: Shaped[np.ndarray, "n"]
    sizes: Int64[np.ndarray, "n"]
    sums: Float64[np.ndarray, "n"]
    class_sums: Float64[np.ndarray, "n k"]

    def __len__(self) -> int:
        return len(self.polygons)

    def __getitem__(self, chosen: Shaped[np.ndarray, " k"]) -> "Regions":
        return Regions(self.polygons[chosen], self.sizes[chosen], self.sums[chosen], self.class_sums[chosen])

    def moved(self, right: int, down: int) -> "Regions":
        """Return the regions moved by whole pixels."""
        return replace(self, polygons=shapely.transform(self.polygons, lambda xy: xy + np.array([right, down])))

    def footprints(self, min_area: float, simplify: float, pixel_size: float) -> Footprints:
        """Convert the regions of at least the minimum area to footprints.

        The confidence is the mean probability of the region's pixels; the class is that of the highest mean
        probability, of equal ones the first.

        Args:
            min_area: m²; a region of exactly this area is kept
            simplify: tolerance of the outlines in m; two regions that share a wall share the simplified one
            pixel_size: m
        """
        large = self[self.sizes * pixel_size**2 >= min_area]
        polygons = simplify_outlines(large.polygons, simplify / pixel_size, min_area / pixel_size**2)
        classes = large.class_sums.argmax(axis=1) + 1 if large.class_sums.shape[1] else None
        return Footprints(polygons, large.sums / large.sizes, classes)


def trace_regions(
    labels: Int32[np.ndarray, "height width"],
    probability: Float32[np.ndarray, "height width"],
    min_pixels: float,
    open_sides: Sequence[Any] = (),
    classes: Float32[np.ndarray, "k height width"] | None = None,
) -> tuple[Regions, Int32[np.ndarray, "height width"]]:
    """Return the regions of more than `min_pixels` − 1 pixels, and the number of the region at each pixel, from 1.

    Args:
        labels: numbers of 4-connected regions, from 1 and with gaps; 0 is background
        probability: of building
        min_pixels: minimum number of pixels, not necessarily an integer
        open_sides: indices into the map, such as `np.s_[0]` for its first row, beyond which it continues; a region
            of any size that touches one is kept
        classes: probability of each class; None where there is one class
    """
    pixels = np.flatnonzero(labels)  # a small part of a tile: the rest is not visited again
    label = labels.ravel()[pixels]
    sizes = np.bincount(label, minlength=1)
    kept = sizes > max(min_pixels - 1, 0)  # no label without a pixel
    for side in open_sides:
        kept[labels[side]] = True
    kept[0] = False  # the background
    number = np.where(kept, np.cumsum(kept), 0).astype(np.int32)[label]
    regions = np.zeros_like(labels)
    regions.ravel()[pixels] = number

    def sums(values: Float32[np.ndarray, "height width"]) -> Float64[np.ndarray, " n"]:
        of_regions = np.bincount(number, weights=values.ravel()[pixels], minlength=kept.sum() + 1)[1:]
        return of_regions.astype(np.float64)  # bincount of nothing is int

    class_sums = np.empty((int(kept.sum()), 0 if classes is None else len(classes)))
    for column, values in enumerate(() if classes is None else classes):
        class_sums[:, column] = sums(values)
    return Regions(_outlines(regions)[0], sizes[kept], sums(probability), class_sums), regions


def polygonize(
    labels: Int32[np.ndarray, "height width"],
) -> tuple[Shaped[np.ndarray, "n"], Int32[np.ndarray, "n"]]:
    """Trace the outlines of the 4-connected regions of equal label along the pixel edges, with their holes.

    Args:
        labels: from 1; 0 is background

    Returns:
        Polygons, valid by the OGC rules and with exactly the area of their pixels; the label of each, ascending.
    """
    regions = np.zeros_like(labels)
    values: list[int] = []
    for value, window in enumerate(ndimage.find_objects(labels), start=1):
        if window is not None:
            parts, count = ndimage.label(labels[window] == value)
            np.add(parts, len(values), out=regions[window], where=parts > 0)
            values += [value] * count
    return _outlines(regions)[0], np.array(values, dtype=np.int32)


def _outlines(
    regions: Int32[np.ndarray, "height width"],
) -> tuple[Shaped[np.ndarray, "n"], Int32[np.ndarray, "n"]]:
    """Trace the outlines of numbered regions, each 4-connected; return them with their numbers, ascending.

    Where two pixels of a region touch only at a corner, the outline passes between the two other pixels. So no ring
    touches itself, and two rings of a region share at most a corner, as the OGC rules require.
    """
    corners, ring_of_corner, region = _trace_rings(regions)
    rings = shapely.linearrings(corners, indices=ring_of_corner)
    order = np.lexsort((~shapely.is_ccw(rings), region))  # by region, the shell before its holes
    numbers, polygon_of_ring = np.unique(region[order], return_inverse=True)
    return shapely.polygons(rings[order], indices=polygon_of_ring), numbers


def _trace_rings(
    regions: Int32[np.ndarray, "height width"],
) -> tuple[Float64[np.ndarray, "corners 2"], Int64[np.ndarray, " corners"], Int32[np.ndarray, " rings"]]:
    """Follow the boundary of each region along the sides of its pixels, the region on the right.

    Returns:
        The corners (x, y), the ring of each corner, the region of each ring.
    """
    grid = np.pad(regions, 1)
    width = grid.shape[1]
    flat = grid.ravel()  # the index of a pixel is also that of its top left corner
    step = np.array([1, width, -1, -width])  # headings: right, down, left, up
    first_corner = np.array([0, 1, width + 1, width])  # of the side of a pixel that is followed with this heading
    beside = np.flatnonzero(flat[1:] != flat[:-1])  # pixels that differ from the next one
    below = np.flatnonzero(flat[width:] != flat[:-width])
    borders = [pixels[flat[pixels] > 0] for pixels in (below + width, beside, below, beside + 1)]
    pixel = np.concatenate(borders)  # on the right
    heading = np.repeat(np.arange(4), [border.size for border in borders])
    start = pixel + first_corner[heading]

    end = start + step[heading]
    ahead = pixel + step[heading]
    left_ahead = ahead + step[heading - 1]
    # Left wherever the region continues there, so that two pixels that touch at a corner share one ring.
    turn = np.where(flat[left_ahead] == flat[pixel], -1, np.where(flat[ahead] == flat[pixel], 0, 1))
    number = np.empty(4 * flat.size, dtype=np.int64)  # of the side that starts at a corner with a heading
    number[4 * start + heading] = np.arange(start.size)
    following = number[4 * end + (heading + turn) % 4]
    walk, ring, first = _cycles(following)

    walk, ring = walk[turn[walk] != 0], ring[turn[walk] != 0]
    rows, columns = np.divmod(end[walk], width)
    return np.stack([columns, rows], axis=1) - 1.0, ring, flat[pixel[first]]


def _cycles(
    following: Int64[np.ndarray, " n"],
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"], Int64[np.ndarray, " cycles"]]:
    """Return the cycles of a permutation: elements cycle by cycle, the cycle of each, the first of each cycle."""
    successor = following.tolist()
    walk: list[int] = []
    starts: list[int] = []
    for element in range(len(successor)):
        if successor[element] >= 0:
            starts.append(len(walk))
        while (after := successor[element]) >= 0:
            successor[element] = -1  # visited
            walk.append(element)
            element = after
    order, first = np.array(walk, dtype=np.int64), np.array(starts, dtype=np.int64)
    return order, np.repeat(np.arange(first.size), np.diff(first, append=order.size)), order[first]
