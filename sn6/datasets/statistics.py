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

from sn6.datasets.archive import Archive, Tile
from sn6.datasets.cache import cache_path, fingerprint, lock, save
from sn6.datasets.layout import PIXEL, PRODUCTS, tile_path
from sn6.footprints import Labels, Polygons
from sn6.targets.rasterize import rasterize_instances


@dataclass(frozen=True)
class TileStatistics:
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


def compute_tile_statistics(
    image: Float32[np.ndarray, "c h w"],
    valid: Bool[np.ndarray, "h w"],
    footprints: Polygons,
    file: tuple[int, int],
) -> TileStatistics:
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
    return TileStatistics(
        file,
        labels_fingerprint(footprints),
        int(valid.sum()),
        int(building.sum()),
        tuple(total.tolist()),
        tuple(np.square(pixels, out=pixels).sum(axis=1).tolist()),
    )


def polygons_in_mask(labels: Labels | None, min_area: float) -> np.ndarray:
    """The footprints of at least `min_area` m², as an array of polygons in pixels; none where they are not known."""
    if labels is None:
        return np.empty(0, dtype=object)
    return labels.polygons[shapely.area(labels.polygons) * PIXEL**2 >= min_area]


def labels_fingerprint(footprints: Polygons) -> str:
    """The same for the same polygons in the same order."""
    return blake2b(b"".join(shapely.to_wkb(np.asarray(footprints, dtype=object))), digest_size=8).hexdigest()


def tile_statistics(archive: Archive, tiles: Sequence[Tile], product: str, min_area: float) -> list[TileStatistics]:
    """The sums of each tile, from beside the archive where they are still right, else measured and put there.

    Several processes may ask at once: one measures while the others wait. Where the archive's folder cannot be
    written, each measures for itself.

    Raises:
        UserError: a tile cannot be read
    """
    with lock(statistics_path(archive.root, product)) as may_write:
        known = read_statistics(archive.root, product)
        found = [up_to_date(archive, tile, product, min_area, known.get(tile.image_id)) for tile in tiles]
        new = {t.image_id: sums for t, sums in zip(tiles, found, strict=True) if sums is not known.get(t.image_id)}
        if new and may_write:
            write_statistics(archive.root, product, known | new)
    return found


def up_to_date(
    archive: Archive, tile: Tile, product: str, min_area: float, known: TileStatistics | None
) -> TileStatistics:
    """What is `known` of the tile if it is still right, else what its files hold."""
    footprints = polygons_in_mask(archive.labels(tile), min_area)
    file = fingerprint(tile_path(archive.root, tile.split, product, tile.image_id))
    if known is not None and known.file == file and known.labels == labels_fingerprint(footprints):
        return known
    image, valid = archive.read(tile, product, range(1, len(PRODUCTS[product].bands) + 1))
    return compute_tile_statistics(image, valid, footprints, file)


def save_statistics(root: Path, product: str, measured: Mapping[str, TileStatistics]) -> None:
    """Puts the sums of tiles, by image id, beside those that are there."""
    with lock(statistics_path(root, product)) as may_write:
        if may_write:
            write_statistics(root, product, read_statistics(root, product) | dict(measured))


def statistics_path(root: Path, product: str) -> Path:
    """Where the sums of a product lie."""
    return cache_path(root, f"statistics-{product}.json")


def read_statistics(root: Path, product: str) -> dict[str, TileStatistics]:
    """Image id → sums; empty where there are none that can be read."""
    try:
        table = json.loads(statistics_path(root, product).read_text(encoding="utf-8"))
        return {image_id: TileStatistics(**{k: frozen(v) for k, v in row.items()}) for image_id, row in table.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def frozen(value: Any) -> Any:
    """A list of JSON as a tuple."""
    return tuple(value) if isinstance(value, list) else value


def write_statistics(root: Path, product: str, sums: Mapping[str, TileStatistics]) -> None:
    """Keeps them, by image id."""
    text = json.dumps({image_id: asdict(row) for image_id, row in sorted(sums.items())})
    save(statistics_path(root, product), lambda part: part.write_text(text, encoding="utf-8"))
