"""A small world with buildings of two classes, for the tests of classes."""

from itertools import product

import geopandas
import numpy as np
import rasterio
import shapely
from rasterio.transform import from_origin
from shapely import box

from sn6.datasets.folder import Folder
from sn6.targets.classes import Classes

WEST, NORTH, PIXEL = 390_000.0, 5_820_000.0, 0.5
NAMES = ("house", "shed")


def write_labels(path, rows, crs="EPSG:25833"):
    """Write buildings: (polygon in m from the corner of the world, x to the east and y to the south, class)."""
    polygons = [shapely.transform(polygon, lambda xy: xy * (1, -1) + (WEST, NORTH)) for polygon, _ in rows]
    frame = geopandas.GeoDataFrame({"kind": [kind for _, kind in rows]}, geometry=polygons, crs=crs)
    frame.to_crs(4326).to_file(path)
    return path


def make_world(folder):
    """Make two images of 64 m beside each other: houses bright, sheds less so, all others dark."""
    rows = [(box(x, y, x + 10, y + 8), "house") for x, y in product((6, 40, 70, 104), (5, 36))]
    rows += [(box(x, y, x + 6, y + 6), "shed") for x, y in product((24, 88), (20, 50))]
    rows += [(box(50, 54, 56, 60), "garage"), (box(4, 54, 10, 60), None)]
    write_labels(folder / "b.gpkg", rows)
    rng = np.random.default_rng(0)
    (folder / "im").mkdir()
    for k in range(2):
        values = rng.integers(1, 40, (1, 128, 128)).astype(np.uint16)
        x, y = np.meshgrid(64 * k + (np.arange(128) + 0.5) * PIXEL, (np.arange(128) + 0.5) * PIXEL)
        for polygon, kind in rows:
            if kind in NAMES:
                values[0][shapely.contains_xy(polygon, x, y)] = 2000 if kind == "house" else 300
        profile = {"driver": "GTiff", "height": 128, "width": 128, "count": 1, "dtype": "uint16", "crs": "EPSG:25833"}
        corner = from_origin(WEST + 64 * k, NORTH, PIXEL, PIXEL)
        with rasterio.open(folder / "im" / f"{'ab'[k]}.tif", "w", transform=corner, **profile) as file:
            file.write(values)
    return folder


def folder_of(world, **more):
    options = {"category": "kind", "classes": list(NAMES), "units": "dn"} | more
    return Folder(images=str(world / "im"), labels=str(world / "b.gpkg"), **options)


def data_of(world, **more):
    """Make the datamodule of the world in tiles of 32 m, with decibels as they are."""
    from sn6.data.datamodule import TileDataModule

    options = {"mean": [0.0], "std": [1.0], "crop": 32, "orient": False, "partition": "blocks", "fold": 0}
    targets = {"classes": Classes(NAMES)}
    return TileDataModule(folder_of(world, tile_size=64), num_workers=0, targets=targets, **options | more)
