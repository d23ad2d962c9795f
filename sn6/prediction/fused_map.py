"""Fuse the stored outputs of overlapping images block by block, and read rectangles of the maps that they make."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64, Shaped

from sn6.data.augment import apply_position
from sn6.data.store_layers import write_array
from sn6.heads import Heads
from sn6.prediction.fusion import Fusion, LookMean, interpolate, look_weights
from sn6.prediction.images import Image
from sn6.prediction.map_grid import (
    BLOCK,
    Block,
    Layout,
    Place,
    Rectangle,
    area,
    block_numbers,
    grown,
    intersection,
    relative,
)
from sn6.prediction.mosaic import Mosaic
from sn6.targets.target import Position

HALF_TURN: Position = (False, 2)


@dataclass(frozen=True)
class FusedMaps:
    """Write and read the mean outputs of all looks, and the number of looks, as one file for each block.

    Attributes:
        folder: of the blocks
        layout: maps and places of the images
    """

    folder: Path
    layout: Layout

    def path(self, block: Block) -> Path:
        """Return the file of a block: the channels of the outputs, then the number of looks."""
        return self.folder / f"fused{block.map}_{block.row}_{block.column}.npy"

    def write(self, block: Block, mosaic_of: Callable[[int], Mosaic], heads: Heads, fusion: Fusion) -> None:
        """Fuse a block whose images are all predicted, in the order of their numbers.

        Args:
            block: of a map
            mosaic_of: number of an image → its stored outputs
            heads: of the outputs
            fusion: how the looks are weighted
        """
        numbers = self.layout.images_of(block)
        outputs, looks = fuse(self.layout, numbers, block.rectangle, mosaic_of, heads, fusion)
        write_array(self.path(block), np.concatenate([outputs, looks[None].astype(np.float32)]))

    def read(self, number_of_map: int, rows: slice, columns: slice, channels: int) -> Float32[np.ndarray, "_ h w"]:
        """Read a rectangle of a map: the mean outputs of all `channels`, NaN where there is no look."""
        return self.read_with_looks(number_of_map, rows, columns, channels)[0]

    def read_with_looks(
        self, number_of_map: int, rows: slice, columns: slice, channels: int
    ) -> tuple[Float32[np.ndarray, "_ h w"], Float32[np.ndarray, "h w"]]:
        """Read a rectangle of a map: the mean outputs of all `channels`, as `read` does, and the number of looks."""
        values = np.full((channels + 1, rows.stop - rows.start, columns.stop - columns.start), np.nan, np.float32)
        values[-1] = 0
        for block, whole in self._parts(number_of_map, (rows, columns)):
            shared = intersection(block.rectangle, (rows, columns))
            values[:, *relative(shared, (rows, columns))] = whole[:, *relative(shared, block.rectangle)]
        return values[:-1], values[-1]

    def _parts(self, number_of_map: int, rectangle: Rectangle) -> Iterator[tuple[Block, Shaped[np.ndarray, "k h w"]]]:
        """Yield the blocks that a rectangle meets and that have an image."""
        rows, columns = rectangle
        for row in block_numbers(rows):
            for column in block_numbers(columns):
                block = Block(number_of_map, row, column)
                if self.layout.images_of(block):
                    yield block, np.load(self.path(block), mmap_mode="r")

    def looks_at(self, number_of_map: int, points: Shaped[np.ndarray, "n 2"]) -> Int64[np.ndarray, " n"]:
        """Return the number of looks at points (x, y) in pixels of a map."""
        columns, rows = np.floor(points).astype(np.int64).T
        looks = np.zeros(len(points), dtype=np.int64)
        for row, column in np.unique(np.stack([rows // BLOCK, columns // BLOCK], axis=1), axis=0).tolist():
            block = Block(number_of_map, row, column)
            if self.layout.images_of(block):
                here = (rows // BLOCK == row) & (columns // BLOCK == column)
                values = np.load(self.path(block), mmap_mode="r")[-1]
                looks[here] = values[rows[here] % BLOCK, columns[here] % BLOCK].astype(np.int64)
        return looks


def fuse(
    layout: Layout,
    numbers: Sequence[int],
    rectangle: Rectangle,
    mosaic_of: Callable[[int], Mosaic],
    heads: Heads,
    fusion: Fusion,
) -> tuple[Float32[np.ndarray, "k h w"], Int64[np.ndarray, "h w"]]:
    """Return the mean outputs of images at a rectangle, NaN where there is no look, and the number of looks there.

    Args:
        layout: maps and places of the images
        numbers: of images on one map, in the order in which they are added
        rectangle: of their map
        mosaic_of: number of an image → its stored outputs
        heads: of the outputs
        fusion: how the looks are weighted
    """
    rows, columns = rectangle
    mean = LookMean(heads.channels, rows.stop - rows.start, columns.stop - columns.start, fusion.balance)
    for number in numbers:
        image, place = layout.images[number], layout.place(number)
        assert place is not None
        shared = intersection(layout.rectangle(number), rectangle)
        if not area(shared):  # a registered image may be moved to the rectangle, but is not
            continue
        reach = round(fusion.fade / image.pixel_metres)
        around = grown(shared, reach)
        outputs = outputs_on_map(image, place, mosaic_of(number), heads, around)
        inner = relative(shared, around)
        weights = look_weights(~np.isnan(outputs[0]), reach)[inner]
        mean.add(relative(shared, rectangle), outputs[:, *inner], weights, image.from_south)
    return mean.result()


def outputs_on_map(
    image: Image, place: Place, mosaic: Mosaic, heads: Heads, rectangle: Rectangle
) -> Float32[np.ndarray, "k h w"]:
    """Return the outputs of an image at the pixels of a rectangle of its map, NaN where it has none.

    They are rotated back if the network saw the image rotated, and interpolated between the four nearest pixels where
    the pixels of image and map are not the same.
    """
    wanted = [
        slice(pixels.start - ceil(start), pixels.stop - floor(start))
        for pixels, start in zip(rectangle, (place.row, place.column), strict=True)
    ]
    sizes = image.height, image.width
    stored = [slice(max(one.start, 0), min(one.stop, size)) for one, size in zip(wanted, sizes, strict=True)]
    shape = [one.stop - one.start for one in wanted]
    values = np.full((heads.channels, *shape), np.nan, dtype=np.float32)
    if all(one.start < one.stop for one in stored):
        outputs = mosaic.read(*image.to_file(stored[0], stored[1]))
        if image.rotated:
            turned = apply_position(torch.from_numpy(outputs), HALF_TURN)
            outputs = heads.transform(turned[None], HALF_TURN)[0].numpy()
        values[:, *relative((stored[0], stored[1]), (wanted[0], wanted[1]))] = outputs
    return interpolate(values, place.row % 1, place.column % 1)
