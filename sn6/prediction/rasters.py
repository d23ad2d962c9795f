"""Write probabilities with the grid of their image, and the number of looks, as Cloud Optimized GeoTIFFs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import UInt8
from rasterio.enums import Resampling
from rasterio.transform import from_origin

from sn6.errors import UserError
from sn6.footprints.blocks import Read
from sn6.formats.geotiff import BLOCK, write_geotiff
from sn6.heads import CLASSES, MASK, Heads
from sn6.prediction.fused_map import FusedMaps
from sn6.prediction.images import Image
from sn6.prediction.map_grid import MapGrid, intersection, relative

STEPS, NODATA = 254, 255  # a stored 254 is probability 1; the file's scale tells readers to divide
CHUNK = 1024  # rows and columns in memory at a time, a multiple of BLOCK
BandNames: TypeAlias = Mapping[str, tuple[str, ...]]  # name of the map → descriptions of its bands


def write_probability(path: Path, image: Image, read: Read, names: BandNames) -> None:
    """Write probabilities in steps of 1/254 as bytes, in the image's own frame, as Cloud Optimized GeoTIFF.

    255 is nodata, and the scale of each band tells readers to show 0 to 1.

    Args:
        path: file to write
        image: image whose grid the file gets
        read: function that returns the maps of a rectangle of the image in the frame of the network
        names: see `band_names`
    """
    bands = [name for of_map in names.values() for name in of_map]
    profile = profile_of("uint8", image.height, image.width) | {"nodata": NODATA, "count": len(bands)}
    if image.pixel != 1 or image.corner != (0, 0):
        profile["transform"] = from_origin(*image.corner, image.pixel, image.pixel)
    with write_geotiff(path, Resampling.average, crs=image.crs, **profile) as raster:
        raster.dataset.scales, raster.dataset.descriptions = (1 / STEPS,) * len(bands), tuple(bands)
        for top in range(0, image.height, CHUNK):
            for left in range(0, image.width, CHUNK):
                rows = slice(top, min(top + CHUNK, image.height))
                columns = slice(left, min(left + CHUNK, image.width))
                raster.write(quantised_probabilities(image, read, rows, columns, list(names)), top, left)


def band_names(heads: Heads, maps: Sequence[str]) -> BandNames:
    """Return the names of the bands of each map: the map's, or those of the classes.

    Args:
        heads: of the network
        maps: names of heads, or `mask`, the probability of building

    Raises:
        UserError: there is no such map, or its values are no probabilities
    """
    available = [MASK, *(name for name, head in heads.items() if name != MASK and head.activation != "linear")]
    for name in maps:
        if name not in available:
            raise UserError(
                f"unknown map {name!r} of probability=; maps of this checkpoint with values from 0 to 1: "
                f"{', '.join(available)}",
                kind="unknown_value",
                key="probability",
                value=name,
            )
    return {name: bands_of_map(heads, name) for name in maps}


def bands_of_map(heads: Heads, name: str) -> tuple[str, ...]:
    """Return the names of the bands of a map."""
    if name == MASK:
        return ("probability of building",)
    if name == CLASSES:
        return ("background", *heads.class_names)
    count = heads[name].outputs
    return (name,) if count == 1 else tuple(f"{name} {number}" for number in range(1, count + 1))


def write_looks_of_map(path: Path, maps: FusedMaps, number: int, grid: MapGrid) -> None:
    """Write the number of looks at each pixel of a map as Cloud Optimized GeoTIFF; 0 is no look.

    Args:
        path: file to write
        maps: whose blocks are all fused
        number: of the map
        grid: of the map
    """
    profile = profile_of("uint16", grid.height, grid.width) | {"nodata": 0}
    profile["transform"] = from_origin(*grid.corner, grid.pixel, grid.pixel)
    with write_geotiff(path, Resampling.nearest, crs=grid.crs, **profile) as raster:
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


def quantised_probabilities(
    image: Image, read: Read, rows: slice, columns: slice, names: Sequence[str]
) -> UInt8[np.ndarray, "k h w"]:
    """Return the bytes of a rectangle of the maps of these names in the image's own frame."""
    maps, valid = read(*image.to_file(rows, columns))
    values = np.concatenate([maps[name] for name in names])
    stored = np.where(valid, np.rint(values * STEPS), NODATA).astype(np.uint8)
    return np.ascontiguousarray(stored[:, ::-1, ::-1]) if image.rotated else stored
