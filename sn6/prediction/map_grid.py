"""Place overlapping images on one pixel grid for each CRS, divided into blocks that are fused one at a time."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor
from typing import NamedTuple

import numpy as np
import shapely

from sn6.prediction.images import Image

BLOCK = 1024  # pixels, edge length
ROUNDING = 1e-3  # pixels: offsets of less are those of the coordinates' decimals

Rectangle = tuple[slice, slice]  # rows and columns, with start and stop


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

    Attributes:
        images: all images of a prediction; an image's number is its index here
    """

    images: tuple[Image, ...]

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
            first = self.images[numbers[0]]
            offsets = {number: offset(self.images[number], first) for number in numbers}
            top, left = (min(floor(one[axis]) for one in offsets.values()) for axis in (0, 1))
            for number, (row, column) in offsets.items():
                places[number] = Place(of_map, row - top, column - left)
            sizes = [(self.images[number].height, self.images[number].width) for number in numbers]
            bottoms = [places[number].row + size[0] for number, size in zip(numbers, sizes, strict=True)]
            rights = [places[number].column + size[1] for number, size in zip(numbers, sizes, strict=True)]
            west, north = first.corner
            corner = west + left * first.pixel, north - top * first.pixel
            assert first.crs is not None
            size = ceil(max(bottoms)), ceil(max(rights))
            grids.append(MapGrid(first.crs, corner, first.pixel, first.pixel_metres, *size))
        return grids, places

    @property
    def maps(self) -> list[MapGrid]:
        """Return the grid of each map."""
        return self._placed[0]

    def place(self, number: int) -> Place | None:
        """Return where an image is; None where it is on no map."""
        return self._placed[1].get(number)

    def images_on(self, number_of_map: int) -> list[int]:
        """Return the numbers of the images that are on a map, ascending."""
        return self._numbers[number_of_map]

    def rectangle(self, number: int) -> Rectangle:
        """Return the pixels of the map whose centres are within those of an image's outermost pixels."""
        place, image = self._placed[1][number], self.images[number]
        return (
            slice(ceil(place.row), floor(place.row + image.height - 1) + 1),
            slice(ceil(place.column), floor(place.column + image.width - 1) + 1),
        )

    def blocks_of(self, number: int) -> list[Block]:
        """Return the blocks that an image is part of, row by row; none where it is on no map."""
        place = self.place(number)
        if place is None:
            return []
        rows, columns = self.rectangle(number)
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
    boxes = np.array([box_of(image) for image in images])
    one, other = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    pairs = one < other
    return bool((shapely.area(shapely.intersection(boxes[one[pairs]], boxes[other[pairs]])) > 0).any())


def box_of(image: Image) -> shapely.Polygon:
    """Return the rectangle of an image in the units of its CRS."""
    west, north = image.corner
    return shapely.box(west, north - image.height * image.pixel, west + image.width * image.pixel, north)


def offset(image: Image, origin: Image) -> tuple[float, float]:
    """Return the rows and columns from the corner of one image to that of another; whole where they almost are."""
    down = (origin.corner[1] - image.corner[1]) / image.pixel
    right = (image.corner[0] - origin.corner[0]) / image.pixel
    row, column = (float(round(one)) if abs(one - round(one)) < ROUNDING else one for one in (down, right))
    return row, column


def block_numbers(pixels: slice) -> range:
    """Return the numbers of the blocks along an axis that have some of the pixels."""
    return range(pixels.start // BLOCK, (pixels.stop - 1) // BLOCK + 1)
