"""Maps to polygons: outlines of regions, and the footprints that a network proposes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from jaxtyping import Bool, Float, Float64, Int32, Int64, Shaped
from scipy import ndimage
from scipy.special import expit

from sn6.footprints import Footprints

MAX_VERTICES = 20_000  # a building has fewer: the simpler outlines of a map of noise help nobody


@dataclass(frozen=True, eq=False)
class Regions:
    """The 4-connected regions of building pixels of a map, with their outlines along the pixels' edges.

    Attributes:
        polygons: shapely Polygons in pixels
        sizes: pixels of each
        sums: of the probabilities of its pixels
    """

    polygons: Shaped[np.ndarray, "n"]
    sizes: Int64[np.ndarray, "n"]
    sums: Float64[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.polygons)

    def __getitem__(self, chosen: Shaped[np.ndarray, " k"]) -> "Regions":
        return Regions(self.polygons[chosen], self.sizes[chosen], self.sums[chosen])

    def footprints(self, min_area: float, simplify: float, pixel: float) -> Footprints:
        """The regions of at least `min_area` (m²) as footprints; arguments of `footprints_from_logits`."""
        large = self[self.sizes * pixel**2 >= min_area]
        polygons = simplify_polygons(large.polygons, simplify / pixel, min_area / pixel**2)
        return Footprints(polygons, large.sums / large.sizes)


def footprints_from_logits(
    logits: Float[np.ndarray, "height width"],
    valid: Bool[np.ndarray, "height width"],
    threshold: float = 0.5,
    min_area: float = 20.0,
    simplify: float = 0.5,
    pixel: float = 0.5,
) -> Footprints:
    """The 4-connected regions of building pixels as polygons.

    Args:
        logits: of the class building
        valid: false on nodata, where nothing is proposed
        threshold: probability, between 0 and 1; a pixel above it is building
        min_area: in m²; a region of fewer pixels is dropped, one of just this area stays
        simplify: by how much an outline may leave the pixels' edges, in m; 0 follows them
        pixel: size of a pixel in m

    Returns:
        One polygon a region, none smaller than `min_area`. Its confidence is the mean probability of the
        region's pixels.
    """
    regions, _ = building_regions(logits, valid, threshold, min_area / pixel**2)
    return regions.footprints(min_area, simplify, pixel)


def building_regions(
    logits: Float[np.ndarray, "height width"],
    valid: Bool[np.ndarray, "height width"],
    threshold: float,
    least: float,
    open_sides: Sequence[Any] = (),
) -> tuple[Regions, Int32[np.ndarray, "height width"]]:
    """The regions of at least about `least` pixels, and for each pixel the number of its region, from 1 up.

    Args:
        logits: of the class building
        valid: false on nodata
        threshold: probability, between 0 and 1; a pixel above it is building
        least: pixels; a smaller region is left out
        open_sides: indices into the map, such as `np.s_[0]` for its first row, beyond which it goes on: a region
            there is never too small
    """
    regions, count = ndimage.label(is_building(logits, threshold) & valid)  # 4-connected is scipy's default
    pixels = np.flatnonzero(regions)  # few of a tile: what follows looks at no other
    region = regions.ravel()[pixels]
    sizes = np.bincount(region, minlength=count + 1)
    kept = sizes > least - 1
    for side in open_sides:
        kept[regions[side]] = True
    kept[0] = False  # the background
    number = np.where(kept, np.cumsum(kept), 0).astype(np.int32)[region]
    regions.ravel()[pixels] = number
    sums = np.bincount(number, weights=expit(logits.ravel()[pixels]), minlength=kept.sum() + 1)[1:]
    return Regions(_outlines(regions)[0], sizes[kept], sums.astype(np.float64)), regions  # int where there is none


def is_building(logits: Float[np.ndarray, "height width"], threshold: float) -> Bool[np.ndarray, "height width"]:
    """Return where the probability of building is above `threshold`.

    Compares logits: in float32 a sigmoid rounds probabilities near 0 and 1 together.

    Args:
        logits: of the class building
        threshold: probability, between 0 and 1
    """
    return logits > math.log(threshold / (1 - threshold))


def simplify_polygons(polygons: Shaped[np.ndarray, "n"], tolerance: float, min_area: float) -> Shaped[np.ndarray, "n"]:
    """Polygons with fewer corners, by Douglas and Peucker (1973).

    A polygon stays as it is where the simpler one would be invalid, empty, in parts or smaller than `min_area`:
    the score drops small polygons, and a building is not to be lost for its looks. So does one of more than
    `MOST_CORNERS`.

    Args:
        polygons: valid ones
        tolerance: how far the new outline may lie from the old corners, in px; smaller holes may close
        min_area: in px²
    """
    # What comes out depends on the corner that a ring begins with: here the leftmost one, wherever it was traced from.
    polygons = shapely.normalize(polygons)
    # GEOS repairs what this makes. Its topology-preserving simplification takes minutes on a polygon with 100,000
    # holes, such as the map of an untrained network gives, and even this one seconds.
    simple = polygons.copy()
    few = shapely.get_num_coordinates(polygons) <= MAX_VERTICES
    simple[few] = shapely.simplify(polygons[few], tolerance, preserve_topology=False)
    areas = shapely.area(simple)
    whole = (shapely.get_type_id(simple) == shapely.GeometryType.POLYGON) & shapely.is_valid(simple)
    return np.where(whole & (areas > 0) & (areas >= min_area), simple, polygons)


def polygonize(
    labels: Int32[np.ndarray, "height width"],
) -> tuple[Shaped[np.ndarray, "n"], Int32[np.ndarray, "n"]]:
    """The outlines of the 4-connected regions of equal label along the pixels' edges, holes kept.

    Args:
        labels: from 1 up; 0 is background

    Returns:
        polygons, valid in the OGC's sense and as large as their pixels; the label of each, rising
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
    """The outlines of regions that are numbered, each 4-connected, and their numbers, rising.

    Where two pixels of a region meet at a corner alone, the outline passes between the two others. So no ring
    meets itself, and two rings of a region share no more than a corner, as the OGC's rules want it.
    """
    corners, ring_of_corner, region = _trace_rings(regions)
    rings = shapely.linearrings(corners, indices=ring_of_corner)
    order = np.lexsort((~shapely.is_ccw(rings), region))  # by region, the shell before its holes
    numbers, polygon_of_ring = np.unique(region[order], return_inverse=True)
    return shapely.polygons(rings[order], indices=polygon_of_ring), numbers


def _trace_rings(
    regions: Int32[np.ndarray, "height width"],
) -> tuple[Float64[np.ndarray, "corners 2"], Int64[np.ndarray, " corners"], Int32[np.ndarray, " rings"]]:
    """Walks around each region along the sides of its pixels, the region on the right hand.

    Returns:
        corners (x, y), the ring of each corner, the region of each ring
    """
    grid = np.pad(regions, 1)
    width = grid.shape[1]
    flat = grid.ravel()  # a pixel's number is also that of its top left corner
    step = np.array([1, width, -1, -width])  # headings: right, down, left, up
    first_corner = np.array([0, 1, width + 1, width])  # of the side of a pixel that is walked with this heading
    beside = np.flatnonzero(flat[1:] != flat[:-1])  # pixels that differ from the next one
    below = np.flatnonzero(flat[width:] != flat[:-width])
    borders = [pixels[flat[pixels] > 0] for pixels in (below + width, beside, below, beside + 1)]
    pixel = np.concatenate(borders)  # on the right hand
    heading = np.repeat(np.arange(4), [border.size for border in borders])
    start = pixel + first_corner[heading]

    end = start + step[heading]
    ahead = pixel + step[heading]
    left_ahead = ahead + step[heading - 1]
    # To the left wherever the region goes on there, so that two pixels which meet at a corner are walked as one.
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
    """The cycles of a permutation: its elements cycle by cycle, the cycle of each, the first of each cycle."""
    successor = following.tolist()
    walk: list[int] = []
    starts: list[int] = []
    for element in range(len(successor)):
        if successor[element] >= 0:
            starts.append(len(walk))
        while (after := successor[element]) >= 0:
            successor[element] = -1  # walked
            walk.append(element)
            element = after
    order, first = np.array(walk, dtype=np.int64), np.array(starts, dtype=np.int64)
    return order, np.repeat(np.arange(first.size), np.diff(first, append=order.size)), order[first]
