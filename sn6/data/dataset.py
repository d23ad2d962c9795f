"""Samples: tiles as tensors in the radar's own frame, whole or as random crops."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32
from torch.utils.data import DataLoader, Dataset, Sampler

from sn6.data.archive import Archive, Tile
from sn6.data.augment import Augmentation, Sample, arrays, augment, random_crop, turn
from sn6.data.layout import PRODUCTS
from sn6.data.sums import mask_polygons, tile_sums
from sn6.errors import UserError
from sn6.footprints import Labels
from sn6.footprints.rasterize import drop_unseen, rasterize_instances

Nodata = Literal["zero", "as_is"]
PixelWeights = Callable[[np.ndarray, float], np.ndarray]  # instances (h, w), building fraction → weights (h, w)


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


def is_turned(tile: Tile, source: Source) -> bool:
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


def read_sample(archive: Archive, tile: Tile, source: Source) -> Sample:
    """`image (c, h, w)` as on disk, `instances (1, h, w)` int32, `valid (1, h, w)`, in the radar's own frame."""
    image, valid = archive.read(tile, source.product, source.bands)
    polygons = mask_polygons(archive.labels(tile), source.min_area)
    instances = drop_unseen(rasterize_instances(polygons, *valid.shape), valid)
    sample = {"image": image, "instances": instances[None], "valid": valid[None], "image_id": tile.image_id}
    return turn(sample) if is_turned(tile, source) else sample


def measure(archive: Archive, tiles: Sequence[Tile], source: Source, most: int = 200) -> Statistics:
    """Mean and deviation per band and the share of building, over the valid pixels of up to `most` tiles.

    The tiles are taken evenly from `tiles`, which are the training tiles of a fold: no statistic sees the ground
    that validates. Tiles that were measured before are not read again, see `sn6.data.sums`.

    Raises:
        UserError: there is no valid pixel
    """
    chosen = [tiles[i] for i in np.unique(np.linspace(0, len(tiles) - 1, min(most, len(tiles))).astype(int))]
    sums = tile_sums(archive, chosen, source.product, source.min_area)
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
    normalized = (image - mean) / std
    return normalized if nodata == "as_is" else np.where(valid, normalized, np.float32(0))


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
        pixel_weights: the loss's, over the instances of a whole tile
    """

    def __init__(
        self,
        archive: Archive,
        tiles: Sequence[Tile],
        source: Source,
        statistics: Statistics,
        nodata: Nodata = "zero",
        pixel_weights: PixelWeights | None = None,
    ) -> None:
        self.archive = archive
        self.tiles = list(tiles)
        self.source = source
        self.statistics = statistics
        self.nodata = nodata
        self.pixel_weights = pixel_weights

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return as_tensors(self.sample(index))

    def sample(self, index: int) -> Sample:
        """The sample in NumPy arrays."""
        sample = read_sample(self.archive, self.tiles[index], self.source)
        instances, valid = sample.pop("instances"), sample["valid"]
        sample["image"] = normalize(sample["image"], valid, self.statistics, self.nodata)
        sample["mask"] = (instances > 0).astype(np.float32)
        if self.pixel_weights is not None:
            assert self.statistics.building_fraction is not None
            sample["weight"] = self.pixel_weights(instances[0], self.statistics.building_fraction)[None]
        return sample | {"index": index}

    def turned(self, index: int) -> bool:
        """Whether the sample is turned by 180° against the tile's own frame."""
        return is_turned(self.tiles[index], self.source)

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
        epoch, draw = epoch_and_draw
        rng = np.random.default_rng([self.seed, epoch, draw])
        sample = random_crop(self.tiles.sample(draw % len(self.tiles)), self.crop, rng)
        return as_tensors(augment(sample, self.augmentation, rng))


class EpochSampler(Sampler[tuple[int, int]]):
    """The order of the draws, a function of (seed, epoch) alone, dealt out so that N ranks see the batches of one.

    The draws are shuffled and wrapped around to whole batches. Of each batch every rank takes its equal share.
    Lightning calls `set_epoch`; the epoch travels with each draw, so that persistent workers need not be told.

    Args:
        draws: in an epoch
        batch_size: over all ranks
        seed: of the run
        rank: this process
        ranks: how many there are; they divide `batch_size`
    """

    def __init__(self, draws: int, batch_size: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        self.draws = draws
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.ranks = ranks
        self.epoch = 0
        self.skip = 0  # batches of the epoch that are left out

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before an epoch begins."""
        self.epoch = epoch

    @property
    def batches(self) -> int:
        """Of an epoch, the same on every rank."""
        return -(-self.draws // self.batch_size)

    def __len__(self) -> int:
        return self.batches * self.batch_size // self.ranks

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.draws)
        dealt = np.resize(order, (self.batches, self.ranks, self.batch_size // self.ranks))
        return iter((self.epoch, int(draw)) for draw in dealt[self.skip :, self.rank].ravel())


class ResumableLoader(DataLoader):
    """A DataLoader over an EpochSampler that goes on in the middle of an epoch.

    Lightning keeps `state_dict` in its checkpoints and loads it before the first epoch of a run that goes on.
    """

    sampler: EpochSampler
    given = 0  # batches of the epoch so far
    loaded: Mapping[str, int] | None = None

    def state_dict(self) -> dict[str, int]:
        """How many batches of which epoch were given out."""
        return {"epoch": self.sampler.epoch, "given": self.given}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """That epoch, if it comes again, begins after those batches."""
        self.loaded = state_dict

    def __iter__(self) -> Any:
        # A generator: the workers start with the first batch, when the sampler knows its epoch.
        is_same_epoch = self.loaded is not None and self.loaded["epoch"] == self.sampler.epoch
        self.given = self.sampler.skip = self.loaded["given"] if self.loaded and is_same_epoch else 0
        self.loaded = None
        for batch in super().__iter__():
            self.given += 1
            yield batch


def as_tensors(sample: Sample) -> dict[str, Any]:
    """The arrays of a sample as contiguous tensors."""
    return sample | {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in arrays(sample).items()}
