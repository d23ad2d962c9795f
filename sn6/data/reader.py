"""Read the pixels and labels of tiles, in the sensor's frame."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int32

from sn6.data.augment import Sample, Window, crop_sample, rotate_180, whole_tile
from sn6.data.source import Source, is_rotated
from sn6.datasets.archive import Archive, Tile
from sn6.datasets.statistics import polygons_in_mask
from sn6.footprints import Labels
from sn6.targets.boundary import PixelWeights
from sn6.targets.rasterize import drop_unobserved, rasterize_instances

SelectWindow = Callable[[np.ndarray], Window]  # valid pixels (h, w) of a tile → the window to read


def rasterize_labels(
    labels: Labels | None, valid: Bool[np.ndarray, "h w"], min_area: float
) -> Int32[np.ndarray, "h w"]:
    """Return the number of the building at each pixel, for the buildings that belong in the mask; 0 elsewhere."""
    return drop_unobserved(rasterize_instances(polygons_in_mask(labels, min_area), *valid.shape), valid)


def read_sample(archive: Archive, tile: Tile, source: Source) -> Sample:
    """Read `image (c, h, w)` as on disk, `instances (1, h, w)` int32 and `valid (1, h, w)`, in the sensor's frame."""
    image, valid = archive.read(tile, source.product, source.bands)
    instances = rasterize_labels(archive.labels(tile), valid, source.min_area)
    sample = {"image": image, "instances": instances[None], "valid": valid[None], "image_id": tile.image_id}
    return rotate_180(sample) if is_rotated(tile, source) else sample


@runtime_checkable
class Reader(Protocol):
    """Read the pixels of tiles: from the archive's GeoTIFFs, or from a store made from them."""

    def read(self, tile: Tile, select_window: SelectWindow = whole_tile) -> Sample:
        """Read the window of a tile that `select_window` returns, in the sensor's frame.

        Returns:
            `image (c, h, w)` float32 in the units of the product, `instances (1, h, w)` int32, `valid (1, h, w)` bool,
            `boundary (1, h, w)` float32 where the loss weighs pixels, and `image_id`.
        """


class GeoTIFFReader:
    """Decode the whole tile at each read, then crop it.

    Args:
        archive: archive of the tiles
        source: product, bands and labels
        pixel_weights: weights of the loss; their boundary term needs the whole tile
    """

    def __init__(self, archive: Archive, source: Source, pixel_weights: PixelWeights | None) -> None:
        self.archive = archive
        self.source = source
        self.pixel_weights = pixel_weights

    def read(self, tile: Tile, select_window: SelectWindow = whole_tile) -> Sample:
        """Read a window, see `Reader`."""
        sample = read_sample(self.archive, tile, self.source)
        if self.pixel_weights is not None:
            sample["boundary"] = self.pixel_weights.boundary(sample["instances"][0])[None]
        return crop_sample(sample, select_window(sample["valid"][0]))
