"""The files of a tile and of an archive, each written whole or not at all."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from jaxtyping import Float, Shaped
from rasterio.transform import from_origin
from shapely.geometry import mapping

from sn6.datasets.layout import (
    CRS,
    NODATA,
    PIXEL,
    PRODUCTS,
    Split,
    geojson_path,
    labels_path,
    orientations_path,
    test_truth_path,
    tile_path,
)
from sn6.files import atomic_write, write_text
from sn6.simulation.scene import Scene
from sn6.simulation.strips import Tile
from sn6.simulation.tile import Footprint, footprints, images

OPTICAL_PIXEL = 0.49999648 / 0.5  # the published optical pixel over the nominal one
DIGITS = 4  # after the point, of pixels and of metres
COLUMNS = (
    "ImageId",
    "TileBuildingId",
    "PolygonWKT_Pix",
    "Mean_Building_Height",
    "Median_Building_Height",
    "StdDev_Building_Height",
)


def is_whole(root: Path, tiles: Sequence[Tile]) -> bool:
    """Whether every file of the archive of these tiles is there."""
    splits = {tile.strip.split for tile in tiles}
    tables = {"train": labels_path(root), "test_public": test_truth_path(root)}
    texts = [orientations_path(root), *(tables[split] for split in splits)]
    texts += [geojson_path(root, tile.image_id) for tile in tiles if tile.strip.split == "train"]
    return all(path.exists() for path in texts) and not any(missing_images(root, tile) for tile in tiles)


def missing_images(root: Path, tile: Tile) -> list[str]:
    """The products of a tile that are not there."""
    split = tile.strip.split
    names = [name for name, product in PRODUCTS.items() if split == "train" or not product.optical]
    return [name for name in names if not tile_path(root, split, name, tile.image_id).exists()]


def write_tile(root: Path, scene: Scene, tile: Tile) -> list[Footprint]:
    """Writes the images of a tile that are not there yet; gives its footprints."""
    split = tile.strip.split
    missing = missing_images(root, tile)
    if missing:
        pixels = images(scene, tile)
        for name in missing:
            write_image(tile_path(root, split, name, tile.image_id), name, pixels[name], tile.x, tile.y)
    return footprints(scene, tile)


def write_image(path: Path, product: str, pixels: Shaped[np.ndarray, "bands h w"], x: float, y: float) -> None:
    """A GeoTIFF with the upper left corner at (x, y) metres."""
    pixel = PRODUCTS[product].pixel * (OPTICAL_PIXEL if PRODUCTS[product].optical else 1.0)
    bands, height, width = pixels.shape
    profile = {
        "driver": "GTiff",
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
    with atomic_write(path) as part, rasterio.open(part, "w", **profile) as image:
        image.write(pixels)


def write_labels(root: Path, tiles: Sequence[Tile], labels: Iterable[list[Footprint]]) -> int:
    """The labels of the training tiles in both forms, the test tiles' truth, and the orientations of all strips.

    They are written tile by tile as they come.

    Returns:
        How many footprints there are.
    """
    paths: dict[Split, Path] = {"train": labels_path(root), "test_public": test_truth_path(root)}
    footprints = empty = 0
    with ExitStack() as stack:
        tables = {}
        for split in {tile.strip.split for tile in tiles}:
            part = stack.enter_context(atomic_write(paths[split]))
            file = stack.enter_context(part.open("w", encoding="utf-8", newline=""))
            tables[split] = csv.writer(file, lineterminator="\n")
            tables[split].writerow(COLUMNS)
        for tile, found in zip(tiles, labels, strict=True):
            tables[tile.strip.split].writerows(rows_of(tile, found))
            footprints += len(found)
            if tile.strip.split == "train":
                empty += not found
                # One without buildings is an empty collection or an empty file as published: here by turns.
                text = geojson(tile, found) if found or empty % 2 else ""
                write_text(geojson_path(root, tile.image_id), text)
    strips = dict.fromkeys(tile.strip for tile in tiles)
    write_text(orientations_path(root), "".join(f"{strip.name} {strip.orientation}\n" for strip in strips))
    return footprints


def geojson(tile: Tile, labels: list[Footprint]) -> str:
    """The footprints of a tile in metres, as the text of a file."""
    features = [
        {
            "type": "Feature",
            "properties": {"ImageId": tile.image_id, "TileBuildingId": number},
            "geometry": mapping(shapely.transform(label.polygon, lambda xy: in_metres(xy, tile))),
        }
        for number, label in enumerate(labels)
    ]
    crs = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:{CRS.replace(':', '::')}"}}
    return json.dumps({"type": "FeatureCollection", "crs": crs, "features": features})


def in_metres(pixels: Float[np.ndarray, "n 2"], tile: Tile) -> Float[np.ndarray, "n 2"]:
    """Coordinates on the ground of coordinates in a tile."""
    return np.round((tile.x, tile.y) + pixels * (PIXEL, -PIXEL), DIGITS)


def rows_of(tile: Tile, labels: Sequence[Footprint]) -> Iterator[list[Any]]:
    """The rows of a tile in a table of labels; one without buildings has one row."""
    for number, label in enumerate(labels):
        polygon = shapely.to_wkt(label.polygon, rounding_precision=DIGITS)
        heights = (label.height, label.height, label.deviation)
        known = ["" if isnan(label.height) else f"{value:.3f}" for value in heights]
        yield [tile.image_id, number, polygon, *known]
    if not labels:
        yield [tile.image_id, -1, "POLYGON EMPTY", "", "", ""]
