"""Read the headers of GeoTIFFs: check that a file is of its product, and return the bounds of its tile.

The bounds are cached in `<root>/.sn6/index-<split>-<product>.json`: opening thousands of files takes seconds at every
start, reading their sizes and times takes milliseconds.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import rasterio
from rasterio.errors import RasterioError

from sn6.datasets.cache import cache_path, fingerprint, lock, save
from sn6.datasets.layout import CRS, PRODUCTS, Split, tile_path
from sn6.errors import UserError, first_line

Bounds = tuple[float, float, float, float]  # west, south, east, north in metres, EPSG:32631


class Header(NamedTuple):
    """The bounds of a tile, and the size in bytes and the time in ns of its file when they were read."""

    size: int
    time: int
    west: float
    south: float
    east: float
    north: float


def index_bounds(root: Path, split: Split, product: str, image_ids: Sequence[str]) -> dict[str, Bounds]:
    """Return the bounds of tiles by image id. Only files that are new or changed since the last call are opened.

    If several processes call it at the same time, one opens the files and the others wait.

    Args:
        root: folder of the archive
        split: train or test_public
        product: its files are read
        image_ids: all tiles of the split that have the product

    Raises:
        UserError: a file cannot be opened or has another CRS or number of bands
    """
    paths = {image_id: tile_path(root, split, product, image_id) for image_id in image_ids}
    fingerprints = {}
    for image_id, path in paths.items():
        with suppress(OSError):  # a broken link: opening it below raises the UserError
            fingerprints[image_id] = fingerprint(path)
    cache = cache_path(root, f"index-{split}-{product}.json")
    headers = read_current(cache, fingerprints)
    if headers.keys() != paths.keys():
        with lock(cache) as may_write:
            headers = read_current(cache, fingerprints)  # another process may have written it meanwhile
            new = [image_id for image_id in paths if image_id not in headers]
            for image_id in new:
                bounds = read_bounds(paths[image_id], product)
                headers[image_id] = Header(*fingerprints.get(image_id, (0, 0)), *bounds)
            if new and may_write:
                save(cache, lambda part: part.write_text(json.dumps(headers), encoding="utf-8"))
    return {image_id: headers[image_id][2:] for image_id in image_ids}


def read_current(cache: Path, fingerprints: dict[str, tuple[int, int]]) -> dict[str, Header]:
    """Read the cached headers of the files that have not changed; none where the cache cannot be read."""
    try:
        table = json.loads(cache.read_text(encoding="utf-8"))
        headers = {image_id: Header(*map(int, row[:2]), *map(float, row[2:])) for image_id, row in table.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return {image_id: header for image_id, header in headers.items() if fingerprints.get(image_id) == header[:2]}


def read_bounds(path: Path, product: str) -> Bounds:
    """Read the bounds of a tile from the header of its GeoTIFF.

    Raises:
        UserError: the file cannot be opened or has another CRS or number of bands
    """
    try:
        with rasterio.open(path) as source:
            check_header(source, product, path)
            return tuple(source.bounds)
    except RasterioError as error:
        raise UserError(
            f"{path} cannot be opened as a GeoTIFF ({first_line(error)}); download it again",
            kind="unreadable",
            key=path,
        ) from None


def check_header(source: rasterio.DatasetReader, product: str, path: Path) -> None:
    """Raise a UserError where the number of bands or the CRS is not the product's."""
    expected = PRODUCTS[product].bands
    if source.count != len(expected):
        raise UserError(
            f"{path} has the wrong number of bands: {source.count}, not the {len(expected)} of {product} "
            f"({', '.join(expected)}); replace or remove the tile",
            kind="wrong_data",
            key=path,
            value=source.count,
        )
    if source.crs is None or source.crs.to_epsg() != int(CRS.removeprefix("EPSG:")):
        raise UserError(
            f"{path} has the CRS {source.crs}, but the archive has {CRS}; reproject or remove the tile",
            kind="wrong_data",
            key=path,
            value=None if source.crs is None else source.crs.to_string(),
        )
