"""Index of a folder of many GeoTIFFs: against a loop over rasterio.open, the first time and again."""

import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rasterio
from rasterio.transform import from_origin

from benchmarks.comparison import Row, medians, require
from sn6.datasets.cache import cache_path
from sn6.datasets.folder import PRODUCT, Folder
from sn6.datasets.spacenet6 import CRS, PIXEL

FILES = 10_000
FIRST_LIMIT, AGAIN_LIMIT = 10.0, 0.5  # s
SIZE = 16  # pixels
WEST, NORTH = 591550.0, 5750000.0
PEER = "a loop over rasterio.open"
Bounds = tuple[float, float, float, float]  # west, south, east, north


def rows(files: int = FILES, repeats: int = 3) -> Iterator[Row]:
    """Yield a row for the first index of a folder of `files` images, and one for the index from the cache."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, files)
        inputs = f"{files} GeoTIFFs"
        first, again, theirs = (partial(run, folder) for run in (first_index, index, open_all))
        plain = theirs()
        for run in (first, again):
            require(run() == plain, f"index of {inputs}: the bounds of sn6 and {PEER} differ")
        agreement = "bounds of each equal"
        limits = (FIRST_LIMIT, AGAIN_LIMIT) if files == FILES else (None, None)
        seconds = medians({"first": first, "again": again, "theirs": theirs}, repeats)
        path = "index of a folder"
        yield Row(path, inputs, seconds["first"], PEER, seconds["theirs"], agreement, max_ours=limits[0])
        yield Row(f"{path}, again", inputs, seconds["again"], PEER, seconds["theirs"], agreement, max_ours=limits[1])


def write_images(folder: Path, files: int) -> None:
    """Write images side by side: copies of one file, with places of their own in its tag ModelTiepoint."""
    template = folder / "template"
    grid = {"height": SIZE, "width": SIZE, "transform": from_origin(WEST, NORTH, PIXEL, PIXEL), "crs": CRS}
    with rasterio.open(template, "w", driver="GTiff", dtype="float32", count=1, nodata=0, **grid) as file:
        file.write(np.ones((1, SIZE, SIZE), dtype=np.float32))
    data, place = template.read_bytes(), struct.pack("<2d", WEST, NORTH)
    require(data.count(place) == 1, "index of a folder: the file of an image does not have its place once")
    template.unlink()
    for number in range(files):
        row, column = divmod(number, 100)
        moved = struct.pack("<2d", WEST + SIZE * PIXEL * column, NORTH - SIZE * PIXEL * row)
        (folder / f"image_{number:06}.tif").write_bytes(data.replace(place, moved))


def index(folder: Path) -> dict[str, Bounds]:
    """Read the index with sn6, from its cache if there is one: the bounds of each image."""
    data_set = Folder(images=str(folder))
    return {data_set.image_path(tile, PRODUCT).stem: tile.bounds for tile in data_set.tiles("train", PRODUCT)}


def first_index(folder: Path) -> dict[str, Bounds]:
    """Read the index of a folder without a cache."""
    cache_path(folder, "images.json").unlink(missing_ok=True)
    return index(folder)


def open_all(folder: Path) -> dict[str, Bounds]:
    """Open the files one by one; refuse those of another size of pixels or without a CRS in metres."""
    bounds = {}
    for path in sorted(folder.glob("*.tif")):
        with rasterio.open(path) as file:
            if file.crs is None or file.crs.linear_units != "metre" or file.res != (PIXEL, PIXEL):
                raise ValueError(f"{path} is not on a grid of {PIXEL} m")
            bounds[path.stem] = tuple(file.bounds)
    return bounds
