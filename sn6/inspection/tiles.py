"""Inspect one tile: its images, and whether its labels are on them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from jaxtyping import Bool
from rasterio.errors import RasterioError

from sn6.datasets.declaration import Split
from sn6.datasets.raster import TILE_DRIVER, open_raster
from sn6.datasets.spacenet6 import PRODUCTS, SpaceNet6, geojson_path, strip_of
from sn6.datasets.statistics import is_outside, polygons_in_mask
from sn6.errors import UserError
from sn6.footprints import Labels
from sn6.footprints.ground import Corner
from sn6.formats.geojson import read_geojson_labels
from sn6.inspection.coarse import histogram_of
from sn6.inspection.faults import Fault
from sn6.inspection.histograms import Histogram
from sn6.inspection.images import Image, inspect_image

MIN_AREA = 20.0  # m²; the default of data.min_area, so that the cached statistics are those that a run needs
MAX_OVER_EDGE = 1.0  # pixels


@dataclass(frozen=True, eq=False)
class Task:
    """A tile to inspect.

    Attributes:
        root: folder of the archive
        split: split of the tile
        image_id: image id of the tile
        files: product → path
        labels: labels in the CSV, None where it does not have the tile
    """

    root: Path
    split: Split
    image_id: str
    files: dict[str, Path]
    labels: Labels | None


@dataclass(frozen=True, eq=False)
class InspectedTile:
    """The result of the inspection of a tile.

    Attributes:
        split: split of the tile
        image_id: image id of the tile
        strip: the pass of the sensor that imaged it
        images: product → usable image, the radar first
        buildings: number of footprints in its labels, None where they are unknown
        outside: number of footprints that are entirely outside the tile
        faults: faults of this tile only
    """

    split: Split
    image_id: str
    strip: str
    images: dict[str, Image]
    buildings: int | None
    outside: int
    faults: list[Fault]


def inspect_tile(task: Task) -> tuple[InspectedTile, dict[str, Histogram]]:
    """Read all files of a tile.

    Returns:
        The tile, and of a training tile the histograms of the products with a limit.
    """
    labels, faults = read_labels(task)
    footprints, images = polygons_in_mask(labels, MIN_AREA, SpaceNet6.pixel_size), {}
    counted = [name for name in task.files if PRODUCTS[name].limit is not None and task.split == "train"]
    histograms = {name: histogram_of(PRODUCTS[name]) for name in counted}
    for product, path in task.files.items():
        image, image_faults = inspect_image(path, PRODUCTS[product], SpaceNet6.crs, footprints, histograms.get(product))
        faults += image_faults
        if image is not None:
            images[product] = image
    outside = np.zeros(0, dtype=bool)
    if labels is not None and images:
        image = next(iter(images.values()))
        outside = is_outside(labels.polygons, *size_on_label_grid(image))
        faults += label_faults(labels, outside, image, task.image_id)
    buildings = None if labels is None else len(labels)
    strip = strip_of(task.image_id)
    return InspectedTile(task.split, task.image_id, strip, images, buildings, int(outside.sum()), faults), histograms


def size_on_label_grid(image: Image) -> tuple[int, int]:
    """Return height and width of an image in pixels of 0.5 m."""
    height, width = (pixels * PRODUCTS[image.product].repeat for pixels in image.shape)
    return height, width


def read_labels(task: Task) -> tuple[Labels | None, list[Fault]]:
    """Return the labels that training uses: the CSV's, otherwise the GeoJSON's, which is checked in any case."""
    path = geojson_path(task.root, task.image_id)
    if task.split == "test_public" or (task.labels is not None and not path.exists()):
        return task.labels, []
    if not path.exists():
        return None, [Fault("no labels", task.image_id, "the tile is in neither the CSV nor a GeoJSON")]
    corner = next((found for file in task.files.values() if (found := read_corner(file))), None)
    if corner is None:  # a fault of the images
        return task.labels, []
    try:
        labels = read_geojson_labels(path, corner, SpaceNet6.crs, SpaceNet6.pixel_size)
    except UserError as error:
        return task.labels, [Fault("labels" if task.labels is None else "geojson", str(path), str(error))]
    return (labels if task.labels is None else task.labels), []


def read_corner(path: Path) -> Corner | None:
    """Read the west and north edge of an image in metres; None where it is unreadable, a fault of its own."""
    try:
        with open_raster(path, TILE_DRIVER) as source:
            return source.bounds.left, source.bounds.top
    except (UserError, RasterioError, OSError):
        return None


def label_faults(labels: Labels, outside: Bool[np.ndarray, " n"], image: Image, where: str) -> Iterator[Fault]:
    """Find footprints that are not on valid pixels of their tile.

    Args:
        labels: footprints in pixels of 0.5 m
        outside: which of them are entirely outside the tile
        image: an image of the tile
        where: image id of the tile
    """
    height, width = size_on_label_grid(image)
    west, north, east, south = shapely.bounds(labels.polygons).reshape(-1, 4).T
    over_edge = ~outside & (np.maximum.reduce([-west, -north, east - width, south - height]) > MAX_OVER_EDGE)
    if outside.any():
        yield Fault("labels outside tile", where, f"{outside.sum()} of {len(labels)} footprints are outside the tile")
    if over_edge.any():
        yield Fault("labels over edge", where, f"{over_edge.sum()} of {len(labels)} footprints extend over the edge")
    on_tile = len(polygons_in_mask(labels, MIN_AREA, SpaceNet6.pixel_size)) and not outside.all()
    if on_tile and image.valid and not image.statistics.building:
        yield Fault("labels on nodata", where, f"all {len(labels)} footprints are on nodata")
