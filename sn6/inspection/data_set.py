"""Inspect any data set through its declaration: every tile in several processes, then what needs all tiles."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from sn6.datasets.declaration import DataSet, Split, Tile
from sn6.datasets.statistics import compute_tile_statistics, polygons_in_mask, save_statistics
from sn6.errors import UserError, counted
from sn6.inspection.archive import MIN_TILES_FOR_POOL, Inspection, cross_tile_faults
from sn6.inspection.faults import Fault
from sn6.inspection.images import Image, extremes
from sn6.inspection.tiles import MIN_AREA, InspectedTile
from sn6.processes import in_processes
from sn6.progress import track


@dataclass(frozen=True, eq=False)
class Task:
    """A tile to inspect, and the data set that it is of."""

    data_set: DataSet
    tile: Tile


def inspect_data_set(data_set: DataSet, workers: int | None) -> Inspection:
    """Read every tile of a data set, and cache the statistics of its training tiles.

    Args:
        data_set: any
        workers: number of processes; None for one per core, or a single one for few tiles

    Raises:
        UserError: its tiles cannot be listed
    """
    tasks = [Task(data_set, tile) for split in data_set.splits for tile in all_tiles(data_set, split)]
    is_worth_it = workers is not None or len(tasks) >= MIN_TILES_FOR_POOL
    inspected = in_processes(inspect_tile, tasks, is_worth_it, processes=workers)
    tiles = list(track(inspected, f"reading {counted(len(tasks), 'tile')}", len(tasks)))
    faults = [fault for tile in tiles for fault in tile.faults] + cross_tile_faults(tiles)
    faults += [Fault("repaired labels", note.partition(": ")[0], note.partition(": ")[2]) for note in data_set.notes]
    training = [tile for tile in tiles if tile.split == "train"]
    for product in data_set.products:
        save_statistics(
            data_set.root, product, {t.image_id: t.images[product].statistics for t in training if product in t.images}
        )
    orientations = {task.tile.strip: task.tile.orientation for task in tasks if task.tile.orientation is not None}
    return Inspection(data_set, orientations, tiles, {}, faults)


def all_tiles(data_set: DataSet, split: Split) -> Sequence[Tile]:
    """Return the tiles of all products of a split, each once."""
    products = [name for name in data_set.products if data_set.has_product(split, name)]
    return [*{tile.image_id: tile for name in products for tile in data_set.tiles(split, name)}.values()]


def inspect_tile(task: Task) -> InspectedTile:
    """Read the images and the labels of a tile."""
    data_set, tile, faults = task.data_set, task.tile, []
    try:
        labels = data_set.labels(tile)
    except UserError as error:
        labels = None
        faults.append(Fault("labels", tile.image_id, str(error)))
    footprints = polygons_in_mask(labels, MIN_AREA, data_set.pixel_size)
    images = {}
    for product in tile.products:
        try:
            images[product] = measure(data_set, tile, product, footprints)
        except UserError as error:
            path = str(data_set.image_path(tile, product))
            kind = "units" if error.kind == "wrong_data" else "unreadable"
            faults.append(Fault(kind, path, str(error).removeprefix(f"{path}: ")))
    faults += image_faults(data_set, images, tile.image_id)
    if labels is None and tile.split == "train" and not faults:
        faults.append(Fault("no labels", tile.image_id, "no file has labels of this tile, or it is outside of area="))
    buildings = None if labels is None else len(labels)
    return InspectedTile(tile.split, tile.image_id, tile.strip, images, buildings, 0, faults)


def measure(data_set: DataSet, tile: Tile, product: str, footprints: np.ndarray) -> Image:
    """Read the pixels of a tile and measure them."""
    declared = data_set.products[product]
    values, valid = data_set.read(tile, product, declared.numbers)
    minimum, maximum = extremes(values, valid)
    return Image(
        path=data_set.image_path(tile, product),
        product=product,
        shape=valid.shape,
        bounds=tile.bounds,
        pixels=valid.size,
        valid=int(np.count_nonzero(valid)),
        minimum=minimum,
        maximum=maximum,
        not_finite=0,
        negative=int(np.count_nonzero((values < 0) & valid)),
        digest=sha256(values.tobytes()).hexdigest(),
        statistics=compute_tile_statistics(values, valid, footprints, data_set.fingerprint(tile, product)),
    )


def image_faults(data_set: DataSet, images: dict[str, Image], image_id: str) -> Iterator[Fault]:
    """Find images without data, and optical ones with negative values."""
    for product, image in images.items():
        if not image.valid:
            yield Fault("nodata", image_id, "all pixels are nodata")
        if image.negative and data_set.products[product].optical:
            yield Fault("negative", image_id, f"{image.negative} values are negative")
