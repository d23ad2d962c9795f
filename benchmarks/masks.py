"""GeoJSON of a tile to the mask of its buildings: against geopandas with rasterio."""

import json
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rasterio
import shapely
from rasterio import features
from rasterio.transform import from_origin
from shapely.affinity import affine_transform

from benchmarks.comparison import NotRun, Row, medians, require
from benchmarks.street_map import SIZE, street_map
from sn6.datasets.spacenet6 import CRS, PIXEL
from sn6.footprints.ground import to_ground
from sn6.formats.geojson import read_geojson_labels
from sn6.targets.rasterize import rasterize_instances

CORNER = (591550.0, 5750000.0)


def rows(buildings: int = 60, repeats: int = 25) -> Iterator[Row | NotRun]:
    """Yield a row for each peer, on one tile."""
    path = "GeoJSON and tile → mask"
    if find_spec("geopandas") is None:
        yield NotRun(path, "geopandas is not installed")
        return
    with TemporaryDirectory() as folder:
        labels, image = Path(folder) / "labels.geojson", Path(folder) / "tile.tif"
        write_tile(labels, image, street_map(np.random.default_rng(0), buildings))
        ours = partial(sn6_mask, labels, image)
        peers = {"geopandas and rasterio, in metres": frame_mask, "the same, to pixels row by row": row_mask}
        for peer, mask in peers.items():
            theirs = partial(mask, labels, image)
            different = (ours() != theirs()).sum()
            require(different == 0, f"{path}: sn6 and {peer} differ at {different} pixels")
            seconds = medians({"ours": ours, "theirs": theirs}, repeats)
            inputs = f"{SIZE}×{SIZE}, {buildings} buildings"
            yield Row(path, inputs, seconds["ours"], peer, seconds["theirs"], "every pixel equal", max_ours=0.004)


def write_tile(labels: Path, image: Path, buildings: np.ndarray) -> None:
    """Write labels and image in the format of the archive."""
    geometries = shapely.to_geojson(to_ground(buildings, CORNER, PIXEL))
    crs = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:{CRS.replace(':', '::')}"}}
    parts = [{"type": "Feature", "properties": {}, "geometry": json.loads(one)} for one in geometries]
    labels.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": parts}))
    profile = {"driver": "GTiff", "dtype": "float32", "count": 4, "height": SIZE, "width": SIZE, "nodata": 0}
    with rasterio.open(image, "w", crs=CRS, transform=from_origin(*CORNER, PIXEL, PIXEL), **profile) as file:
        file.write(np.ones((4, SIZE, SIZE), dtype=np.float32))


def sn6_mask(labels: Path, image: Path) -> np.ndarray:
    """Rasterize with sn6 the number of the building at each pixel, from 1."""
    with rasterio.open(image) as tile:
        corner, shape = (tile.transform.c, tile.transform.f), tile.shape
    return rasterize_instances(read_geojson_labels(labels, corner, CRS, PIXEL).polygons, *shape)


def frame_mask(labels: Path, image: Path) -> np.ndarray:
    """Rasterize a data frame in metres."""
    import geopandas

    frame = geopandas.read_file(labels)
    with rasterio.open(image) as tile:
        numbered = zip(frame.geometry, range(1, len(frame) + 1), strict=True)
        return features.rasterize(numbered, tile.shape, transform=tile.transform, dtype="int32")


def row_mask(labels: Path, image: Path) -> np.ndarray:
    """Rasterize a data frame whose rows are converted to pixels one by one."""
    import geopandas

    frame = geopandas.read_file(labels)
    with rasterio.open(image) as tile:
        a, b, c, d, e, f = (~tile.transform)[:6]
        pixels = frame.geometry.apply(lambda polygon: affine_transform(polygon, (a, b, d, e, c, f)))
        return features.rasterize(zip(pixels, range(1, len(frame) + 1), strict=True), tile.shape, dtype="int32")
