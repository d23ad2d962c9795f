"""The headers of GeoTIFFs: whether a file is of its product, and where its tile lies.

What they say is kept beside the archive, in `<root>/.sn6/index-<split>-<product>.json`: to open thousands of files
takes seconds at every start, to ask for their size and time takes milliseconds.
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
    """What was read of a file that is of its product, and the file's size in bytes and time in ns then."""

    size: int
    time: int
    west: float
    south: float
    east: float
    north: float


def index_bounds(root: Path, split: Split, product: str, image_ids: Sequence[str]) -> dict[str, Bounds]:
    """Where tiles lie, by image id. Only files that are new or changed since the last time are opened.

    Several processes may ask at once: one opens the files while the others wait.

    Args:
        root: of the archive
        split: of the tiles
        product: whose files are looked at
        image_ids: of all tiles of the split that have the product

    Raises:
        UserError: a file cannot be opened or has another CRS or number of bands
    """
    paths = {image_id: tile_path(root, split, product, image_id) for image_id in image_ids}
    stamps = {}
    for image_id, path in paths.items():
        with suppress(OSError):  # a link that leads nowhere; opening it tells
            stamps[image_id] = fingerprint(path)
    kept = cache_path(root, f"index-{split}-{product}.json")
    known = up_to_date(kept, stamps)
    if known.keys() != paths.keys():
        with lock(kept) as may_write:
            known = up_to_date(kept, stamps)  # more, where another process was first
            new = [image_id for image_id in paths if image_id not in known]
            for image_id in new:
                bounds = read_bounds(paths[image_id], product)
                known[image_id] = Header(*stamps.get(image_id, (0, 0)), *bounds)
            if new and may_write:
                save(kept, lambda part: part.write_text(json.dumps(known), encoding="utf-8"))
    return {image_id: known[image_id][2:] for image_id in image_ids}


def up_to_date(kept: Path, stamps: dict[str, tuple[int, int]]) -> dict[str, Header]:
    """What is kept of the files that are still as they were; nothing where it cannot be read."""
    try:
        table = json.loads(kept.read_text(encoding="utf-8"))
        rows = {image_id: Header(*map(int, row[:2]), *map(float, row[2:])) for image_id, row in table.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return {image_id: row for image_id, row in rows.items() if stamps.get(image_id) == row[:2]}


def read_bounds(path: Path, product: str) -> Bounds:
    """Where the tile of a GeoTIFF lies.

    Raises:
        UserError: it cannot be opened or has another CRS or number of bands
    """
    try:
        with rasterio.open(path) as source:
            check_header(source, product, path)
            return tuple(source.bounds)
    except RasterioError as error:
        raise UserError(f"{path} cannot be opened as a GeoTIFF; fetch it again ({first_line(error)})") from None


def check_header(source: rasterio.DatasetReader, product: str, path: Path) -> None:
    """Raises a UserError where the number of bands or the CRS is not the product's."""
    expected = PRODUCTS[product].bands
    if source.count != len(expected):
        raise UserError(f"{path} has {source.count} bands, {product} has {len(expected)} ({', '.join(expected)})")
    if source.crs is None or source.crs.to_epsg() != int(CRS.removeprefix("EPSG:")):
        raise UserError(f"{path} has the CRS {source.crs}, the archive's is {CRS}; reproject or remove the tile")
