"""Measure sums over the valid pixels of each tile, from which the mean and standard deviation of any fold follow.

The sums are cached in `<root>/.sn6/statistics-<product>.json`, so that a run need not read its training tiles before it
starts. A tile is measured again when the size or time of its file, or its labels, have changed.
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

from sn6.datasets.cache import Fingerprint, cache_path, lock, save
from sn6.datasets.declaration import DataSet, Tile
from sn6.errors import counted
from sn6.footprints import Labels, Polygons
from sn6.progress import track
from sn6.targets.rasterize import rasterize_instances

EXACT = 2.0**53  # whole numbers below are exact in float64


@dataclass(frozen=True)
class TileStatistics:
    """Sums over the valid pixels of one tile, on the grid of the labels.

    Attributes:
        file: `DataSet.fingerprint` of the tile that was measured
        labels: fingerprint of the footprints that were counted
        pixels: number of valid pixels
        building: number of valid pixels on a building
        total: sum of each band on disk
        squares: sum of the squares of each band on disk
    """

    file: Fingerprint
    labels: str
    pixels: int
    building: int
    total: tuple[float, ...]
    squares: tuple[float, ...]


def compute_tile_statistics(
    image: Float32[np.ndarray, "c h w"],
    valid: Bool[np.ndarray, "h w"],
    footprints: Polygons,
    file: Fingerprint,
) -> TileStatistics:
    """Compute the sums of one tile.

    Args:
        image: all bands on disk
        valid: false on nodata
        footprints: polygons of the mask, in pixels
        file: `DataSet.fingerprint` of the tile
    """
    building = int(np.count_nonzero(rasterize_instances(footprints, *valid.shape)[valid] > 0))
    sums = [sum_of_values(band[valid]) for band in image]  # band by band: image[:, valid] is not contiguous, so slow
    return TileStatistics(
        file,
        labels_fingerprint(footprints),
        int(np.count_nonzero(valid)),
        building,
        tuple(total for total, _ in sums),
        tuple(squares for _, squares in sums),
    )


def sum_of_values(values: Float32[np.ndarray, " n"]) -> tuple[float, float]:
    """Return the sum of the values and of their squares, the same on every machine.

    Whole numbers whose squares add up to less than 2^53 have exact sums, in any order; others are added in their order.
    """
    exact = values.astype(np.float64)
    if not values.size or (is_whole(values) and values.size * float(max(values.max(), -values.min())) ** 2 < EXACT):
        return float(exact.sum()), float(exact @ exact)
    squares = np.square(exact)
    return float(exact.cumsum(out=exact)[-1]), float(squares.cumsum(out=squares)[-1])


def is_whole(values: Float32[np.ndarray, " n"]) -> bool:
    """Return whether all values are whole numbers; the first ones tell it of most images."""
    return all(np.array_equal(part, np.rint(part)) for part in (values[:1000], values[1000:]))


def labels_in_mask(labels: Labels | None, min_area: float, pixel_size: float) -> Labels:
    """Return the buildings of at least `min_area` m²; none where the labels are unknown."""
    if labels is None:
        return Labels(np.empty(0, dtype=object), np.empty(0))
    is_in_mask = shapely.area(labels.polygons) * pixel_size**2 >= min_area
    classes = None if labels.classes is None else labels.classes[is_in_mask]
    return Labels(labels.polygons[is_in_mask], labels.heights[is_in_mask], classes)


def polygons_in_mask(labels: Labels | None, min_area: float, pixel_size: float) -> np.ndarray:
    """Return the polygons (pixels) of at least `min_area` m²; none where the labels are unknown."""
    return labels_in_mask(labels, min_area, pixel_size).polygons


def is_outside(polygons: Polygons, height: float, width: float) -> Bool[np.ndarray, " n"]:
    """Return which polygons (pixels) are entirely outside a tile of `height` times `width` pixels."""
    west, north, east, south = shapely.bounds(polygons).reshape(-1, 4).T
    return (east <= 0) | (south <= 0) | (west >= width) | (north >= height)


def labels_fingerprint(footprints: Polygons) -> str:
    """Return a digest that is equal for the same polygons in the same order."""
    return blake2b(b"".join(shapely.to_wkb(np.asarray(footprints, dtype=object))), digest_size=8).hexdigest()


def tile_statistics(data_set: DataSet, tiles: Sequence[Tile], product: str, min_area: float) -> list[TileStatistics]:
    """Return the sums of each tile, from the cache where they are up to date, otherwise measured and cached.

    If several processes call this at the same time, one measures and the others wait. Where the cache cannot be
    written, each process measures the tiles itself.

    Raises:
        UserError: a tile cannot be read
    """
    with lock(statistics_path(data_set.root, product)) as may_write:
        cached = read_statistics(data_set.root, product)
        changed = [t for t in tiles if not is_current(data_set, t, product, min_area, cached.get(t.image_id))]
        new = {}
        if changed:
            for tile in track(changed, f"measuring {counted(len(changed), 'tile')}"):
                new[tile.image_id] = measure_tile(data_set, tile, product, min_area)
            if may_write:
                write_statistics(data_set.root, product, cached | new)
    return [(cached | new)[tile.image_id] for tile in tiles]


def is_current(data_set: DataSet, tile: Tile, product: str, min_area: float, cached: TileStatistics | None) -> bool:
    """Return whether the `cached` sums are those of the tile's file and footprints."""
    if cached is None or cached.file != data_set.fingerprint(tile, product):
        return False
    return cached.labels == labels_fingerprint(polygons_in_mask(data_set.labels(tile), min_area, data_set.pixel_size))


def measure_tile(data_set: DataSet, tile: Tile, product: str, min_area: float) -> TileStatistics:
    """Read a tile and compute its sums."""
    footprints = polygons_in_mask(data_set.labels(tile), min_area, data_set.pixel_size)
    file = data_set.fingerprint(tile, product)
    image, valid = data_set.read(tile, product, data_set.products[product].numbers)
    return compute_tile_statistics(image, valid, footprints, file)


def save_statistics(root: Path, product: str, measured: Mapping[str, TileStatistics]) -> None:
    """Add the sums of tiles, by image id, to the cache."""
    with lock(statistics_path(root, product)) as may_write:
        if may_write:
            write_statistics(root, product, read_statistics(root, product) | dict(measured))


def statistics_path(root: Path, product: str) -> Path:
    """Return the path of the cached sums of a product."""
    return cache_path(root, f"statistics-{product}.json")


def read_statistics(root: Path, product: str) -> dict[str, TileStatistics]:
    """Read the cached sums by image id; none where the cache cannot be read."""
    try:
        table = json.loads(statistics_path(root, product).read_text(encoding="utf-8"))
        return {
            image_id: TileStatistics(**{key: as_tuple(value) for key, value in row.items()})
            for image_id, row in table.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def as_tuple(value: Any) -> Any:
    """Return a list from JSON as a tuple, and any other value unchanged."""
    return tuple(value) if isinstance(value, list) else value


def write_statistics(root: Path, product: str, statistics: Mapping[str, TileStatistics]) -> None:
    """Write the sums by image id to the cache; the caller holds its lock."""
    text = json.dumps({image_id: asdict(row) for image_id, row in sorted(statistics.items())})
    save(statistics_path(root, product), lambda part: part.write_text(text, encoding="utf-8"))
