"""Ground with buildings as other radars and cameras see it: images and labels without a name of SpaceNet 6."""

from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import shapely
import yaml
from rasterio.features import rasterize
from rasterio.transform import from_origin


@dataclass(frozen=True)
class World:
    """A world on disk.

    Attributes:
        keys: that name it in every command, without `data.`
        buildings: in `crs`
        crs: of the images
        pixel_size: m
        area: where its labels are complete; None for all of the images
    """

    keys: dict[str, str]
    buildings: geopandas.GeoDataFrame
    crs: str
    pixel_size: float
    area: shapely.Geometry | None = None

    def of_run(self) -> list[str]:
        """Return the overrides of a run on it."""
        return ["data=folder", *(f"data.{key}={value}" for key, value in self.keys.items())]

    def arguments(self) -> dict[str, object]:
        """Return the keys as Python values."""
        return {key: yaml.safe_load(value) for key, value in self.keys.items()}

    def of_command(self) -> list[str]:
        """Return the keys of the other commands."""
        return [f"{key}={value}" for key, value in self.keys.items()]


def street(west, north, width, height, size, gap, crs, seed=0):
    """Return houses of `size` m on a jittered grid over a rectangle, with height and type, clear of its edges."""
    rng = np.random.default_rng(seed)
    corners = [
        (west + x + rng.uniform(0, gap / 3), north - y - rng.uniform(0, gap / 3))
        for y in np.arange(gap, height - size - gap, size + gap)
        for x in np.arange(gap, width - size - gap, size + gap)
    ]
    houses = [shapely.box(x, y - 0.8 * size, x + size, y) for x, y in corners]
    kinds = np.array(["house", "shed", "hall"])[np.arange(len(houses)) % 3]
    heights = rng.uniform(3, 20, len(houses)).round(1)
    return geopandas.GeoDataFrame({"kind": kinds, "height": heights}, geometry=houses, crs=crs)


def radar_image(buildings, west, north, pixel_size, rows, columns, bands, seed):
    """Return speckled backscatter in dB (bands, rows, columns): buildings are 14 dB brighter than the ground."""
    rng = np.random.default_rng(seed)
    transform = from_origin(west, north, pixel_size, pixel_size)
    shapes = list(buildings.geometry)
    mask = rasterize(shapes, (rows, columns), transform=transform, dtype=np.uint8) if shapes else 0
    noise = 10 * np.log10(rng.gamma(8, 1 / 8, (bands, rows, columns)))
    return (-15 + 14.0 * mask + noise - 2 * np.arange(bands)[:, None, None]).astype(np.float32)


def write_image(path, pixels, crs, west, north, pixel_size, nodata=None, names=None):
    """Write a GeoTIFF (bands, rows, columns) in blocks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.dtype, "crs": crs}
    transform = from_origin(west, north, pixel_size, pixel_size)
    blocks = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "lzw"}
    with rasterio.open(path, "w", **profile, **blocks, transform=transform, nodata=nodata) as file:
        file.write(pixels)
        if names:
            file.descriptions = names


def amplitude_world(folder: Path) -> World:
    """One band of uint16 amplitude at 0.35 m in EPSG:25833, in subfolders, with a GeoPackage in degrees."""
    crs, pixel, west, north = "EPSG:25833", 0.35, 390_000.0, 5_820_000.0
    size = 300
    buildings = street(west, north, 3 * size * pixel, 2 * size * pixel, size=14, gap=9, crs=crs)
    for row in range(2):
        for column in range(3):
            corner = west + column * size * pixel, north - row * size * pixel
            decibels = radar_image(buildings, *corner, pixel, size, size, bands=1, seed=3 * row + column)
            amplitude = np.clip(1000 * 10 ** (decibels / 20), 1, 65535).astype(np.uint16)
            write_image(folder / f"scenes/pass{row}/cut {column}.tif", amplitude, crs, *corner, pixel)
    buildings.to_crs("EPSG:4326").to_file(folder / "houses.gpkg")
    keys = {"images": str(folder / "scenes"), "labels": str(folder / "houses.gpkg"), "units": "amplitude"}
    return World(keys | {"scale": "0.001", "height": "height"}, buildings, crs, pixel)


def power_world(folder: Path) -> World:
    """VV and VH in linear power at 10 m in EPSG:32632, with a Shapefile of large buildings."""
    crs, pixel, west, north = "EPSG:32632", 10.0, 600_000.0, 5_700_000.0
    size = 128
    buildings = street(west, north, 3 * size * pixel, 2 * size * pixel, size=150, gap=80, crs=crs)
    for row in range(2):
        for column in range(3):
            corner = west + column * size * pixel, north - row * size * pixel
            decibels = radar_image(buildings, *corner, pixel, size, size, bands=2, seed=row + 2 * column)
            power = (10 ** (decibels / 10)).astype(np.float32)
            write_image(folder / f"s1_{row}_{column}.tiff", power, crs, *corner, pixel, names=("VV", "VH"))
    buildings.to_file(folder / "large.shp")
    keys = {"images": str(folder / "*.tiff"), "labels": str(folder / "large.shp"), "units": "power"}
    return World(keys, buildings, crs, pixel)


def decibel_world(folder: Path, rows: int = 4000, columns: int = 6000) -> World:
    """Four bands in dB: two small images in folders, and a large one; GeoParquet of three classes, and an area.

    The area is a part of the large image, and the labels outside of it are missing.
    """
    crs, pixel, west, north = "EPSG:32631", 0.5, 590_000.0, 5_750_000.0
    bands = ("HH", "HV", "VH", "VV")
    area = shapely.box(west + 100, north - 700, west + 1100, north - 100)
    buildings = street(west, north, columns * pixel, rows * pixel, size=22, gap=16, crs=crs)
    corners = {
        "north/a.tif": (west, north + 200, 256, 400),
        "south/b.tif": (west + 400, north + 200, 256, 400),
        "large/c.tif": (west, north, rows, columns),
    }
    others = [
        street(x, y, w * pixel, h * pixel, size=22, gap=16, crs=crs, seed=1)
        for x, y, h, w in list(corners.values())[:2]
    ]
    everything = geopandas.GeoDataFrame(
        geopandas.pd.concat([buildings[buildings.intersects(area)], *others], ignore_index=True), crs=crs
    )
    seen = geopandas.GeoDataFrame(geopandas.pd.concat([buildings, *others], ignore_index=True), crs=crs)
    for seed, (name, (x, y, height, width)) in enumerate(corners.items()):
        near = seen[seen.intersects(shapely.box(x, y - height * pixel, x + width * pixel, y))]
        pixels = radar_image(near, x, y, pixel, height, width, bands=4, seed=seed).round(1)
        write_image(folder / name, pixels, crs, x, y, pixel, names=bands)
    everything.to_parquet(folder / "buildings.parquet")
    boxes = [area, *(shapely.box(x, y - h * pixel, x + w * pixel, y) for x, y, h, w in list(corners.values())[:2])]
    geopandas.GeoDataFrame({"name": ["a", "b", "c"]}, geometry=boxes, crs=crs).to_crs("EPSG:3857").to_file(
        folder / "done.gpkg"
    )
    images = f"[{folder / 'north'},{folder / 'south'},{folder / 'large'}]"
    keys = {"images": images, "labels": str(folder / "buildings.parquet"), "area": str(folder / "done.gpkg")}
    keys |= {"category": "kind", "classes": "[house,shed,hall]"}
    return World(keys, everything, crs, pixel, shapely.union_all(boxes))


def small_decibel_world(folder: Path) -> World:
    """The same with a large image of 1000 × 1500 pixels."""
    return decibel_world(folder, rows=1000, columns=1500)


def optical_world(folder: Path) -> World:
    """Three-band RGB of uint8 at 0.5 m in EPSG:32633, with a GeoJSON for each image."""
    crs, pixel, west, north = "EPSG:32633", 0.5, 500_000.0, 5_400_000.0
    size, parts = 200, []
    for column in range(5):
        corner = west + column * size * pixel, north
        houses = street(*corner, size * pixel, size * pixel, size=14, gap=9, crs=crs, seed=column)
        decibels = radar_image(houses, *corner, pixel, size, size, bands=3, seed=column)
        counts = np.clip(150 + 5 * decibels, 1, 255).astype(np.uint8)
        write_image(folder / f"photos/p{column}.tif", counts, crs, *corner, pixel)
        (folder / "outlines").mkdir(exist_ok=True)
        houses.to_crs("EPSG:4326").to_file(folder / f"outlines/p{column}.geojson")
        parts.append(houses)
    keys = {"images": str(folder / "photos"), "labels": str(folder / "outlines"), "sensor": "optical"}
    everything = geopandas.GeoDataFrame(geopandas.pd.concat(parts, ignore_index=True), crs=crs)
    return World(keys, everything, crs, pixel)
