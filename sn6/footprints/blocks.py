"""The footprints of a map that memory does not hold: block by block, joined where a block cuts a building."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Float, Int32, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sn6.footprints import Footprints
from sn6.footprints.polygonize import Regions, building_regions

Read = Callable[[slice, slice], Float[np.ndarray, "_ _"]]  # rows, columns → logits, NaN on nodata


@dataclass(frozen=True)
class PolygonOptions:
    """From logits to footprints; `sn6.footprints.polygonize.footprints_from_logits` tells what each means.

    Attributes:
        threshold: probability; a pixel above it is building
        min_area: m²
        simplify: m
    """

    threshold: float = 0.5
    min_area: float = 20.0
    simplify: float = 0.5


def footprints_by_blocks(
    read: Read, height: int, width: int, rule: PolygonOptions, pixel: float = 0.5, block: int = 1024
) -> Iterator[Footprints]:
    """The footprints of a map of `height` × `width` pixels, strip by strip of `block` rows from the top.

    They are those of `footprints_from_logits` over the whole map: the same outlines, and the same confidences to
    rounding. Memory holds a block, and of a strip the regions that a block's border cuts.

    Args:
        read: gives the logits of a rectangle of the map, in float and NaN on nodata
        height: of the map in pixels
        width: of the map in pixels
        rule: threshold, least area, tolerance of the outlines
        pixel: size of a pixel in m
        block: side of a block in pixels
    """
    cut = CutRegions(width)
    for top in range(0, height, block):
        bottom = min(top + block, height)
        for left in range(0, width, block):
            right = min(left + block, width)
            logits = read(slice(top, bottom), slice(left, right))
            goes_on = [(0, top > 0), (-1, bottom < height), (np.s_[:, 0], left > 0), (np.s_[:, -1], right < width)]
            open_sides = [side for side, is_open in goes_on if is_open]
            least = rule.min_area / pixel**2
            found, numbered = building_regions(logits, ~np.isnan(logits), rule.threshold, least, open_sides)
            found = Regions(
                shapely.transform(found.polygons, lambda xy, at=(left, top): xy + at), found.sizes, found.sums
            )
            yield cut.set_aside(found, numbered, left, open_sides).footprints(rule.min_area, rule.simplify, pixel)
        yield cut.joined().footprints(rule.min_area, rule.simplify, pixel)


class CutRegions:
    """The regions that the borders of blocks cut, until all of their parts are known.

    Args:
        width: of the map in pixels
    """

    def __init__(self, width: int) -> None:
        self.parts = Regions(np.empty(0, dtype=object), np.empty(0, dtype=np.int64), np.empty(0))
        self.pairs = np.empty((2, 0), dtype=np.int64)  # of parts that share a side of a pixel
        # the part on each pixel along the borders that are still open, numbered from 1, 0 where there is none
        self.above = np.zeros(width, dtype=np.int64)  # the last row of the strip above
        self.below = np.zeros(width, dtype=np.int64)  # of this one
        self.before = np.empty(0, dtype=np.int64)  # the last column of the block on the left

    def set_aside(
        self, found: Regions, numbered: Int32[np.ndarray, "height width"], left: int, open_sides: list
    ) -> Regions:
        """Takes those regions of the next block that meet an open side of it; gives back the others."""
        is_cut = np.zeros(len(found) + 1, dtype=bool)
        for side in open_sides:
            is_cut[numbered[side]] = True
        is_cut[0] = False
        part = np.where(is_cut, np.cumsum(is_cut) + len(self.parts), 0)
        self.parts = concatenated([self.parts, found[is_cut[1:]]])
        columns = slice(left, left + numbered.shape[1])
        self._meet(self.above[columns], part[numbered[0]])
        if left:
            self._meet(self.before, part[numbered[:, 0]])
        self.before = part[numbered[:, -1]]
        if -1 in open_sides:
            self.below[columns] = part[numbered[-1]]
        return found[~is_cut[1:]]

    def _meet(self, one: Int64[np.ndarray, " n"], other: Int64[np.ndarray, " n"]) -> None:
        met = np.stack([one, other])[:, (one > 0) & (other > 0)] - 1
        self.pairs = np.concatenate([self.pairs, np.unique(met, axis=1)], axis=1)

    def joined(self) -> Regions:
        """At the end of a strip: the regions that are whole now. Those that go on below it stay."""
        number = len(self.parts)
        meets = coo_array((np.ones(self.pairs.shape[1]), tuple(self.pairs)), shape=(number, number))
        count, whole = connected_components(meets, directed=False)
        regions = united(self.parts, whole.astype(np.int64), count)
        goes_on = np.zeros(count, dtype=bool)
        goes_on[whole[self.below[self.below > 0] - 1]] = True
        renumbered = np.append(0, np.cumsum(goes_on)[whole])
        self.above, self.below = renumbered[self.below], np.zeros_like(self.below)
        self.parts, self.pairs = regions[goes_on], self.pairs[:, :0]
        return regions[~goes_on]


def concatenated(regions: list[Regions]) -> Regions:
    """All of them in one."""
    return Regions(*(np.concatenate([getattr(one, key) for one in regions]) for key in ("polygons", "sizes", "sums")))


def united(parts: Regions, whole: Int64[np.ndarray, " parts"], count: int) -> Regions:
    """The parts of each of `count` regions in one, with corners only where the outline turns."""
    order = np.argsort(whole, kind="stable")
    groups = np.split(parts.polygons[order], np.searchsorted(whole[order], np.arange(1, count)))[:count]
    polygons = np.array([group[0] if len(group) == 1 else shapely.union_all(group) for group in groups], dtype=object)
    sizes = np.bincount(whole, weights=parts.sizes, minlength=count).astype(np.int64)
    sums = np.bincount(whole, weights=parts.sums, minlength=count).astype(np.float64)
    # a ring of `normalize` begins at a corner that stays
    return Regions(shapely.simplify(shapely.normalize(polygons), 0, preserve_topology=False), sizes, sums)
