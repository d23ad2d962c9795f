"""Write GeoTIFFs that are complete or do not exist.

GDAL writes the last blocks and the directory of a file when it is closed, and rasterio ignores an error of that: a full
disk leaves a file that is cut, or whose missing blocks are read as nodata. So what was written is read again.
"""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import rasterio
from jaxtyping import Shaped
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.shutil import copy
from rasterio.windows import Window

from sn6.errors import UserError
from sn6.files import atomic_write

TAGS = ("crs", "transform", "nodata", "scales", "descriptions")  # of a dataset, besides its pixels
STDERR = 2  # file descriptor
BLOCK = 256  # pixels, edge length of the blocks of a Cloud Optimized GeoTIFF


class GeoTIFFWriter:
    """Write the pixels of a GeoTIFF by rectangles, each pixel once, and remember their checksums.

    Args:
        dataset: of rasterio, open for writing
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.written: list[tuple[Window, int]] = []

    def write(self, pixels: Shaped[np.ndarray, "bands h w"], row: int = 0, column: int = 0) -> None:
        """Write all bands of a rectangle whose upper left pixel is at `row` and `column`."""
        window = Window(column, row, pixels.shape[2], pixels.shape[1])
        with silent_libtiff():
            self.dataset.write(pixels, window=window)
        self.written.append((window, crc32(pixels.tobytes())))

    def close(self) -> list[Any]:
        """Close the file and return the values of TAGS that it should have."""
        tags = [getattr(self.dataset, name) for name in TAGS]
        with silent_libtiff():
            self.dataset.close()
        return tags


@contextmanager
def write_geotiff(path: Path, overviews: Resampling | None = None, **profile: Any) -> Iterator[GeoTIFFWriter]:
    """Yield the writer of a new GeoTIFF, which replaces `path` when the block succeeds and the file is complete.

    Args:
        path: file to write
        overviews: resampling of the overviews of a Cloud Optimized GeoTIFF; None for a GeoTIFF without any
        profile: of rasterio's dataset

    Raises:
        UserError: the disk is full, or the file cannot be written
    """
    with atomic_write(path) as part, ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        plain = part
        if overviews is not None:
            plain = part.with_name(f"{part.stem}.plain.tif")
            stack.callback(plain.unlink, missing_ok=True)
        is_complete = False
        with suppress(RasterioError):  # whose message does not tell the reason
            with silent_libtiff():
                writer = GeoTIFFWriter(rasterio.open(plain, "w", driver="GTiff", **profile))
            try:
                yield writer
            finally:
                tags = writer.close()
            if overviews is not None:
                copy_cloud_optimized(plain, part, overviews)
            is_complete = reads_as_written(part, writer, tags)
        if not is_complete:
            raise UserError(
                f"cannot write {path}, most likely because the disk is full; free some space and run the same command "
                "again",
                kind="unwritable",
                key=path,
            )


def copy_cloud_optimized(source: Path, path: Path, overviews: Resampling) -> None:
    """Write the Cloud Optimized GeoTIFF of a GeoTIFF, with overviews until one block has all."""
    options = {"compress": "deflate", "predictor": "yes", "bigtiff": "if_safer", "blocksize": BLOCK}
    with silent_libtiff():
        copy(source, path, driver="COG", overview_resampling=overviews.name.upper(), **options)


def reads_as_written(path: Path, writer: GeoTIFFWriter, tags: list[Any]) -> bool:
    """Return whether a closed file has the pixels that were written, and these values of TAGS."""
    with rasterio.open(path) as dataset:
        return [getattr(dataset, name) for name in TAGS] == tags and all(
            crc32(dataset.read(window=window).tobytes()) == checksum for window, checksum in writer.written
        )


@contextmanager
def silent_libtiff() -> Iterator[None]:
    """Discard what is written to stderr: libtiff prints a line there for each block that it cannot write."""
    if sys.stderr is None:  # it was closed before the start, and its number may be that of another file
        yield
        return
    saved, null = os.dup(STDERR), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, STDERR)
        yield
    finally:
        os.dup2(saved, STDERR)
        os.close(saved)
        os.close(null)
