"""Place overlapping images on one pixel grid for each CRS, divided into blocks that are fused one at a time."""

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, floor
from typing import NamedTuple

import numpy as np
import shapely

from sn6.formats.writer import common_crs, to_crs
from sn6.prediction.images import Image

BLOCK = 1024  # pixels, edge length
ROUNDING = 1e-3  # pixels: offsets of less are those of the coordinates' decimals
MAX_SHIFT = 3.0  # m that registration moves an image

Rectangle = tuple[slice, slice]  # rows and columns, with start and stop
Shifts = tuple[tuple[float, float], ...]  # m to the east and to the north, of each image


class Block(NamedTuple):
    """A square of a map: the number of the map, then those of its row and column of blocks."""

    map: int
    row: int
    column: int

    @property
    def rectangle(self) -> Rectangle:
        """Return its rows and columns on the map; the last ones may extend beyond it."""
        top, left = self.row * BLOCK, self.column * BLOCK
        return slice(top, top + BLOCK), slice(left, left + BLOCK)


class Place(NamedTuple):
    """Where the top left corner of an image is on its map, in pixels of the map, which may be fractions."""

    map: int
    row: float
    column: float


@dataclass(frozen=True)
class MapGrid:
    """The grid of a map, of square pixels with north up.

    Attributes:
        crs: "EPSG:<code>"
        corner: west and north edge in the units of the CRS
        pixel: pixel size in the units of the CRS
        pixel_metres: pixel size in m
        height: pixels
        width: pixels
    """

    crs: str
    corner: tuple[float, float]
    pixel: float
    pixel_metres: float
    height: int
    width: int


@dataclass(frozen=True)
class Layout:
    """The maps of images and their places on them; a map has the grid of the first of its images.

    Images without a CRS are on no map, as are those of a CRS and pixel size that no two overlapping images have.

    Images that are registered are placed on their map with their shifts. Grids and blocks do not depend on these: the
    maps, and the ground of which an image has the blocks, extend by `MAX_SHIFT` to all sides.

    Attributes:
        images: all images of a prediction; an image's number is its index here
        shifts: where registration moves the images, up to `MAX_SHIFT`; None where they are not registered
    """

    images: tuple[Image, ...]
    shifts: Shifts | None = None

    @cached_property
    def _numbers(self) -> list[list[int]]:
        """The numbers of the images of each map."""
        groups = defaultdict(list)
        for number, image in enumerate(self.images):
            if image.crs is not None:
                groups[image.crs, image.pixel].append(number)
        return [numbers for numbers in groups.values() if any_overlap([self.images[number] for number in numbers])]

    @cached_property
    def _placed(self) -> tuple[list[MapGrid], dict[int, Place]]:
        grids, places = [], {}
        for of_map, numbers in enumerate(self._numbers):
            first, margin = self.images[numbers[0]], self.margin(numbers[0])
            offsets = {number: offset(self.images[number], first) for number in numbers}
            top, left = (min(floor(one[axis]) for one in offsets.values()) - margin for axis in (0, 1))
            for number, (row, column) in offsets.items():
                places[number] = Place(of_map, row - top, column - left)
            sizes = [(self.images[number].height, self.images[number].width) for number in numbers]
            bottoms = [places[number].row + size[0] for number, size in zip(numbers, sizes, strict=True)]
            rights = [places[number].column + size[1] for number, size in zip(numbers, sizes, strict=True)]
            west, north = first.corner
            corner = west + left * first.pixel, north - top * first.pixel
            assert first.crs is not None
            size = ceil(max(bottoms)) + margin, ceil(max(rights)) + margin
            grids.append(MapGrid(first.crs, corner, first.pixel, first.pixel_metres, *size))
        return grids, places

    @property
    def maps(self) -> list[MapGrid]:
        """Return the grid of each map."""
        return self._placed[0]

    def place(self, number: int) -> Place | None:
        """Return where an image is; None where it is on no map."""
        place = self._placed[1].get(number)
        if place is None or self.shifts is None:
            return place
        (east, north), metres = self.shifts[number], self.images[number].pixel_metres
        return Place(
            place.map, without_rounding(place.row - north / metres), without_rounding(place.column + east / metres)
        )

    def image(self, number: int) -> Image:
        """Return an image with its corner where it is on its map."""
        image = self.images[number]
        if self.shifts is None:
            return image
        (east, north), units = self.shifts[number], image.pixel / image.pixel_metres
        return replace(image, corner=(image.corner[0] + east * units, image.corner[1] + north * units))

    def margin(self, number: int) -> int:
        """Return by how many pixels an image may be moved."""
        return 0 if self.shifts is None else ceil(MAX_SHIFT / self.images[number].pixel_metres)

    @property
    def placed(self) -> list[int]:
        """Return the numbers of the images that are on a map, ascending."""
        return sorted(self._placed[1])

    def images_on(self, number_of_map: int) -> list[int]:
        """Return the numbers of the images that are on a map, ascending."""
        return self._numbers[number_of_map]

    def rectangle(self, number: int) -> Rectangle:
        """Return the pixels of the map whose centres are within those of an image's outermost pixels."""
        place = self.place(number)
        assert place is not None
        return pixels_within(place, self.images[number])

    def blocks_of(self, number: int) -> list[Block]:
        """Return the blocks that an image is or may be moved to, row by row; none where it is on no map."""
        place = self._placed[1].get(number)
        if place is None:
            return []
        rows, columns = grown(pixels_within(place, self.images[number]), self.margin(number))
        return [Block(place.map, row, column) for row in block_numbers(rows) for column in block_numbers(columns)]

    def mean_looks(self, number: int) -> float:
        """Return the mean number of images over the ground of an image, itself among them."""
        place, box = self.place(number), box_of(self.images[number])
        if place is None:
            return 1.0
        boxes = np.array([box_of(self.images[other]) for other in self.images_on(place.map)])
        return float(shapely.area(shapely.intersection(boxes, box)).sum() / box.area)

    @cached_property
    def _of_blocks(self) -> dict[Block, list[int]]:
        of_blocks = defaultdict(list)
        for number in range(len(self.images)):
            for block in self.blocks_of(number):
                of_blocks[block].append(number)
        return dict(of_blocks)

    @property
    def blocks(self) -> list[Block]:
        """Return all blocks that have an image, in order."""
        return sorted(self._of_blocks)

    def images_of(self, block: Block) -> list[int]:
        """Return the numbers of the images that a block is part of, ascending."""
        return self._of_blocks.get(block, [])

    def in_order(self, numbers: Collection[int]) -> list[int]:
        """Sort images by the rows of blocks of their maps, so that a block has all of its images soon."""
        return sorted(numbers, key=lambda number: (self.blocks_of(number)[:1], number))


def any_overlap(images: Sequence[Image]) -> bool:
    """Return whether any two of the images share ground, more than an edge."""
    return share_area(np.array([box_of(image) for image in images]))


def share_area(boxes: np.ndarray) -> bool:
    """Return whether any two of the polygons (n) share more than an edge."""
    one, other = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    pairs = one < other
    return bool((shapely.area(shapely.intersection(boxes[one[pairs]], boxes[other[pairs]])) > 0).any())


def overlap_on_ground(images: Sequence[Image]) -> bool:
    """Return whether any two of the images that have a CRS share ground, whatever their CRS is."""
    placed = [image for image in images if image.crs is not None]
    crs = common_crs(image.crs for image in placed)
    boxes = [to_crs(np.array([box_of(image)]), image.crs, crs)[0] for image in placed]
    return share_area(np.array(boxes, dtype=object))


def box_of(image: Image) -> shapely.Polygon:
    """Return the rectangle of an image in the units of its CRS."""
    west, north = image.corner
    return shapely.box(west, north - image.height * image.pixel, west + image.width * image.pixel, north)


def offset(image: Image, origin: Image) -> tuple[float, float]:
    """Return the rows and columns from the corner of one image to that of another; whole where they almost are."""
    down = (origin.corner[1] - image.corner[1]) / image.pixel
    right = (image.corner[0] - origin.corner[0]) / image.pixel
    return without_rounding(down), without_rounding(right)


def without_rounding(pixels: float) -> float:
    """Return an offset; the whole number where it almost is one."""
    return float(round(pixels)) if abs(pixels - round(pixels)) < ROUNDING else pixels


def pixels_within(place: Place, image: Image) -> Rectangle:
    """Return the pixels of a map whose centres are within those of the outermost pixels of an image at a place."""
    return (
        slice(ceil(place.row), floor(place.row + image.height - 1) + 1),
        slice(ceil(place.column), floor(place.column + image.width - 1) + 1),
    )


def intersection(one: Rectangle, other: Rectangle) -> Rectangle:
    """Return the rows and columns that two rectangles share: none (start = stop) where they share no pixel."""
    starts = [max(a.start, b.start) for a, b in zip(one, other, strict=True)]
    stops = [min(a.stop, b.stop) for a, b in zip(one, other, strict=True)]
    rows, columns = (slice(start, max(start, stop)) for start, stop in zip(starts, stops, strict=True))
    return rows, columns


def grown(rectangle: Rectangle, pixels: int) -> Rectangle:
    """Return a rectangle with a number of pixels more on each side."""
    rows, columns = (slice(side.start - pixels, side.stop + pixels) for side in rectangle)
    return rows, columns


def relative(inner: Rectangle, outer: Rectangle) -> Rectangle:
    """Return the rows and columns of a rectangle, counted from the corner of another."""
    rows, columns = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True))
    return rows, columns


def area(rectangle: Rectangle) -> int:
    """Return the number of pixels of a rectangle."""
    return math.prod(side.stop - side.start for side in rectangle)


def block_numbers(pixels: slice) -> range:
    """Return the numbers of the blocks along an axis that have some of the pixels."""
    return range(pixels.start // BLOCK, (pixels.stop - 1) // BLOCK + 1)
