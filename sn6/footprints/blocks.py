"""Compute the footprints of maps that do not fit in memory, block by block."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import shapely
from jaxtyping import Bool, Int32, Int64
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sn6.footprints import Footprints
from sn6.footprints.polygonize import Regions, trace_regions
from sn6.footprints.polygonizer import Maps, Polygonizer, class_probabilities

Read = Callable[[slice, slice], tuple[Maps, Bool[np.ndarray, "_ _"]]]  # rows, columns → maps, valid


def footprints_by_blocks(
    read: Read, height: int, width: int, polygonizer: Polygonizer, pixel_size: float, block: int = 1024
) -> Iterator[Footprints]:
    """Yield the footprints of an image of `height` × `width` pixels, block by block from the top left.

    They are those of the polygonizer for the whole image. Components of building pixels that block edges cut are
    joined first; then the maps in the bounding box of each one are read again, so that the polygonizer divides all of
    it at once. Memory contains one block, or the bounding box of the largest component.

    Args:
        read: function that returns the maps of a rectangle of the image, and where they are valid
        height: of the image in pixels
        width: of the image in pixels
        polygonizer: from maps to footprints
        pixel_size: m
        block: edge length of a block in pixels
    """
    cut = CutRegions(width)
    min_area, simplify, min_pixels = polygonizer.min_area, polygonizer.simplify, polygonizer.min_area / pixel_size**2
    for top in range(0, height, block):
        bottom = min(top + block, height)
        for left in range(0, width, block):
            right = min(left + block, width)
            maps, valid = read(slice(top, bottom), slice(left, right))
            inner = [(0, top > 0), (-1, bottom < height), (np.s_[:, 0], left > 0), (np.s_[:, -1], right < width)]
            open_sides = [side for side, is_inner in inner if is_inner]
            building = polygonizer.is_building(maps, valid)
            components, count = ndimage.label(building)
            is_cut = touches(open_sides, components, count)[components]
            regions = polygonizer.regions(maps, np.where(is_cut, 0, components), valid & ~building, pixel_size)
            yield regions.moved(left, top).footprints(min_area, simplify, pixel_size)
            classes = class_probabilities(maps)
            parts, numbers = trace_regions(np.where(is_cut, components, 0), maps["mask"][0], 0, open_sides, classes)
            cut.add_block(parts.moved(left, top), numbers, left, -1 in open_sides)
        joined = cut.finish_row()
        if not polygonizer.changes_components:
            yield joined.footprints(min_area, simplify, pixel_size)
            continue
        with_holes = shapely.area(shapely.polygons(shapely.get_exterior_ring(joined.polygons)))
        for component in joined.polygons[with_holes > min_pixels - 1]:
            regions = buildings_in(component, read, (height, width), polygonizer, pixel_size)
            yield regions.footprints(min_area, simplify, pixel_size)


def touches(
    sides: list[Any], components: Int32[np.ndarray, "height width"], count: int
) -> Bool[np.ndarray, " numbers"]:
    """Return which of the numbers from 0 to `count` are on one of the sides; 0, the background, is not."""
    result = np.zeros(count + 1, dtype=bool)
    for side in sides:
        result[components[side]] = True
    result[0] = False
    return result


def buildings_in(
    component: shapely.Polygon, read: Read, size: tuple[int, int], polygonizer: Polygonizer, pixel_size: float
) -> Regions:
    """Return the buildings in a component of an image, from its outline in pixels.

    Its maps are read with a pixel around it, so that it touches a border of what is read only at one of the image.

    Args:
        component: the outline
        read: as of `footprints_by_blocks`
        size: height and width of the image in pixels
        polygonizer: from maps to footprints
        pixel_size: m
    """
    left, top = (max(int(edge) - 1, 0) for edge in component.bounds[:2])
    right, bottom = (min(int(edge) + 1, side) for edge, side in zip(component.bounds[2:], size[::-1], strict=True))
    maps, valid = read(slice(top, bottom), slice(left, right))
    building = polygonizer.is_building(maps, valid)
    components, _ = ndimage.label(building)
    inside = shapely.point_on_surface(component)
    number = components[int(inside.y) - top, int(inside.x) - left]
    of_component = np.where(components == number, components, 0)
    return polygonizer.regions(maps, of_component, valid & ~building, pixel_size).moved(left, top)


class CutRegions:
    """Collect the regions that block edges cut until all of their parts are known.

    Args:
        width: of the map in pixels
    """

    def __init__(self, width: int) -> None:
        nothing = np.empty(0, dtype=object), np.empty(0, dtype=np.int64), np.empty(0), np.empty((0, 0))
        self.parts = Regions(*nothing)
        self.pairs = np.empty((2, 0), dtype=np.int64)  # of parts that share a side of a pixel
        # number of the part at each pixel along the edges that are still open, from 1; 0 where there is none
        self.above = np.zeros(width, dtype=np.int64)  # last pixel row of the row of blocks above
        self.below = np.zeros(width, dtype=np.int64)  # of this row of blocks
        self.before = np.empty(0, dtype=np.int64)  # last pixel column of the block on the left

    def add_block(
        self, regions: Regions, numbers: Int32[np.ndarray, "height width"], left: int, continues_below: bool
    ) -> None:
        """Keep the cut regions of the next block, and their numbers along its edges."""
        part = np.where(numbers > 0, numbers.astype(np.int64) + len(self.parts), 0)
        self.parts = concatenate([self.parts, regions]) if len(self.parts) else regions
        columns = slice(left, left + numbers.shape[1])
        self._link(self.above[columns], part[0])
        if left:
            self._link(self.before, part[:, 0])
        self.before = part[:, -1]
        if continues_below:
            self.below[columns] = part[-1]

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
    return Regions(*(np.concatenate([getattr(one, key.name) for one in regions]) for key in fields(Regions)))


def unite(parts: Regions, region_of_part: Int64[np.ndarray, " parts"], count: int) -> Regions:
    """Unite the parts of each of `count` regions, with corners only where the outline turns."""
    order = np.argsort(region_of_part, kind="stable")
    starts = np.searchsorted(region_of_part[order], np.arange(1, count))
    groups = np.split(parts.polygons[order], starts)[:count]
    polygons = np.array([group[0] if len(group) == 1 else shapely.union_all(group) for group in groups], dtype=object)
    sizes = np.bincount(region_of_part, weights=parts.sizes, minlength=count).astype(np.int64)
    sums = np.bincount(region_of_part, weights=parts.sums, minlength=count).astype(np.float64)
    class_sums = np.zeros((count, parts.class_sums.shape[1]))
    np.add.at(class_sums, region_of_part, parts.class_sums)
    # After `normalize` a ring begins at a corner that `simplify` keeps.
    return Regions(shapely.simplify(shapely.normalize(polygons), 0, preserve_topology=False), sizes, sums, class_sums)
