"""Encode, write and map the layers of a stored tile, one file per layer."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32, Shaped, UInt16

from sn6.data.reader import rasterize_labels
from sn6.datasets.declaration import DataSet, Product, Tile
from sn6.errors import UserError, first_line
from sn6.files import atomic_write
from sn6.footprints import Labels
from sn6.targets.target import Target, tile_layers

STEPS = 1 << 16  # of radar between the least and the greatest value of a product's `stored_range`


@dataclass(frozen=True)
class StoreTask:
    """The input of a process that stores a tile.

    Attributes:
        data_set: of the tile
        tile: tile to store
        product: product to store
        min_area: m²; smaller footprints are left out of the instances
        targets: by name, of which the layers are stored
        labels: labels of the tile
        files: files to write, by layer
    """

    data_set: DataSet
    tile: Tile
    product: Product
    min_area: float
    targets: Mapping[str, Target]
    labels: Labels | None
    files: dict[str, Path]

    @property
    def pixels(self) -> int:
        """Return the number of pixels of a band on the grid of the labels."""
        height, width = self.tile.size(self.product.grid)
        return round(height) * round(width)

    @property
    def size(self) -> int:
        """Return the size of the files in bytes."""
        image = len(self.product.bands) * stored_dtype(self.product).itemsize
        depth = {"image": image, "valid": 1, "instances": 2}
        depth |= {name: one.channels * (4 if one.stored_range is None else 1) for name, one in self.targets.items()}
        return self.pixels * sum(depth[layer] for layer in self.files)


def store_tile(task: StoreTask) -> None:
    """Decode a tile and write the layers of the task, in the tile's own frame.

    Raises:
        UserError: the GeoTIFF cannot be read, or contains a value that the store cannot represent
    """
    image, valid = task.data_set.read(task.tile, task.product.name, task.product.numbers)
    labels = rasterize_labels(task.labels, valid, task.min_area, task.product.grid)
    layers = tile_layers({name: target for name, target in task.targets.items() if name in task.files}, labels)
    for layer, path in task.files.items():
        if layer == "image":
            name = task.data_set.image_path(task.tile, task.product.name)
            write_array(path, encode(image, task.product, name))
        elif layer == "valid":
            write_array(path, valid[None])
        elif layer == "instances":
            write_array(path, smallest_dtype(labels.instances)[None])
        else:
            write_array(path, layers[layer])


def stored_dtype(product: Product) -> np.dtype:
    """Return the dtype of the stored image: that of the product if it is optical; SAR is rounded to 16 bits."""
    return np.dtype(product.dtype if product.optical else np.uint16)


def encode(image: Float32[np.ndarray, "c h w"], product: Product, path: Path) -> Shaped[np.ndarray, "c h w"]:
    """Encode radar in equal steps of its range, rounded: within 1/1024 dB from 0 to 127.99 dB in SpaceNet 6. Optical
    values are exact.

    Args:
        image: all bands in the units of the product
        product: of the image
        path: file to name in the message

    Raises:
        UserError: a value is out of range
    """
    dtype = stored_dtype(product)
    least, steps = stored_scale(product)
    scaled = (image.astype(np.float64) - least) * steps  # exact
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        scaled = np.rint(scaled).clip(limits.min, limits.max)
    encoded = scaled.astype(dtype)
    difference = np.abs(decode(encoded, product) - image)
    if difference.max(initial=0) > (0 if product.optical else 0.5 / steps):
        worst = image.ravel()[difference.argmax()]
        high = least + (STEPS - 1) / steps
        numbers = f"{dtype}" if product.optical else f"decibels from {least:g} to {high:.5g}"
        raise UserError(
            f"{path} contains {worst:g}, but a store represents {product.name} as {numbers}; set data.store=null",
            kind="wrong_data",
            key=path,
            value=float(worst),
        )
    return encoded


def decode(stored: Shaped[np.ndarray, "c h w"], product: Product) -> Float32[np.ndarray, "c h w"]:
    """Convert stored values to the units of the product."""
    least, steps = stored_scale(product)
    return stored.astype(np.float32) / np.float32(steps) + np.float32(least)


def stored_scale(product: Product) -> tuple[float, float]:
    """Return the value that is stored as 0, and the stored steps per unit of the product, a power of two."""
    if product.optical:
        return 0.0, 1.0
    least, greatest = product.stored_range
    return least, STEPS / (greatest - least)


def smallest_dtype(instances: Int32[np.ndarray, "h w"]) -> UInt16[np.ndarray, "h w"] | Int32[np.ndarray, "h w"]:
    """Convert instances to 16 bits unless that loses a number; 8 bits would lose the 256th building."""
    return instances.astype(np.uint16) if instances.max(initial=0) <= np.iinfo(np.uint16).max else instances


def write_array(path: Path, array: Shaped[np.ndarray, "..."]) -> None:
    """Write a .npy file atomically; through memory, as NumPy ignores a full disk at the end of a file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    with atomic_write(path) as part:
        part.write_bytes(buffer.getbuffer())


def map_array(path: Path) -> Shaped[np.ndarray, "..."]:
    """Map a .npy file into memory, copy-on-write.

    Raises:
        UserError: the file is missing or broken
    """
    try:
        return np.asarray(np.load(path, mmap_mode="c"))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: the archive was changed during the run; run the same command again",
            kind="not_found",
            key=path,
        ) from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{path} is broken ({first_line(error)}); remove it and run the same command again",
            kind="unreadable",
            key=path,
        ) from None
