"""Write the probability of building as a GeoTIFF with the grid of its image."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from rasterio.transform import from_origin

from sn6.footprints.blocks import Read
from sn6.formats.geotiff import write_geotiff
from sn6.prediction.images import Image

STEPS, NODATA = 254, 255  # a stored 254 is probability 1; the file's scale tells readers to divide
BLOCK = 256  # pixels
CHUNK = 1024  # rows and columns in memory at a time, a multiple of BLOCK


def write_probability(path: Path, image: Image, read: Read) -> None:
    """Write probabilities in steps of 1/254 as bytes, in the image's own frame, tiled and compressed; 255 is nodata.

    Args:
        path: file to write
        image: image whose grid the file gets
        read: function that returns the maps of a rectangle of the image in the frame of the network
    """
    profile = {
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
    with write_geotiff(path, crs=image.crs, **profile) as raster:
        raster.dataset.scales, raster.dataset.descriptions = (1 / STEPS,), ("probability of building",)
        for top in range(0, image.height, CHUNK):
            for left in range(0, image.width, CHUNK):
                rows = slice(top, min(top + CHUNK, image.height))
                columns = slice(left, min(left + CHUNK, image.width))
                raster.write(quantised_probabilities(image, read, rows, columns)[None], top, left)


def quantised_probabilities(image: Image, read: Read, rows: slice, columns: slice) -> UInt8[np.ndarray, "h w"]:
    """Return the bytes of a rectangle in the image's own frame."""
    maps, valid = read(*image.to_file(rows, columns))
    stored = np.where(valid, np.rint(maps["mask"][0] * STEPS), NODATA).astype(np.uint8)
    return stored[::-1, ::-1] if image.rotated else stored
