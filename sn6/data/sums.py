"""Sums over the valid pixels of each tile, from which the mean and deviation of any fold follow.

They are kept beside the archive, in `<root>/.sn6/statistics-<product>.json`, so that a training need not read its tiles
before it starts. A tile is measured anew when its file has another size or time, or its labels are others.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from filelock import FileLock
from jaxtyping import Bool, Float32

from sn6.data.archive import Archive, Tile
from sn6.data.layout import PIXEL, PRODUCTS, tile_path
from sn6.errors import UserError
from sn6.footprints import Labels, Polygons
from sn6.footprints.rasterize import rasterize_instances
from sn6.whole import write_text

PATIENCE = 600.0  # seconds to wait for another process that measures the same archive
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TileSums:
    """What one tile adds to the statistics, on the grid of 0.5 m.

    Attributes:
        file: size in bytes and time in ns of the file that was measured
        labels: fingerprint of the footprints that were counted
        pixels: that are valid
        building: pixels of them that are building
        total: sum of each band on disk
        squares: sum of the squares of each band on disk
    """

    file: tuple[int, int]
    labels: str
    pixels: int
    building: int
    total: tuple[float, ...]
    squares: tuple[float, ...]


def sums_of(
    image: Float32[np.ndarray, "c h w"],
    valid: Bool[np.ndarray, "h w"],
    footprints: Polygons,
    file: tuple[int, int],
) -> TileSums:
    """The sums of one tile.

    Args:
        image: all bands on disk
        valid: false on nodata
        footprints: those of the mask, in pixels
        file: `stamp` of the image's file
    """
    pixels = image[:, valid].astype(np.float64)
    building = rasterize_instances(footprints, *valid.shape)[valid] > 0
    total = pixels.sum(axis=1)
    return TileSums(
        file,
        fingerprint(footprints),
        int(valid.sum()),
        int(building.sum()),
        tuple(total.tolist()),
        tuple(np.square(pixels, out=pixels).sum(axis=1).tolist()),
    )


def mask_polygons(labels: Labels | None, min_area: float) -> np.ndarray:
    """The footprints of at least `min_area` m², as an array of polygons in pixels; none where they are not known."""
    if labels is None:
        return np.empty(0, dtype=object)
    return labels.polygons[shapely.area(labels.polygons) * PIXEL**2 >= min_area]


def fingerprint(footprints: Polygons) -> str:
    """The same for the same polygons in the same order."""
    return blake2b(b"".join(shapely.to_wkb(np.asarray(footprints, dtype=object))), digest_size=8).hexdigest()


def stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def tile_sums(archive: Archive, tiles: Sequence[Tile], product: str, min_area: float) -> list[TileSums]:
    """The sums of each tile, from beside the archive where they are still right, else measured and put there.

    Several processes may ask at once: one measures while the others wait. Where the archive's folder cannot be
    written, each measures for itself.

    Raises:
        UserError: a tile cannot be read
    """
    with alone(archive.root, product) as may_write:
        known = read_sums(archive.root, product)
        found = [up_to_date(archive, tile, product, min_area, known.get(tile.image_id)) for tile in tiles]
        new = {t.image_id: sums for t, sums in zip(tiles, found, strict=True) if sums is not known.get(t.image_id)}
        if new and may_write:
            write_sums(archive.root, product, known | new)
    return found


def up_to_date(archive: Archive, tile: Tile, product: str, min_area: float, known: TileSums | None) -> TileSums:
    """What is `known` of the tile if it is still right, else what its files hold."""
    footprints = mask_polygons(archive.labels(tile), min_area)
    file = stamp(tile_path(archive.root, tile.split, product, tile.image_id))
    if known is not None and known.file == file and known.labels == fingerprint(footprints):
        return known
    image, valid = archive.read(tile, product, range(1, len(PRODUCTS[product].bands) + 1))
    return sums_of(image, valid, footprints, file)


def keep_sums(root: Path, product: str, measured: Mapping[str, TileSums]) -> None:
    """Puts the sums of tiles, by image id, beside those that are there."""
    with alone(root, product) as may_write:
        if may_write:
            write_sums(root, product, read_sums(root, product) | dict(measured))


def sums_path(root: Path, product: str) -> Path:
    """Where the sums of a product lie."""
    return root / ".sn6" / f"statistics-{product}.json"


@contextmanager
def alone(root: Path, product: str) -> Iterator[bool]:
    """Waits while another process measures; whether the sums may be written: not where there can be no lock."""
    path = sums_path(root, product).with_suffix(".lock")
    lock = FileLock(path, timeout=PATIENCE)
    with suppress(OSError, NotImplementedError):  # a folder or a file system that cannot be written or locked
        path.parent.mkdir(exist_ok=True)
        lock.acquire()
    try:
        yield lock.is_locked
    finally:
        lock.release()


def read_sums(root: Path, product: str) -> dict[str, TileSums]:
    """Image id → sums; empty where there are none that can be read."""
    try:
        table = json.loads(sums_path(root, product).read_text(encoding="utf-8"))
        return {image_id: TileSums(**{k: frozen(v) for k, v in row.items()}) for image_id, row in table.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def frozen(value: Any) -> Any:
    """A list of JSON as a tuple."""
    return tuple(value) if isinstance(value, list) else value


def write_sums(root: Path, product: str, sums: Mapping[str, TileSums]) -> None:
    """Writes them whole; does without where the folder cannot be written."""
    text = json.dumps({image_id: asdict(row) for image_id, row in sorted(sums.items())})
    try:
        write_text(sums_path(root, product), text)
    except UserError as error:
        log.debug("the statistics are not kept: %s", error)
