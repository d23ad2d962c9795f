"""A tile as arrays on disk, one file a layer: how it is decoded, rounded, written and mapped."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32, Integer, Shaped, UInt8, UInt16

from sn6.data.dataset import rasterize_labels
from sn6.datasets.archive import Archive, Tile
from sn6.datasets.layout import PIXEL, PRODUCTS, tile_path
from sn6.errors import UserError, first_line
from sn6.files import atomic_write
from sn6.footprints import Labels
from sn6.targets.boundary import PixelWeights

STEPS_PER_DB = 512


@dataclass(frozen=True)
class StoreTask:
    """What a process needs to store a tile.

    Attributes:
        root: of the archive
        tile: of it
        product: whose pixels are stored
        min_area: m²; smaller footprints are not among the instances
        pixel_weights: for the boundary term, where the loss has one
        labels: of the tile
        files: to write, by their layer
    """

    root: Path
    tile: Tile
    product: str
    min_area: float
    pixel_weights: PixelWeights | None
    labels: Labels | None
    files: dict[str, Path]

    @property
    def pixels(self) -> int:
        """Of a band, on the grid of 0.5 m."""
        west, south, east, north = self.tile.bounds
        return round((east - west) / PIXEL) * round((north - south) / PIXEL)

    @property
    def size(self) -> int:
        """Bytes of the files."""
        depth = {"image": len(PRODUCTS[self.product].bands) * stored_dtype(self.product).itemsize}
        return self.pixels * sum((depth | {"valid": 1, "instances": 2, "boundary": 4})[layer] for layer in self.files)


def store_tile(job: StoreTask) -> None:
    """Decodes a tile and writes the layers that are asked for, in the tile's own frame.

    Raises:
        UserError: the GeoTIFF cannot be read, or holds what the store does not keep
    """
    bands = range(1, len(PRODUCTS[job.product].bands) + 1)
    image, valid = Archive(job.root).read(job.tile, job.product, bands)
    instances = rasterize_labels(job.labels, valid, job.min_area)
    for layer, path in job.files.items():
        if layer == "image":
            name = tile_path(job.root, job.tile.split, job.product, job.tile.image_id)
            write_array(path, encode(image, job.product, name))
        elif layer == "valid":
            write_array(path, valid[None])
        elif layer == "instances":
            write_array(path, smallest_dtype(instances)[None])
        elif job.pixel_weights is not None:
            write_array(path, job.pixel_weights.boundary(instances)[None])


def stored_dtype(product: str) -> np.dtype:
    """Of the image: the optical products' own; radar is rounded to 16 bits."""
    return np.dtype(PRODUCTS[product].dtype if PRODUCTS[product].optical else np.uint16)


def steps_per_unit(product: str) -> int:
    """Stored numbers of one unit of the product: optical values are kept as they are."""
    return 1 if PRODUCTS[product].optical else STEPS_PER_DB


def encode(
    image: Float32[np.ndarray, "c h w"], product: str, path: Path
) -> UInt8[np.ndarray, "c h w"] | UInt16[np.ndarray, "c h w"]:
    """Radar: decibels × 512, rounded, which is within 1/1024 dB from 0 to 127.99 dB. Optical: exact.

    Raises:
        UserError: a value lies outside; the message names `path`
    """
    dtype = stored_dtype(product)
    encoded = np.rint(image * steps_per_unit(product)).clip(0, np.iinfo(dtype).max).astype(dtype)
    apart = np.abs(decode(encoded, product) - image)
    rounding = 0 if PRODUCTS[product].optical else 0.5 / steps_per_unit(product)
    if apart.max(initial=0) > rounding:
        worst = image.ravel()[apart.argmax()]
        most = np.iinfo(dtype).max / steps_per_unit(product)
        raise UserError(f"{path} holds {worst:g}, a store keeps {product} from 0 to {most:.5g}; set data.store=null")
    return encoded


def decode(stored: Integer[np.ndarray, "c h w"], product: str) -> Float32[np.ndarray, "c h w"]:
    """The numbers of the store in the units of the product."""
    return stored.astype(np.float32) / np.float32(steps_per_unit(product))


def smallest_dtype(instances: Int32[np.ndarray, "h w"]) -> UInt16[np.ndarray, "h w"] | Int32[np.ndarray, "h w"]:
    """In 16 bits where no label is lost: 8 would lose the 256th building."""
    return instances.astype(np.uint16) if instances.max(initial=0) <= np.iinfo(np.uint16).max else instances


def write_array(path: Path, array: Shaped[np.ndarray, "..."]) -> None:
    """Writes a .npy whole or not at all, also when the power fails."""
    with atomic_write(path) as part, part.open("wb") as file:
        np.save(file, array)
        file.flush()
        os.fsync(file.fileno())


def map_array(path: Path) -> Shaped[np.ndarray, "..."]:
    """Maps a .npy into memory, of which others see no change.

    Raises:
        UserError: it is gone or broken
    """
    try:
        return np.asarray(np.load(path, mmap_mode="c"))
    except FileNotFoundError:
        raise UserError(f"{path} is gone: the archive was changed under the run; run the same command again") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{path} is broken ({first_line(error)}); remove it and run again, which makes it anew"
        ) from None
