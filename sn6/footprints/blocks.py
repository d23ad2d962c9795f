"""Compute the footprints of a map that does not fit in memory, block by block."""

from collections.abc import Callable, Iterator

import numpy as np
import shapely
from jaxtyping import Float, Int32, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sn6.footprints import Footprints, PolygonOptions
from sn6.footprints.polygonize import Regions, building_regions

Read = Callable[[slice, slice], Float[np.ndarray, "_ _"]]  # rows, columns → logits, NaN on nodata


def footprints_by_blocks(
    read: Read, height: int, width: int, options: PolygonOptions, pixel_size: float, block: int = 1024
) -> Iterator[Footprints]:
    """Yield the footprints of a map of `height` × `width` pixels, block by block from the top left.

    They are those of `footprints_from_logits` for the whole map: the same outlines, and the same confidences to
    rounding. Memory contains one block, and the regions of a row of blocks that block edges cut.

    Args:
        read: function that returns the logits of a rectangle of the map as floats, NaN on nodata
        height: of the map in pixels
        width: of the map in pixels
        options: threshold, minimum area, tolerance of the outlines
        pixel_size: m
        block: edge length of a block in pixels
    """
    cut = CutRegions(width)
    for top in range(0, height, block):
        bottom = min(top + block, height)
        for left in range(0, width, block):
            right = min(left + block, width)
            logits = read(slice(top, bottom), slice(left, right))
            inner = [(0, top > 0), (-1, bottom < height), (np.s_[:, 0], left > 0), (np.s_[:, -1], right < width)]
            open_sides = [side for side, is_inner in inner if is_inner]
            min_pixels = options.min_area / pixel_size**2
            regions, numbers = building_regions(logits, ~np.isnan(logits), options.threshold, min_pixels, open_sides)
            polygons = shapely.transform(regions.polygons, lambda xy, offset=(left, top): xy + offset)
            regions = Regions(polygons, regions.sizes, regions.sums)
            yield cut.add_block(regions, numbers, left, open_sides).footprints(options, pixel_size)
        yield cut.finish_row().footprints(options, pixel_size)


class CutRegions:
    """Collect the regions that block edges cut until all of their parts are known.

    Args:
        width: of the map in pixels
    """

    def __init__(self, width: int) -> None:
        self.parts = Regions(np.empty(0, dtype=object), np.empty(0, dtype=np.int64), np.empty(0))
        self.pairs = np.empty((2, 0), dtype=np.int64)  # of parts that share a side of a pixel
        # number of the part at each pixel along the edges that are still open, from 1; 0 where there is none
        self.above = np.zeros(width, dtype=np.int64)  # last pixel row of the row of blocks above
        self.below = np.zeros(width, dtype=np.int64)  # of this row of blocks
        self.before = np.empty(0, dtype=np.int64)  # last pixel column of the block on the left

    def add_block(
        self, regions: Regions, numbers: Int32[np.ndarray, "height width"], left: int, open_sides: list
    ) -> Regions:
        """Keep the regions of the next block that touch one of its open sides; return the others."""
        is_cut = np.zeros(len(regions) + 1, dtype=bool)
        for side in open_sides:
            is_cut[numbers[side]] = True
        is_cut[0] = False
        part = np.where(is_cut, np.cumsum(is_cut) + len(self.parts), 0)
        self.parts = concatenate([self.parts, regions[is_cut[1:]]])
        columns = slice(left, left + numbers.shape[1])
        self._link(self.above[columns], part[numbers[0]])
        if left:
            self._link(self.before, part[numbers[:, 0]])
        self.before = part[numbers[:, -1]]
        if -1 in open_sides:
            self.below[columns] = part[numbers[-1]]
        return regions[~is_cut[1:]]

    def _link(self, one: Int64[np.ndarray, " n"], other: Int64[np.ndarray, " n"]) -> None:
        """Record the parts on the two sides of an edge that touch."""
        touching = np.stack([one, other])[:, (one > 0) & (other > 0)] - 1
        self.pairs = np.concatenate([self.pairs, np.unique(touching, axis=1)], axis=1)

    def finish_row(self) -> Regions:
        """Return the regions that are complete at the end of a row of blocks; keep those that continue below it."""
        number = len(self.parts)
        links = coo_array((np.ones(self.pairs.shape[1]), tuple(self.pairs)), shape=(number, number))
        count, region_of_part = connected_components(links, directed=False)
        regions = unite(self.parts, region_of_part.astype(np.int64), count)
        continues = np.zeros(count, dtype=bool)
        continues[region_of_part[self.below[self.below > 0] - 1]] = True
        renumbered = np.append(0, np.cumsum(continues)[region_of_part])
        self.above, self.below = renumbered[self.below], np.zeros_like(self.below)
        self.parts, self.pairs = regions[continues], self.pairs[:, :0]
        return regions[~continues]


def concatenate(regions: list[Regions]) -> Regions:
    """Concatenate lists of regions."""
    return Regions(*(np.concatenate([getattr(one, key) for one in regions]) for key in ("polygons", "sizes", "sums")))


def unite(parts: Regions, region_of_part: Int64[np.ndarray, " parts"], count: int) -> Regions:
    """Unite the parts of each of `count` regions, with corners only where the outline turns."""
    order = np.argsort(region_of_part, kind="stable")
    starts = np.searchsorted(region_of_part[order], np.arange(1, count))
    groups = np.split(parts.polygons[order], starts)[:count]
    polygons = np.array([group[0] if len(group) == 1 else shapely.union_all(group) for group in groups], dtype=object)
    sizes = np.bincount(region_of_part, weights=parts.sizes, minlength=count).astype(np.int64)
    sums = np.bincount(region_of_part, weights=parts.sums, minlength=count).astype(np.float64)
    # After `normalize` a ring begins at a corner that `simplify` keeps.
    return Regions(shapely.simplify(shapely.normalize(polygons), 0, preserve_topology=False), sizes, sums)
