"""Write the files of a simulated archive, each of them atomically."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from jaxtyping import Float, Shaped
from rasterio.transform import from_origin
from shapely.geometry import mapping

from sn6.datasets.declaration import Split
from sn6.datasets.spacenet6 import (
    CRS,
    NODATA,
    PIXEL,
    PRODUCTS,
    geojson_path,
    labels_path,
    orientations_path,
    test_truth_path,
    tile_path,
)
from sn6.files import atomic_write, write_text
from sn6.formats.geotiff import write_geotiff
from sn6.simulation.scene import Scene
from sn6.simulation.strips import PlannedTile
from sn6.simulation.tile import Footprint, cut_footprints, render_products

OPTICAL_PIXEL = 0.49999648 / 0.5  # the published optical pixel over the nominal one
DIGITS = 4  # after the decimal point, of pixels and of metres
COLUMNS = (
    "ImageId",
    "TileBuildingId",
    "PolygonWKT_Pix",
    "Mean_Building_Height",
    "Median_Building_Height",
    "StdDev_Building_Height",
)


def is_complete(root: Path, tiles: Sequence[PlannedTile]) -> bool:
    """Return whether all files of the archive of these tiles exist."""
    splits = {tile.strip.split for tile in tiles}
    tables = {"train": labels_path(root), "test_public": test_truth_path(root)}
    paths = [orientations_path(root), *(tables[split] for split in splits)]
    paths += [geojson_path(root, tile.image_id) for tile in tiles if tile.strip.split == "train"]
    return all(path.exists() for path in paths) and not any(missing_products(root, tile) for tile in tiles)


def missing_products(root: Path, tile: PlannedTile) -> list[str]:
    """Return the products of a tile whose files are missing."""
    split = tile.strip.split
    names = [name for name, product in PRODUCTS.items() if split == "train" or not product.optical]
    return [name for name in names if not tile_path(root, split, name, tile.image_id).exists()]


def write_tile(root: Path, scene: Scene, tile: PlannedTile) -> list[Footprint]:
    """Write the missing images of a tile and return its footprints."""
    split = tile.strip.split
    missing = missing_products(root, tile)
    if missing:
        pixels = render_products(scene, tile)
        for name in missing:
            write_image(tile_path(root, split, name, tile.image_id), name, pixels[name], tile.x, tile.y)
    return cut_footprints(scene, tile)


def write_image(path: Path, product: str, pixels: Shaped[np.ndarray, "bands h w"], x: float, y: float) -> None:
    """Write a GeoTIFF with the upper left corner at (x, y) metres."""
    pixel = PRODUCTS[product].pixel_size * (OPTICAL_PIXEL if PRODUCTS[product].optical else 1.0)
    bands, height, width = pixels.shape
    profile = {
        "width": width,
        "height": height,
        "count": bands,
        "dtype": pixels.dtype,
        "crs": CRS,
        "transform": from_origin(x, y, pixel, pixel),
        "nodata": NODATA,
        "interleave": "band",
        "compress": "deflate",
        "predictor": 3 if pixels.dtype.kind == "f" else 2,
    }
    with write_geotiff(path, **profile) as image:
        image.write(pixels)


def write_labels(root: Path, tiles: Sequence[PlannedTile], labels: Iterable[list[Footprint]]) -> int:
    """Write the labels of the training tiles in both formats, the ground truth of the test tiles, and the orientations.

    Args:
        root: of the archive
        tiles: in the order of the tables
        labels: of each tile; consumed one tile at a time, so that they are not all in memory

    Returns:
        The number of footprints.
    """
    paths: dict[Split, Path] = {"train": labels_path(root), "test_public": test_truth_path(root)}
    total = empty = 0
    with ExitStack() as stack:
        tables = {}
        for split in {tile.strip.split for tile in tiles}:
            part = stack.enter_context(atomic_write(paths[split]))
            file = stack.enter_context(part.open("w", encoding="utf-8", newline=""))
            tables[split] = csv.writer(file, lineterminator="\n")
            tables[split].writerow(COLUMNS)
        for tile, footprints in zip(tiles, labels, strict=True):
            tables[tile.strip.split].writerows(table_rows(tile, footprints))
            total += len(footprints)
            if tile.strip.split == "train":
                empty += not footprints
                # A published tile without buildings has an empty collection or an empty file: alternate.
                text = geojson(tile, footprints) if footprints or empty % 2 else ""
                write_text(geojson_path(root, tile.image_id), text)
    strips = dict.fromkeys(tile.strip for tile in tiles)
    write_text(orientations_path(root), "".join(f"{strip.name} {strip.orientation}\n" for strip in strips))
    return total


def geojson(tile: PlannedTile, footprints: list[Footprint]) -> str:
    """Return the footprints of a tile as GeoJSON in metres."""
    features = [
        {
            "type": "Feature",
            "properties": {"ImageId": tile.image_id, "TileBuildingId": number},
            "geometry": mapping(shapely.transform(footprint.polygon, lambda xy: to_metres(xy, tile))),
        }
        for number, footprint in enumerate(footprints)
    ]
    crs = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:{CRS.replace(':', '::')}"}}
    return json.dumps({"type": "FeatureCollection", "crs": crs, "features": features})


def to_metres(pixels: Float[np.ndarray, "n 2"], tile: PlannedTile) -> Float[np.ndarray, "n 2"]:
    """Convert x and y in pixels of a tile to easting and northing in metres, rounded to DIGITS."""
    return np.round((tile.x, tile.y) + pixels * (PIXEL, -PIXEL), DIGITS)


def table_rows(tile: PlannedTile, footprints: Sequence[Footprint]) -> Iterator[list[Any]]:
    """Yield the rows of a tile in a table of labels; a tile without buildings has one row."""
    for number, footprint in enumerate(footprints):
        polygon = shapely.to_wkt(footprint.polygon, rounding_precision=DIGITS)
        heights = (footprint.height, footprint.height, footprint.deviation)
        known = ["" if isnan(footprint.height) else f"{value:.3f}" for value in heights]
        yield [tile.image_id, number, polygon, *known]
    if not footprints:
        yield [tile.image_id, -1, "POLYGON EMPTY", "", "", ""]
