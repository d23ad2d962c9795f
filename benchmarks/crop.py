"""A training crop of 512×512×4 and its mask: from a store, against a window of a GeoTIFF that is opened for it.

Crops are read, flipped and normalised in batches of 8. The peer has the masks in GeoTIFFs beside the images.
"""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import rasterio
import torch
from rasterio.windows import Window
from torch import Tensor

from benchmarks.comparison import Implementation, Row, medians, require
from benchmarks.loading import PRODUCT, write_uncompressed
from benchmarks.process import own_process
from sn6.data.augment import FlipLR, crop_window, draw_position
from sn6.data.datamodule import TileDataModule
from sn6.data.reader import rasterize_labels
from sn6.data.stored_crops import StoredCrops
from sn6.datasets.spacenet6 import SpaceNet6, tile_path
from sn6.processes import keep_freed_memory
from sn6.simulation.archive import make_archive, settings_of

BATCH = 8
MEAN, STD = 30.0, 8.0  # decibels
MIN_AREA = 20.0  # m²
STEP = 1 / 1024  # decibels; the values in the store are multiples of it


class CropFiles(NamedTuple):
    """The files of a crop, and what to read of them.

    Attributes:
        image: GeoTIFF
        mask: GeoTIFF
        window: rows and columns of both
        flipped: whether to flip it left to right
    """

    image: Path
    mask: Path
    window: tuple[slice, slice]
    flipped: bool


def rows(tiles: int = 12, size: int = 900, crop: int = 512, repeats: int = 15) -> Iterator[Row]:
    """Yield a row for GeoTIFFs without compression, as the published ones, and one for deflated ones."""
    with TemporaryDirectory() as folder:
        compressed, plain = Path(folder) / "compressed", Path(folder) / "plain"
        make_archive(compressed, settings_of(tiles=tiles, test_tiles=0, size=size))
        write_uncompressed(compressed, plain)
        for root in (compressed, plain):
            write_masks(root)
        stored_crops(plain, crop)  # makes the store
        inputs = f"{crop}×{crop}×4 of {size}×{size}"
        with own_process(keep_freed_memory) as ours, own_process() as theirs:
            for root, title in ((plain, "uncompressed"), (compressed, "deflated")):
                agreement = check_agreement(plain, root, crop, tiles // BATCH)
                batches = {"ours": ours(make_sn6, plain, crop), "theirs": theirs(make_plain, root, crop)}
                seconds = {name: value / BATCH for name, value in medians(batches, repeats).items()}
                peer = f"rasterio, window of a GeoTIFF, {title}"
                yield Row(
                    "a training crop", inputs, seconds["ours"], peer, seconds["theirs"], agreement, max_ours=0.0006
                )


def write_masks(root: Path) -> None:
    """Write the mask of each radar tile beside the images."""
    archive = SpaceNet6(root)
    for tile in archive.tiles("train", PRODUCT):
        image = tile_path(root, "train", PRODUCT, tile.image_id)
        with rasterio.open(image) as file:
            valid, profile = file.read().any(axis=0), file.profile | {"count": 1, "dtype": "uint8"}
        path = mask_path(image)
        path.parent.mkdir(exist_ok=True)
        with rasterio.open(path, "w", **profile) as file:
            file.write(
                (rasterize_labels(archive.labels(tile), valid, MIN_AREA, archive.pixel_size).instances > 0).astype(
                    np.uint8
                ),
                1,
            )


def mask_path(image: Path) -> Path:
    """Return the path of the mask of a tile."""
    return image.parent.parent / "masks" / image.name


def check_agreement(stored: Path, root: Path, crop: int, batches: int) -> str:
    """Check that both return the same crops, and say how.

    Raises:
        Mismatch: they differ
    """
    crops, files = stored_crops(stored, crop), crop_files(root, crop)
    for first in range(0, batches * BATCH, BATCH):
        ours = crops.__getitems__([(0, draw) for draw in range(first, first + BATCH)])
        theirs = plain_batch([next(files) for _ in range(BATCH)])
        require(bool((ours["mask"] == theirs["mask"]).all()), "a training crop: the masks of sn6 and rasterio differ")
        difference = float((ours["image"] - theirs["image"]).abs().max()) * STD
        require(difference < STEP, f"a training crop: sn6 and rasterio differ by {difference:.2g} dB")
    return "masks equal, decibels to 1/1024"


def make_sn6(root: Path, crop: int) -> Implementation:
    """Return a function that reads the next batch from the store."""
    crops, numbers = stored_crops(root, crop), count()

    def read_batch() -> None:
        crops.__getitems__([(0, next(numbers)) for _ in range(BATCH)])

    return read_batch


def make_plain(root: Path, crop: int) -> Implementation:
    """Return a function that reads the next batch from GeoTIFFs."""
    files = crop_files(root, crop)
    return lambda: plain_batch([next(files) for _ in range(BATCH)])


def stored_crops(root: Path, crop: int) -> StoredCrops:
    """Return the training crops of an archive from its store, which is made if it is missing."""
    data = TileDataModule(
        SpaceNet6(root),
        product=PRODUCT,
        store="disk",
        crop=crop,
        augmentation=FlipLR(),
        mean=[MEAN] * 4,
        std=[STD] * 4,
        orient=False,
        min_area=MIN_AREA,
    )
    data.setup()
    crops = data.train_dataloader().dataset
    assert isinstance(crops, StoredCrops)
    return crops


def crop_files(root: Path, crop: int) -> Iterator[CropFiles]:
    """Yield the files of the crops of `stored_crops`, without end."""
    crops = stored_crops(root, crop).crops
    paths = [tile_path(root, "train", PRODUCT, tile.image_id) for tile in crops.tiles.tiles]
    valid = [read(path).any(axis=0) for path in paths]
    for draw in count():
        number, _, rng = crops.draw_tile(0, draw)
        path, window = paths[number], crop_window(valid[number], crop, rng)
        yield CropFiles(path, mask_path(path), window, draw_position(FlipLR(), rng)[0])


def plain_batch(files: list[CropFiles]) -> dict[str, Tensor]:
    """Read a batch as a Dataset with rasterio does."""
    crops = [plain_crop(one) for one in files]
    return {name: torch.stack([crop[name] for crop in crops]) for name in ("image", "mask")}


def plain_crop(files: CropFiles) -> dict[str, Tensor]:
    """Read a crop and normalise its image, with 0 for nodata."""
    pixels, mask = read(files.image, files.window), read(files.mask, files.window)
    image = (pixels - np.float32(MEAN)) / np.float32(STD) * pixels.any(axis=0)
    if files.flipped:
        image, mask = image[..., ::-1], mask[..., ::-1]
    return {
        "image": torch.from_numpy(np.ascontiguousarray(image)),
        "mask": torch.from_numpy(mask.astype(np.float32)),
    }


def read(path: Path, window: tuple[slice, slice] | None = None) -> np.ndarray:
    """Read the bands of a GeoTIFF, or of a window of it."""
    with rasterio.open(path) as file:
        return file.read(window=None if window is None else Window.from_slices(*window))
