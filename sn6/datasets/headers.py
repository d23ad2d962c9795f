"""Read the headers of GeoTIFFs: check that a file is of its product, and return the bounds of its tile.

The bounds are cached in `<root>/.sn6/index-<split>-<product>.json`: opening thousands of files takes seconds at every
start, reading their sizes and times takes milliseconds.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import rasterio
from rasterio.errors import RasterioError

from sn6.datasets.cache import cache_path, image_fingerprint, lock, save
from sn6.datasets.declaration import Bounds, Product, Split
from sn6.datasets.raster import COMPLEX_ADVICE, TILE_DRIVER, open_raster
from sn6.errors import UserError, counted, first_line

MAX_OFFSET = 0.5  # metres between the corners of a tile's products
SIZE_TOLERANCE = 5e-4  # the far edge of a tile of 900 pixels moves by less than half a pixel


class Header(NamedTuple):
    """The bounds of a tile, and the `image_fingerprint` of its file when they were read."""

    rule: int
    size: int
    time: int
    west: float
    south: float
    east: float
    north: float


def index_bounds(root: Path, split: Split, product: Product, crs: str, paths: Mapping[str, Path]) -> dict[str, Bounds]:
    """Return the bounds of tiles by image id. Only files that are new or changed since the last call are opened.

    If several processes call it at the same time, one opens the files and the others wait.

    Args:
        root: folder whose cache is used
        split: of the tiles
        product: its files are read
        crs: that the files must have
        paths: image id → GeoTIFF of all tiles of the split that have the product

    Raises:
        UserError: a file cannot be opened, or its header is not the product's
    """
    fingerprints: dict[str, tuple[int, int, int]] = {}
    for image_id, path in paths.items():
        with suppress(OSError):  # a broken link: opening it below raises the UserError
            fingerprints[image_id] = image_fingerprint(path)
    cache = cache_path(root, f"index-{split}-{product.name}.json")
    headers = read_current(cache, fingerprints)
    if headers.keys() != paths.keys():
        with lock(cache) as may_write:
            headers = read_current(cache, fingerprints)  # another process may have written it meanwhile
            new = [image_id for image_id in paths if image_id not in headers]
            for image_id in new:
                bounds = read_bounds(paths[image_id], product, crs)
                headers[image_id] = Header(*fingerprints.get(image_id, (0, 0, 0)), *bounds)
            if new and may_write:
                save(cache, lambda part: part.write_text(json.dumps(headers), encoding="utf-8"))
    return {image_id: headers[image_id][3:] for image_id in paths}


def read_current(cache: Path, fingerprints: dict[str, tuple[int, int, int]]) -> dict[str, Header]:
    """Read the cached headers of the files that have not changed; none where the cache cannot be read."""
    try:
        table = json.loads(cache.read_text(encoding="utf-8"))
        headers = {image_id: Header(*map(int, row[:3]), *map(float, row[3:])) for image_id, row in table.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return {image_id: header for image_id, header in headers.items() if fingerprints.get(image_id) == header[:3]}


def read_bounds(path: Path, product: Product, crs: str) -> Bounds:
    """Read the bounds of a tile from the header of its GeoTIFF.

    Raises:
        UserError: the file cannot be opened, or its header is not the product's
    """
    try:
        with open_raster(path, TILE_DRIVER) as source:
            check_header(source, product, crs, path)
            return tuple(source.bounds)
    except RasterioError as error:
        advice = "download it again" if path.exists() else "a file of another name has its image id, rename it"
        raise UserError(
            f"{path} cannot be opened as a GeoTIFF ({first_line(error)}); {advice}",
            kind="unreadable",
            key=path,
        ) from None


class HeaderFault(NamedTuple):
    """A difference between the header of a file and its product.

    Attributes:
        kind: of `sn6.inspection.faults`
        message: what is wrong, and what to do
        value: what the header declares
    """

    kind: str
    message: str
    value: Any


def check_header(source: rasterio.DatasetReader, product: Product, crs: str, path: Path) -> None:
    """Raise a UserError where the header of a file is not the product's."""
    for fault in header_faults(source, product, crs):
        raise UserError(f"{path}: {fault.message}", kind="wrong_data", key=path, value=fault.value)


def header_faults(source: rasterio.DatasetReader, expected: Product, crs: str) -> Iterator[HeaderFault]:
    """Find the differences between the header of a file and its product and CRS, without reading pixels."""
    product = expected.name
    if source.count != len(expected.bands):
        message = f"{counted(source.count, 'band')}; {product} has {len(expected.bands)} ({', '.join(expected.bands)})"
        yield HeaderFault("bands", f"{message}; replace or remove the tile", source.count)
    dtypes = "/".join(sorted(set(source.dtypes)))
    if "complex" in dtypes:
        yield HeaderFault("complex", f"complex values ({dtypes}); {COMPLEX_ADVICE}", dtypes)
    elif dtypes != expected.dtype:
        message = f"data type {dtypes}; {product} has {expected.dtype}"
        yield HeaderFault("dtype", f"{message}; convert the tile, for example with gdal_translate -ot -unscale", dtypes)
    if source.crs is None or source.crs.to_epsg() != int(crs.removeprefix("EPSG:")):
        declared = None if source.crs is None else source.crs.to_string()
        points = f"{len(source.gcps[0])} ground control points and " if source.gcps[0] else ""
        message = f"{points}CRS {declared}; the archive has {crs}; reproject or remove the tile"
        yield HeaderFault("crs", message, declared)
    elif not has_pixel_size(source, expected.pixel_size):
        width, height = source.transform.a, -source.transform.e
        turned = " and is not north-up" if source.transform.b or source.transform.d or height < 0 else ""
        message = f"a pixel of {width:g} × {height:g} m{turned}; {product} has {expected.pixel_size:g} m, north-up"
        yield HeaderFault("pixel size", f"{message}; warp the tile, for example with gdalwarp -tr", (width, height))


def position_fault(bounds: Bounds, first: Bounds, product: str) -> HeaderFault | None:
    """Return the fault of an image whose upper left corner is not that of its tile's first product, None for none.

    Args:
        bounds: of the image
        first: bounds of the tile's first product
        product: name of the first product
    """
    east, north = bounds[0] - first[0], bounds[3] - first[3]
    if max(abs(east), abs(north)) <= MAX_OFFSET:
        return None
    message = f"{east:+.1f} m east and {north:+.1f} m north of {product} (negative: west, south)"
    return HeaderFault("position", f"{message}; replace or remove one of them", (east, north))


def has_pixel_size(source: rasterio.DatasetReader, pixel: float) -> bool:
    """Return whether a file is north-up with square pixels of `pixel` metres, within SIZE_TOLERANCE."""
    transform, tolerance = source.transform, SIZE_TOLERANCE * pixel
    differences = (transform.a - pixel, transform.e + pixel, transform.b, transform.d)
    return all(abs(difference) <= tolerance for difference in differences)
