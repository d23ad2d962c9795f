"""The probability of building as a GeoTIFF that lies on the ground where its image does."""

from pathlib import Path

import numpy as np
from rasterio.transform import from_origin
from rasterio.windows import Window
from scipy.special import expit

from sn6.files import atomic_write
from sn6.prediction.images import Image, opened
from sn6.prediction.mosaic import Mosaic

STEPS, NODATA = 254, 255  # a stored 254 is certain; the file's scale tells readers to divide
BLOCK = 256  # pixels
STRIP = 1024  # rows and columns that are held at a time, a multiple of BLOCK


def write_probability(path: Path, image: Image, mosaic: Mosaic) -> None:
    """Writes probabilities in steps of 1/254 as bytes, tiled and compressed, in the image's own frame; 255 is nodata.

    Args:
        path: the file
        image: for its place
        mosaic: of its logits, in the frame of the network
    """
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "height": image.height,
        "width": image.width,
        "nodata": NODATA,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "BIGTIFF": "IF_SAFER",
    }
    if image.pixel != 1 or image.corner != (0, 0):
        profile["transform"] = from_origin(*image.corner, image.pixel, image.pixel)
    with atomic_write(path) as part, opened(part, "w", crs=image.crs, **profile) as file:
        file.scales, file.descriptions = (1 / STEPS,), ("probability of building",)
        for top in range(0, image.height, STRIP):
            for left in range(0, image.width, STRIP):
                rows = slice(top, min(top + STRIP, image.height))
                columns = slice(left, min(left + STRIP, image.width))
                file.write(probabilities(image, mosaic, rows, columns), 1, window=Window.from_slices(rows, columns))


def probabilities(image: Image, mosaic: Mosaic, rows: slice, columns: slice) -> np.ndarray:
    """Bytes (h, w) of a rectangle in the image's own frame."""
    if image.turned:
        rows = slice(image.height - rows.stop, image.height - rows.start)
        columns = slice(image.width - columns.stop, image.width - columns.start)
    logits = mosaic.read(rows, columns)
    stored = np.where(np.isnan(logits), NODATA, np.rint(expit(logits) * STEPS)).astype(np.uint8)
    return stored[::-1, ::-1] if image.turned else stored
