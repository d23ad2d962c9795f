"""Make samples from tiles: whole tiles or random crops, as tensors in the sensor's frame."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64, Integer
from torch import Tensor
from torch.utils.data import Dataset

from sn6.data.augment import (
    Augmentation,
    Sample,
    Window,
    apply_position,
    arrays,
    change_decibels,
    change_pixels,
    crop_window,
    draw_position,
    draw_warp,
    pad,
)
from sn6.data.normalization import Nodata, Statistics
from sn6.data.reader import NO_TARGETS, GeoTIFFReader, Reader
from sn6.data.samples import NO_WARP, ChangeDecibels, Layers, SampleMaker
from sn6.data.source import Source, is_rotated
from sn6.data.warp import Warp
from sn6.datasets.declaration import DataSet, Tile
from sn6.datasets.statistics import polygons_in_mask
from sn6.errors import UserError
from sn6.footprints import Labels
from sn6.targets.target import Position, Target

SAMPLE_KEYS = ("image", "instances", "mask", "valid", "image_id", "index")  # of samples and what they are made from
HALF_ROTATION = 2  # number of rotations by 90°


class TileDataset(Dataset):
    """Make samples of whole tiles.

    A sample is a dict: `image (c, h, w)` float32 normalised, `mask (1, h, w)` float32 of 0 and 1, `valid (1, h, w)`
    bool, the map `(k, h, w)` float32 of each target, `image_id`, and `index`, the index of the tile in `tiles`. All are
    in the sensor's frame.

    Args:
        data_set: of the tiles
        tiles: tiles in the order of the samples
        source: product, bands and labels
        statistics: for the normalisation and the class balance
        nodata: values of nodata pixels after the normalisation
        targets: by name, which is the key of the map in a sample
        reader: reader of the same source; None reads the GeoTIFFs
    """

    def __init__(
        self,
        data_set: DataSet,
        tiles: Sequence[Tile],
        source: Source,
        statistics: Statistics,
        nodata: Nodata = "zero",
        targets: Mapping[str, Target] = NO_TARGETS,
        reader: Reader | None = None,
    ) -> None:
        self.data_set = data_set
        self.tiles = list(tiles)
        self.source = source
        self.statistics = statistics
        self.nodata = nodata
        self.targets = targets
        self.reader = reader or GeoTIFFReader(data_set, source, targets)
        self.maker = SampleMaker(statistics, nodata, targets)

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return as_tensors(self.sample(index))

    def sample(self, index: int) -> Sample:
        """Return a sample as NumPy arrays."""
        layers = self.reader.read(self.tiles[index])
        pixels = self.fill(index, as_tensors(arrays(layers)))
        about = {"image_id": layers["image_id"], "index": index}
        return {name: values.numpy() for name, values in pixels.items()} | about

    def fill(
        self,
        index: int,
        layers: Layers,
        position: Position = (False, 0),
        warp: Warp = NO_WARP,
        inside: Bool[Tensor, "1 h w"] | None = None,
        change_decibels: ChangeDecibels | None = None,
    ) -> dict[str, Tensor]:
        """Return the pixels of a sample.

        Args:
            index: of the tile
            layers: of its window, in `position`, then scaled and rotated by `warp`
            position: from the sensor's frame
            warp: after it
            inside: false beyond the tile, None where there is no such pixel
            change_decibels: changes the image before its normalisation
        """
        sample = {name: pixels[0] for name, pixels in self.maker.empty(1, *layers["valid"].shape[-2:]).items()}
        flip, quarters = position
        if self.is_rotated(index):
            quarters = (quarters + HALF_ROTATION) % 4
        self.maker.fill(sample, layers, (flip, quarters), warp, inside, change_decibels=change_decibels)
        return sample

    def is_rotated(self, index: int) -> bool:
        """Return whether the sample is rotated by 180° relative to the tile's own frame."""
        return is_rotated(self.data_set, self.tiles[index], self.source)

    def labels(self, index: int) -> Labels:
        """Return the footprints of a tile, in the tile's own frame."""
        labels = self.data_set.labels(self.tiles[index])
        assert labels is not None, "the datamodule leaves out tiles without labels"
        return labels


class CropDataset(Dataset):
    """Make random crops of the samples of a TileDataset; each depends only on (seed, epoch, draw).

    Args:
        tiles: dataset of whole tiles
        crop: edge length in pixels
        crops_per_tile: crops of each tile in an epoch
        augmentation: see `sn6.data.augment`
        seed: seed of the run
        prefer_buildings: fraction of the crops that contain a pixel of a building, before they are rotated: of a tile
            that is drawn with a probability proportional to its number of buildings, any of its pixels
    """

    def __init__(
        self,
        tiles: TileDataset,
        crop: int,
        crops_per_tile: int,
        augmentation: Augmentation,
        seed: int,
        prefer_buildings: float = 0.0,
    ) -> None:
        self.tiles = tiles
        self.crop = crop
        self.crops_per_tile = crops_per_tile
        self.augmentation = augmentation
        self.seed = seed
        self.prefer_buildings = prefer_buildings
        self.buildings = self.count_buildings() if prefer_buildings else np.zeros(len(tiles), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.tiles) * self.crops_per_tile

    def __getitem__(self, epoch_and_draw: tuple[int, int]) -> dict[str, Any]:
        index, prefers, rng = self.draw_tile(*epoch_and_draw)
        warp = draw_warp(self.augmentation, rng)
        select = partial(self.select_window, prefers=prefers, warp=warp, rng=rng)
        read = self.tiles.reader.read(self.tiles.tiles[index], select)
        position, layers = draw_position(self.augmentation, rng), arrays(read)
        if warp.is_identity:
            layers = pad_with_inside(layers, self.crop)
        moved = {name: apply_position(pixels, position) for name, pixels in as_tensors(layers).items()}
        inside = moved.pop("inside", None)
        if not warp.is_identity:
            all_valid = bool(moved["valid"].all())
            moved, inside = self.tiles.maker.resample(moved, warp, self.crop, all_valid)
        sample = self.tiles.fill(index, moved, position, warp, inside, self.change_decibels(rng))
        sample = change_pixels(self.augmentation, sample, rng, self.tiles.nodata)
        return sample | {"image_id": read["image_id"], "index": index}

    def select_window(
        self,
        valid: Bool[np.ndarray, "h w"],
        instances: Integer[np.ndarray, "h w"],
        prefers: bool,
        warp: Warp,
        rng: np.random.Generator,
    ) -> Window:
        """Draw the window of a tile in the sensor's frame that a crop is made from, see `crop_window`."""
        return crop_window(valid, warp.source_size(self.crop), rng, instances if prefers else None)

    def change_decibels(self, rng: np.random.Generator) -> ChangeDecibels | None:
        """Return what changes the decibels of a crop; None where nothing does, as with optical tiles."""
        is_unchanged = type(self.augmentation).decibels is Augmentation.decibels
        if is_unchanged or self.tiles.source.product.optical:
            return None
        return partial(change_decibels, augmentation=self.augmentation, rng=rng)

    def count_buildings(self) -> Int64[np.ndarray, " tiles"]:
        """Return the number of buildings in the mask of each tile."""
        data, min_area, grid = self.tiles, self.tiles.source.min_area, self.tiles.source.product.grid
        return np.array([len(polygons_in_mask(data.labels(index), min_area, grid)) for index in range(len(data))])

    def draw_tile(self, epoch: int, draw: int) -> tuple[int, bool, np.random.Generator]:
        """Return the tile of a crop, whether the crop prefers buildings, and the generator of all else about it."""
        rng = np.random.default_rng([self.seed, epoch, draw])
        total = self.buildings.sum()
        if total and rng.random() < self.prefer_buildings:
            return int(rng.choice(len(self.tiles), p=self.buildings / total)), True, rng
        return draw % len(self.tiles), False, rng


def pad_with_inside(layers: Sample, crop: int) -> Sample:
    """Pad the layers of a window to a crop, and add `inside`, false beyond the window, where it is smaller."""
    height, width = layers["valid"].shape[-2:]
    if min(height, width) == crop:
        return layers
    return pad(layers | {"inside": np.ones((1, height, width), dtype=bool)}, crop)


def as_tensors(sample: Sample) -> dict[str, Any]:
    """Convert the arrays of a sample to contiguous tensors."""
    return sample | {key: torch.from_numpy(contiguous(value)) for key, value in arrays(sample).items()}


def contiguous(array: np.ndarray) -> np.ndarray:
    """Return an array in C order without negative strides, which NumPy takes for contiguous along an edge of one."""
    return np.ascontiguousarray(array) if min(array.strides, default=0) >= 0 else array.copy()


def check_target_names(targets: Mapping[str, Target]) -> None:
    """Raise a UserError if a target has the name of another entry of a sample."""
    for name in targets:
        if name in SAMPLE_KEYS:
            raise UserError(
                f"a head or a target of the loss is named {name!r}, which every sample has; choose a name other than "
                f"{', '.join(SAMPLE_KEYS)}",
                kind="conflict",
                key=name,
            )
