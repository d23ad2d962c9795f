"""One tile inspected: its images, and whether its labels lie on them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import shapely
from rasterio.errors import RasterioError

from sn6.datasets.layout import PIXEL, PRODUCTS, Split, geojson_path
from sn6.datasets.statistics import polygons_in_mask
from sn6.errors import UserError
from sn6.footprints import Labels
from sn6.footprints.ground import Corner
from sn6.formats.geojson import read_geojson_labels
from sn6.inspection.faults import Fault
from sn6.inspection.images import Image, inspect_image

MIN_AREA = 20.0  # m²; the default of data.min_area, so that a training finds the sums that it wants
OVER_EDGE = 1.0  # pixels by which a footprint may reach over the edge


@dataclass(frozen=True, eq=False)
class Task:
    """A tile to inspect.

    Attributes:
        root: of the archive
        split: "train" or "test_public"
        image_id: of the tile
        files: product → path
        labels: that the CSV has of the tile, None where it has none
    """

    root: Path
    split: Split
    image_id: str
    files: dict[str, Path]
    labels: Labels | None


@dataclass(frozen=True, eq=False)
class Inspected:
    """A tile after inspection.

    Attributes:
        split: "train" or "test_public"
        image_id: of the tile
        images: product → what was read of it, the radar first; without those that cannot be used
        buildings: footprints in its labels, None where they are not known
        faults: of the tile alone
    """

    split: Split
    image_id: str
    images: dict[str, Image]
    buildings: int | None
    faults: list[Fault]

    @property
    def strip(self) -> str:
        return self.image_id.rpartition("_tile_")[0]


def inspect(task: Task) -> Inspected:
    """Reads all files of a tile."""
    labels, faults = labels_of(task)
    footprints, images = polygons_in_mask(labels, MIN_AREA), {}
    for product, path in task.files.items():
        image, found = inspect_image(path, product, footprints)
        faults += found
        if image is not None:
            images[product] = image
    if labels is not None and images:
        faults += label_faults(labels, next(iter(images.values())), task.image_id)
    return Inspected(task.split, task.image_id, images, None if labels is None else len(labels), faults)


def labels_of(task: Task) -> tuple[Labels | None, list[Fault]]:
    """The labels as a training reads them: the CSV's, else the GeoJSON's, which is looked at all the same."""
    path = geojson_path(task.root, task.image_id)
    if task.split == "test_public" or (task.labels is not None and not path.exists()):
        return task.labels, []
    if not path.exists():
        return None, [Fault("no labels", task.image_id, "neither the CSV nor a GeoJSON knows the tile")]
    try:
        read = read_geojson_labels(path, corner_of(next(iter(task.files.values()))))
    except UserError as error:
        return task.labels, [Fault("labels" if task.labels is None else "geojson", str(path), str(error))]
    return (read if task.labels is None else task.labels), []


def corner_of(path: Path) -> Corner:
    """West and north edge in metres of a file; of one that cannot be opened, which is told elsewhere, any place."""
    try:
        with rasterio.open(path) as source:
            return source.bounds.left, source.bounds.top
    except (RasterioError, OSError):
        return 0.0, 0.0


def label_faults(labels: Labels, image: Image, where: str) -> Iterator[Fault]:
    """Where footprints do not lie on their tile.

    Args:
        labels: in pixels of 0.5 m
        image: of the tile, with its mask counted
        where: the tile
    """
    height, width = (side * PRODUCTS[image.product].pixel / PIXEL for side in image.shape)
    west, north, east, south = shapely.bounds(labels.polygons).reshape(-1, 4).T
    outside = (east <= 0) | (south <= 0) | (west >= width) | (north >= height)
    over = np.maximum.reduce([-west, -north, east - width, south - height]) > OVER_EDGE
    if outside.any():
        yield Fault("labels off tile", where, f"{outside.sum()} of {len(labels)} footprints lie outside the tile")
    if (over & ~outside).any():
        told = f"{(over & ~outside).sum()} of {len(labels)} footprints reach over its edge"
        yield Fault("labels over edge", where, told)
    on_tile = len(polygons_in_mask(labels, MIN_AREA)) and not outside.all()
    if on_tile and image.valid and image.sums is not None and not image.sums.building:
        yield Fault("labels on nodata", where, f"all of its {len(labels)} footprints lie on nodata")
