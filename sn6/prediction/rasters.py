"""Write the probability of building with the grid of its image, and the number of looks, as GeoTIFFs."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from rasterio.transform import from_origin

from sn6.footprints.blocks import Read
from sn6.formats.geotiff import write_geotiff
from sn6.prediction.fused_map import FusedMaps
from sn6.prediction.images import Image
from sn6.prediction.map_grid import MapGrid, intersection, relative

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
    profile = profile_of("uint8", image.height, image.width) | {"nodata": NODATA}
    if image.pixel != 1 or image.corner != (0, 0):
        profile["transform"] = from_origin(*image.corner, image.pixel, image.pixel)
    with write_geotiff(path, crs=image.crs, **profile) as raster:
        raster.dataset.scales, raster.dataset.descriptions = (1 / STEPS,), ("probability of building",)
        for top in range(0, image.height, CHUNK):
            for left in range(0, image.width, CHUNK):
                rows = slice(top, min(top + CHUNK, image.height))
                columns = slice(left, min(left + CHUNK, image.width))
                raster.write(quantised_probabilities(image, read, rows, columns)[None], top, left)


def write_looks_of_map(path: Path, maps: FusedMaps, number: int, grid: MapGrid) -> None:
    """Write the number of looks at each pixel of a map, tiled and compressed; 0 is no look.

    Args:
        path: file to write
        maps: whose blocks are all fused
        number: of the map
        grid: of the map
    """
    profile = profile_of("uint16", grid.height, grid.width) | {"nodata": 0}
    profile["transform"] = from_origin(*grid.corner, grid.pixel, grid.pixel)
    with write_geotiff(path, crs=grid.crs, **profile) as raster:
        raster.dataset.descriptions = ("number of looks",)
        for block in maps.layout.blocks:
            if block.map != number:
                continue
            rows, columns = intersection(block.rectangle, (slice(0, grid.height), slice(0, grid.width)))
            looks = np.load(maps.path(block), mmap_mode="r")[-1:, *relative((rows, columns), block.rectangle)]
            raster.write(looks.astype(np.uint16), rows.start, columns.start)


def profile_of(dtype: str, height: int, width: int) -> dict[str, Any]:
    """Return what all rasters of a prediction have in common."""
    return {
        "dtype": dtype,
        "count": 1,
        "height": height,
        "width": width,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "BIGTIFF": "IF_SAFER",
    }


def quantised_probabilities(image: Image, read: Read, rows: slice, columns: slice) -> UInt8[np.ndarray, "h w"]:
    """Return the bytes of a rectangle in the image's own frame."""
    maps, valid = read(*image.to_file(rows, columns))
    stored = np.where(valid, np.rint(maps["mask"][0] * STEPS), NODATA).astype(np.uint8)
    return stored[::-1, ::-1] if image.rotated else stored
