"""Samples: tiles as tensors in the radar's own frame, whole or as random crops."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int32
from torch import Tensor
from torch.utils.data import Dataset

from sn6.data.augment import (
    Augmentation,
    Sample,
    Window,
    apply_position,
    arrays,
    crop_window,
    cut,
    draw_position,
    pad,
    rotate_180,
    whole_tile,
)
from sn6.datasets.archive import Archive, Tile
from sn6.datasets.layout import PRODUCTS
from sn6.datasets.statistics import polygons_in_mask, tile_statistics
from sn6.errors import UserError
from sn6.footprints import Labels
from sn6.targets.boundary import PixelWeights
from sn6.targets.rasterize import drop_unobserved, rasterize_instances

Nodata = Literal["zero", "as_is"]
Choose = Callable[[np.ndarray], Window]  # from the valid pixels (h, w) of a tile the part of it that is wanted


@dataclass(frozen=True)
class Source:
    """What of an archive becomes a sample.

    Attributes:
        product: "SAR-Intensity" or an optical one
        bands: counted from 1, in the order of the sample's channels
        orient: whether radar tiles of orientation 1 are turned by 180°
        min_area: m²; smaller footprints are not in the mask
    """

    product: str
    bands: tuple[int, ...]
    orient: bool
    min_area: float

    def __post_init__(self) -> None:
        names = PRODUCTS[self.product].bands
        wrong = [band for band in self.bands if not 1 <= band <= len(names)]
        if wrong or not self.bands:
            raise UserError(
                f"data.bands={list(self.bands)} does not do: {self.product} has the bands 1 to {len(names)} "
                f"({', '.join(names)})"
            )


@dataclass(frozen=True)
class Statistics:
    """What is known of the training tiles of a fold, over valid pixels.

    Attributes:
        mean: per band of the sample
        std: per band of the sample
        building_fraction: share of valid pixels that are building, None where nobody asked for it
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    building_fraction: float | None


def is_rotated(tile: Tile, source: Source) -> bool:
    """Whether a sample of the tile is turned by 180° against the tile's own frame.

    Raises:
        UserError: the orientation table lacks the strip
    """
    if not source.orient or PRODUCTS[source.product].optical:
        return False
    if tile.orientation is None:
        raise UserError(
            f"SAR_orientations.txt lacks the strip {tile.strip} of {tile.image_id}; add a line '{tile.strip} 0' "
            "(imaged from the north) or 1 (from the south), or set data.orient=false"
        )
    return tile.orientation == 1


def rasterize_labels(
    labels: Labels | None, valid: Bool[np.ndarray, "h w"], min_area: float
) -> Int32[np.ndarray, "h w"]:
    """The footprints that are in the mask, numbered."""
    return drop_unobserved(rasterize_instances(polygons_in_mask(labels, min_area), *valid.shape), valid)


def read_sample(archive: Archive, tile: Tile, source: Source) -> Sample:
    """`image (c, h, w)` as on disk, `instances (1, h, w)` int32, `valid (1, h, w)`, in the radar's own frame."""
    image, valid = archive.read(tile, source.product, source.bands)
    instances = rasterize_labels(archive.labels(tile), valid, source.min_area)
    sample = {"image": image, "instances": instances[None], "valid": valid[None], "image_id": tile.image_id}
    return rotate_180(sample) if is_rotated(tile, source) else sample


@runtime_checkable
class Reader(Protocol):
    """Where the pixels of tiles come from: the archive's GeoTIFFs, or a store that was made of them."""

    def read(self, tile: Tile, choose: Choose = whole_tile) -> Sample:
        """The part of a tile that `choose` wants, in the radar's own frame.

        Returns:
            `image (c, h, w)` float32 in the units of the product, `instances (1, h, w)` int32, `valid (1, h, w)` bool,
            `boundary (1, h, w)` float32 where the loss weighs pixels, and `image_id`.
        """


class GeoTIFFs:
    """Decodes the whole tile at each read, and then cuts.

    Args:
        archive: where the tiles lie
        source: product, bands and labels
        pixel_weights: the loss's, whose boundary term is over a whole tile
    """

    def __init__(self, archive: Archive, source: Source, pixel_weights: PixelWeights | None) -> None:
        self.archive = archive
        self.source = source
        self.pixel_weights = pixel_weights

    def read(self, tile: Tile, choose: Choose = whole_tile) -> Sample:
        """See `Reader`."""
        sample = read_sample(self.archive, tile, self.source)
        if self.pixel_weights is not None:
            sample["boundary"] = self.pixel_weights.boundary(sample["instances"][0])[None]
        return cut(sample, choose(sample["valid"][0]))


def measure_statistics(archive: Archive, tiles: Sequence[Tile], source: Source, most: int = 200) -> Statistics:
    """Mean and deviation per band and the share of building, over the valid pixels of up to `most` tiles.

    The tiles are taken evenly from `tiles`, which are the training tiles of a fold: no statistic sees the ground
    that validates. Tiles that were measured before are not read again, see `sn6.datasets.statistics`.

    Raises:
        UserError: there is no valid pixel
    """
    chosen = [tiles[i] for i in np.unique(np.linspace(0, len(tiles) - 1, min(most, len(tiles))).astype(int))]
    sums = tile_statistics(archive, chosen, source.product, source.min_area)
    count, building = sum(tile.pixels for tile in sums), sum(tile.building for tile in sums)
    bands = np.asarray(source.bands) - 1
    total, squares = (np.sum([getattr(tile, of) for tile in sums], axis=0)[bands] for of in ("total", "squares"))
    if count == 0:
        raise UserError(f"the {len(tiles)} training tiles of {archive.root} hold nodata alone; choose another fold")
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-12))
    return Statistics(tuple(mean.tolist()), tuple(std.tolist()), building / count)


def normalize(
    image: Float32[np.ndarray, "c h w"], valid: np.ndarray, statistics: Statistics, nodata: Nodata
) -> Float32[np.ndarray, "c h w"]:
    """(x − mean) / deviation per band; nodata becomes 0 after it, or what that gives when `nodata` is "as_is"."""
    mean = np.array(statistics.mean, dtype=np.float32)[:, None, None]
    std = np.array(statistics.std, dtype=np.float32)[:, None, None]
    normalized = image - mean
    normalized /= std
    if nodata == "zero":
        np.copyto(normalized, 0, where=~valid)
    return normalized


class TileDataset(Dataset):
    """Whole tiles.

    A sample is a dict: `image (c, h, w)` float32 normalised, `mask (1, h, w)` float32 of 0 and 1, `valid (1, h, w)`
    bool, `weight (1, h, w)` float32 where `pixel_weights` is given, `image_id`, and `index`, the tile's place in
    the list. All are in the radar's own frame.

    Args:
        archive: where the tiles lie
        tiles: in the order of the index
        source: product, bands and labels
        statistics: for the normalisation and the class balance
        nodata: what nodata pixels hold after the normalisation
        pixel_weights: the loss's
        reader: of the same source; None reads the GeoTIFFs
    """

    def __init__(
        self,
        archive: Archive,
        tiles: Sequence[Tile],
        source: Source,
        statistics: Statistics,
        nodata: Nodata = "zero",
        pixel_weights: PixelWeights | None = None,
        reader: Reader | None = None,
    ) -> None:
        self.archive = archive
        self.tiles = list(tiles)
        self.source = source
        self.statistics = statistics
        self.nodata = nodata
        self.pixel_weights = pixel_weights
        self.reader = reader or GeoTIFFs(archive, source, pixel_weights)

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return as_tensors(self.sample(index))

    def sample(self, index: int, choose: Choose = whole_tile) -> Sample:
        """The sample, or a part of it, in NumPy arrays."""
        sample = self.reader.read(self.tiles[index], choose)
        building, valid = sample.pop("instances") > 0, sample["valid"]
        sample["image"] = normalize(sample["image"], valid, self.statistics, self.nodata)
        sample["mask"] = building.astype(np.float32)
        if self.pixel_weights is not None:
            assert self.statistics.building_fraction is not None
            boundary = sample.pop("boundary")
            sample["weight"] = self.pixel_weights.total(building, boundary, self.statistics.building_fraction)
        return sample | {"index": index}

    def turned(self, index: int) -> bool:
        """Whether the sample is turned by 180° against the tile's own frame."""
        return is_rotated(self.tiles[index], self.source)

    def labels(self, index: int) -> Labels:
        """The footprints of the tile, in the tile's own frame."""
        labels = self.archive.labels(self.tiles[index])
        assert labels is not None, "the datamodule leaves out tiles without labels"
        return labels


class CropDataset(Dataset):
    """Random crops of a TileDataset, asked for by (epoch, draw): each is a function of (seed, epoch, draw) alone.

    Args:
        tiles: whole tiles
        crop: pixels a side
        crops_per_tile: crops of a tile in one epoch
        augmentation: see `sn6.data.augment`
        seed: of the run
    """

    def __init__(
        self, tiles: TileDataset, crop: int, crops_per_tile: int, augmentation: Augmentation, seed: int
    ) -> None:
        self.tiles = tiles
        self.crop = crop
        self.crops_per_tile = crops_per_tile
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.tiles) * self.crops_per_tile

    def __getitem__(self, epoch_and_draw: tuple[int, int]) -> dict[str, Any]:
        index, rng = self.drawn(*epoch_and_draw)
        sample = as_tensors(pad(self.tiles.sample(index, partial(crop_window, crop=self.crop, rng=rng)), self.crop))
        position = draw_position(self.augmentation, rng)
        pixels = {key: value for key, value in sample.items() if isinstance(value, Tensor)}
        return sample | {key: apply_position(value, position).contiguous() for key, value in pixels.items()}

    def drawn(self, epoch: int, draw: int) -> tuple[int, np.random.Generator]:
        """The tile's place in the list, and what draws first the crop's place in it and then its position."""
        return draw % len(self.tiles), np.random.default_rng([self.seed, epoch, draw])


def as_tensors(sample: Sample) -> dict[str, Any]:
    """The arrays of a sample as contiguous tensors."""
    return sample | {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in arrays(sample).items()}
