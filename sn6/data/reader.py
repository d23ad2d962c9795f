"""Read the pixels and labels of tiles, in the sensor's frame."""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from sn6.data.augment import Sample, Window, crop_sample, rotate_180, whole_tile
from sn6.data.source import Source, is_rotated
from sn6.datasets.declaration import DataSet, Tile
from sn6.datasets.statistics import labels_in_mask
from sn6.footprints import Labels
from sn6.targets.rasterize import drop_unobserved, rasterize_instances
from sn6.targets.target import Target, TileLabels, tile_layers

SelectWindow = Callable[[np.ndarray, np.ndarray], Window]  # valid pixels and instances (h, w) → the window to read
NO_TARGETS: Mapping[str, Target] = {}


def rasterize_labels(
    labels: Labels | None, valid: Bool[np.ndarray, "h w"], min_area: float, pixel_size: float
) -> TileLabels:
    """Return the number of the building at each pixel, their heights and classes, of those that belong in the mask."""
    buildings = labels_in_mask(labels, min_area, pixel_size)
    instances = drop_unobserved(rasterize_instances(buildings.polygons, *valid.shape), valid)
    classes = None if buildings.classes is None else np.append(0, buildings.classes)
    return TileLabels(instances, valid, np.append(np.nan, buildings.heights), pixel_size, classes)


def read_sample(data_set: DataSet, tile: Tile, source: Source, targets: Mapping[str, Target] = NO_TARGETS) -> Sample:
    """Read a tile in the sensor's frame.

    Returns:
        `image (c, h, w)` as on disk, `instances (1, h, w)` int32, `valid (1, h, w)` bool, the layer `(k, h, w)` of each
        target as it is stored, for the tile's own frame, and `image_id`.
    """
    image, valid = data_set.read(tile, source.product.name, source.bands)
    labels = rasterize_labels(data_set.labels(tile), valid, source.min_area, source.product.grid)
    sample: Sample = {"image": image, "instances": labels.instances[None], "valid": valid[None]}
    sample |= {"image_id": tile.image_id} | tile_layers(targets, labels)
    return rotate_180(sample) if is_rotated(data_set, tile, source) else sample


@runtime_checkable
class Reader(Protocol):
    """Read the pixels of tiles: from the files of a data set, or from a store made from them."""

    def read(self, tile: Tile, select_window: SelectWindow = whole_tile) -> Sample:
        """Read the window of a tile that `select_window` returns, in the sensor's frame.

        Returns:
            `image (c, h, w)` float32 in the units of the product, `instances (1, h, w)` int32, `valid (1, h, w)` bool,
            the layer `(k, h, w)` of each target as it is stored, for the tile's own frame, and `image_id`.
        """


class GeoTIFFReader:
    """Decode the whole tile at each read, then crop it.

    Args:
        data_set: of the tiles
        source: product, bands and labels
        targets: by name; their layers are computed at each read, from the whole tile
    """

    def __init__(self, data_set: DataSet, source: Source, targets: Mapping[str, Target] = NO_TARGETS) -> None:
        self.data_set = data_set
        self.source = source
        self.targets = targets

    def read(self, tile: Tile, select_window: SelectWindow = whole_tile) -> Sample:
        """Read a window, see `Reader`."""
        sample = read_sample(self.data_set, tile, self.source, self.targets)
        return crop_sample(sample, select_window(sample["valid"][0], sample["instances"][0]))
