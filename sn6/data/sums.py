"""Sums over the valid pixels of each tile, from which the mean and deviation of any fold follow.

They are kept beside the archive, in `<root>/.sn6/statistics-<product>.json`, so that a training need not read its tiles
before it starts. A tile is measured anew when its file has another size or time, or its labels are others.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from jaxtyping import Bool, Float32

from sn6.data.archive import Archive, Tile
from sn6.data.kept import alone, keep, kept_path, stamp
from sn6.data.layout import PIXEL, PRODUCTS, tile_path
from sn6.footprints import Labels, Polygons
from sn6.footprints.rasterize import rasterize_instances


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


def tile_sums(archive: Archive, tiles: Sequence[Tile], product: str, min_area: float) -> list[TileSums]:
    """The sums of each tile, from beside the archive where they are still right, else measured and put there.

    Several processes may ask at once: one measures while the others wait. Where the archive's folder cannot be
    written, each measures for itself.

    Raises:
        UserError: a tile cannot be read
    """
    with alone(sums_path(archive.root, product)) as may_write:
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
    with alone(sums_path(root, product)) as may_write:
        if may_write:
            write_sums(root, product, read_sums(root, product) | dict(measured))


def sums_path(root: Path, product: str) -> Path:
    """Where the sums of a product lie."""
    return kept_path(root, f"statistics-{product}.json")


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
    """Keeps them, by image id."""
    text = json.dumps({image_id: asdict(row) for image_id, row in sorted(sums.items())})
    keep(sums_path(root, product), lambda part: part.write_text(text, encoding="utf-8"))
