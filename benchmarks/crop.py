"""A training crop of 512×512×4 and its mask: from a store, against a window of a GeoTIFF that is opened for it.

Read, flipped and normalised, in batches of 8. The peer has the masks in GeoTIFFs beside the images.
"""

from collections.abc import Iterator
from contextlib import redirect_stdout
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import rasterio
import torch
from rasterio.windows import Window
from torch import Tensor

from benchmarks.comparison import Row, Way, medians, require
from benchmarks.loading import PRODUCT, write_uncompressed
from benchmarks.process import apart
from sn6.data.augment import crop_window, draw_position
from sn6.data.datamodule import TileDataModule
from sn6.data.reader import rasterize_labels
from sn6.data.stored_crops import StoredCrops
from sn6.datasets.archive import Archive
from sn6.datasets.layout import tile_path
from sn6.processes import keep_freed_memory
from sn6.simulate import simulate

BATCH = 8
MEAN, STD = 30.0, 8.0  # decibels
MIN_AREA = 20.0  # m²
STEP = 1 / 1024  # decibels of which the store's numbers are multiples


class Place(NamedTuple):
    """Of a crop.

    Attributes:
        image: GeoTIFF
        mask: GeoTIFF
        window: of both
        flipped: whether left is right
    """

    image: Path
    mask: Path
    window: tuple[slice, slice]
    flipped: bool


def rows(tiles: int = 12, size: int = 900, crop: int = 512, repeats: int = 15) -> Iterator[Row]:
    """A row for GeoTIFFs without compression, as the published ones, and one for deflated ones."""
    with TemporaryDirectory() as folder:
        compressed, plain = Path(folder) / "compressed", Path(folder) / "plain"
        with redirect_stdout(None):  # what it says to do next
            simulate(compressed, tiles=tiles, test_tiles=0, size=size)
        write_uncompressed(compressed, plain)
        for root in (compressed, plain):
            write_masks(root)
        stored_crops(plain, crop)  # makes the store
        given = f"{crop}×{crop}×4 of {size}×{size}"
        with apart(keep_freed_memory) as ours, apart() as theirs:
            for root, title in ((plain, "uncompressed"), (compressed, "deflated")):
                equality = agreement(plain, root, crop, tiles // BATCH)
                ways = {"ours": ours(make_sn6, plain, crop), "theirs": theirs(make_plain, root, crop)}
                seconds = {name: value / BATCH for name, value in medians(ways, repeats).items()}
                peer = f"rasterio, window of a GeoTIFF, {title}"
                yield Row("a training crop", given, seconds["ours"], peer, seconds["theirs"], equality, most=0.0006)


def write_masks(root: Path) -> None:
    """The mask of each radar tile, beside the images."""
    archive = Archive(root)
    for tile in archive.tiles("train", PRODUCT):
        image = tile_path(root, "train", PRODUCT, tile.image_id)
        with rasterio.open(image) as file:
            valid, profile = file.read().any(axis=0), file.profile | {"count": 1, "dtype": "uint8"}
        path = mask_of(image)
        path.parent.mkdir(exist_ok=True)
        with rasterio.open(path, "w", **profile) as file:
            file.write((rasterize_labels(archive.labels(tile), valid, MIN_AREA) > 0).astype(np.uint8), 1)


def mask_of(image: Path) -> Path:
    """Where the mask of a tile lies."""
    return image.parent.parent / "masks" / image.name


def agreement(stored: Path, root: Path, crop: int, batches: int) -> str:
    """Checks that both give the same crops.

    Raises:
        Mismatch: they do not
    """
    crops, places = stored_crops(stored, crop), all_places(root, crop)
    for first in range(0, batches * BATCH, BATCH):
        ours = crops.__getitems__([(0, draw) for draw in range(first, first + BATCH)])
        theirs = plain_batch([next(places) for _ in range(BATCH)])
        require(bool((ours["mask"] == theirs["mask"]).all()), "a training crop: the masks differ")
        off = float((ours["image"] - theirs["image"]).abs().max()) * STD
        require(off < STEP, f"a training crop: the two ways differ by {off:.2g} dB")
    return "masks equal, decibels to 1/1024"


def make_sn6(root: Path, crop: int) -> Way:
    """The next batch from the store."""
    crops, numbers = stored_crops(root, crop), count()

    def way() -> None:
        crops.__getitems__([(0, next(numbers)) for _ in range(BATCH)])

    return way


def make_plain(root: Path, crop: int) -> Way:
    """The next batch from GeoTIFFs."""
    places = all_places(root, crop)
    return lambda: plain_batch([next(places) for _ in range(BATCH)])


def stored_crops(root: Path, crop: int) -> StoredCrops:
    """The crops of an archive, which gets a store if it has none."""
    known = {"mean": [MEAN] * 4, "std": [STD] * 4, "orient": False, "min_area": MIN_AREA}
    data = TileDataModule(root=str(root), product=PRODUCT, store="disk", crop=crop, augmentation="flip_lr", **known)
    data.setup()
    crops = data.train_dataloader().dataset
    assert isinstance(crops, StoredCrops)
    return crops


def all_places(root: Path, crop: int) -> Iterator[Place]:
    """Where the crops of `stored_crops` lie, without end."""
    crops = stored_crops(root, crop).crops
    paths = [tile_path(root, "train", PRODUCT, tile.image_id) for tile in crops.tiles.tiles]
    valid = [read(path).any(axis=0) for path in paths]
    for draw in count():
        number, rng = crops.tile_and_generator(0, draw)
        path, window = paths[number], crop_window(valid[number], crop, rng)
        yield Place(path, mask_of(path), window, draw_position("flip_lr", rng)[0])


def plain_batch(places: list[Place]) -> dict[str, Tensor]:
    """As a Dataset with rasterio gives it, collated."""
    crops = [plain_crop(place) for place in places]
    return {name: torch.stack([crop[name] for crop in crops]) for name in ("image", "mask")}


def plain_crop(place: Place) -> dict[str, Tensor]:
    """The image normalised, 0 on nodata."""
    pixels, mask = read(place.image, place.window), read(place.mask, place.window)
    image = (pixels - np.float32(MEAN)) / np.float32(STD) * pixels.any(axis=0)
    if place.flipped:
        image, mask = image[..., ::-1], mask[..., ::-1]
    return {
        "image": torch.from_numpy(np.ascontiguousarray(image)),
        "mask": torch.from_numpy(mask.astype(np.float32)),
    }


def read(path: Path, window: tuple[slice, slice] | None = None) -> np.ndarray:
    """The bands of a GeoTIFF, or of a window of it."""
    with rasterio.open(path) as file:
        return file.read(window=None if window is None else Window.from_slices(*window))
