"""Folders of images of a made-up town, with its buildings in a GeoPackage: data of a user's own."""

from pathlib import Path

import geopandas
import numpy as np
import rasterio
import shapely
from rasterio.features import rasterize
from rasterio.transform import from_origin

WEST, NORTH = 390_000.0, 5_820_000.0
SIZE = 96  # pixels of an image
BRIGHT = 10.0  # dB of buildings above the ground


def write_town(
    folder: Path,
    crs: str = "EPSG:25833",
    images: int = 10,
    bands: int = 1,
    pixel_size: float = 0.5,
    level: float = 20.0,
    origin: tuple[float, float] = (WEST, NORTH),
) -> Path:
    """Write `images/NAME_<number>.tif` from west to east, decibels in float32, and `buildings.gpkg`.

    Args:
        folder: of the town, whose name is that of its images
        crs: in metres
        images: how many, of SIZE² pixels
        bands: with equal means
        pixel_size: m
        level: dB of the ground, with speckle of 2 dB
        origin: west and north edge
    """
    west, north = origin
    edge, rng = SIZE * pixel_size, np.random.default_rng(0)
    corners = [
        (west + x, north - y) for x in np.arange(6, images * edge, edge / 2) for y in np.arange(6, edge, edge / 2)
    ]
    houses = [shapely.box(x, y - edge / 4, x + edge / 4, y) for x, y in corners]
    (folder / "images").mkdir(parents=True)
    geopandas.GeoDataFrame({"number": range(len(houses))}, geometry=houses, crs=crs).to_file(folder / "buildings.gpkg")
    profile = {"driver": "GTiff", "count": bands, "height": SIZE, "width": SIZE, "dtype": "float32", "crs": crs}
    for number in range(images):
        grid = from_origin(west + number * edge, north, pixel_size, pixel_size)
        building = rasterize([(house, 1) for house in houses], (SIZE, SIZE), transform=grid)
        pixels = level + BRIGHT * building + rng.normal(0, 2, (bands, SIZE, SIZE))
        path = folder / "images" / f"{folder.name}_{number}.tif"
        with rasterio.open(path, "w", transform=grid, **profile) as file:
            file.write(pixels.astype(np.float32))
    return folder
