"""Load batches of a fold of a data set: the LightningDataModule."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import numpy as np
import torch
from lightning import LightningDataModule
from pydantic import Field, NonNegativeInt, PositiveInt
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from sn6.config.types import MAX_WINDOW, MAX_WORKERS, MAY_CHANGE, PER_STAGE, Seed
from sn6.data.augment import Augmentation
from sn6.data.dataset import CropDataset, TileDataset, check_target_names
from sn6.data.folds import (
    Fold,
    bounds_of,
    check_footprints,
    check_parts,
    make_fold,
    select_tiles,
    with_fraction,
    with_product,
)
from sn6.data.ground import Ground
from sn6.data.limits import limited_tiles
from sn6.data.mixture import MixedCrops, check_same_samples
from sn6.data.normalization import Nodata, Statistics, measure_statistics
from sn6.data.partitions import PARTITIONS, PartitionName
from sn6.data.reader import NO_TARGETS
from sn6.data.sampler import EpochSampler, ResumableLoader
from sn6.data.source import Source
from sn6.data.store import Store, store_folder
from sn6.data.stored_crops import StoredCrops, identity
from sn6.datasets.declaration import DataSet, Tile
from sn6.errors import UserError
from sn6.processes import start_loader_worker
from sn6.targets.target import Target

Pass = Literal["val", "test"]
Bands = Annotated[list[PositiveInt], Field(min_length=1)]  # numbers, counted from 1
PASSES: tuple[Pass, ...] = get_args(Pass)
SAME_STATISTICS = 1e-6  # relative difference of sums of the same pixels on different machines
log = logging.getLogger(__name__)


class TileDataModule(LightningDataModule):
    """Load training crops, and whole tiles for validation and test. conf/data documents the arguments.

    With further data, each batch has crops of all, normalised by the statistics of their own training tiles. Validation
    and test are of the data itself; training tiles of the further data that overlap these are left out.

    Args:
        data_set: not a key of conf/data, but made from those that its class has as arguments
        further: name → other data to train on, and how many of its crops an epoch has for each crop of the data; made
            from the key of this name
        augmentation: of the training crops; not a key of conf/data, but the group conf/augmentation
        targets: maps that the losses of the heads need, by name; not a key of the config

    Raises:
        UserError: the arguments do not fit one another, or (in `setup`) the data set or the fold cannot be used
    """

    def __init__(
        self,
        data_set: DataSet,
        *,
        product: Annotated[str | None, PER_STAGE] = None,
        bands: Annotated[Bands | None, PER_STAGE] = None,
        partition: PartitionName = "columns",
        fold: NonNegativeInt = 4,
        test_column: NonNegativeInt | None = None,
        train_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0,
        crop: Annotated[int, Field(gt=0, le=MAX_WINDOW)] = 512,
        crops_per_tile: PositiveInt = 1,
        prefer_buildings: Annotated[float, Field(ge=0, le=1)] = 0.0,
        batch_size: PositiveInt = 8,
        eval_batch_size: PositiveInt = 1,
        orient: bool = True,
        nodata: Nodata = "zero",
        mean: list[float] | None = None,
        std: list[float] | None = None,
        min_area: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 20.0,
        num_workers: Annotated[int, Field(ge=0, le=MAX_WORKERS), MAY_CHANGE] = 2,
        seed: Seed = 0,
        store: Literal["disk", "device"] | None = None,
        store_root: Annotated[str | None, MAY_CHANGE] = None,
        further: Mapping[str, tuple["TileDataModule", float]] | None = None,
        augmentation: Augmentation | None = None,
        targets: Mapping[str, Target] = NO_TARGETS,
    ) -> None:
        super().__init__()
        self.data_set = data_set
        declared = data_set.product(product, "data.product")
        self.source = Source(declared, tuple(bands or declared.default_bands or declared.numbers), orient, min_area)
        check_band_statistics(mean, std, len(self.source.bands))
        check_target_names(targets)
        check_parts(partition, fold, test_column)
        self.partition, self.fold_index, self.test_column = partition, fold, test_column
        self.train_fraction = train_fraction
        self.crop, self.crops_per_tile, self.augmentation = crop, crops_per_tile, augmentation or Augmentation()
        self.prefer_buildings = prefer_buildings
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        self.nodata, self.mean, self.std = nodata, mean, std
        self.seed, self.targets = seed, targets
        self.store_on, self.store_root = store, Path(store_root) if store_root is not None else None
        self.store: Store | None = None
        self.further = dict(further or {})
        for name, (other, _) in self.further.items():
            check_same_samples(self.source, other.source, f"data.further.{name}")
        self.train_tiles: TileDataset | None = None
        self.limits: dict[Pass, int | float] = {}
        self.repeats_epoch = False

    def count_over_ranks(self, trainer: Any) -> None:
        """Take over the trainer's limits of batches, which it counts on each rank, so that they are totals.

        A limit of validation or test is a number of `eval_batch_size` tiles, or a fraction of them, on all ranks
        together. Calibration uses the tiles of the validation. Training batches are totals already: each rank has a
        part of each. `overfit_batches` of Lightning limits training and validation, and repeats the crops of the first
        epoch; the sampler does that, as Lightning would replace it.
        """
        self.limits = {"val": trainer.limit_val_batches, "test": trainer.limit_test_batches}
        trainer.limit_val_batches = trainer.limit_test_batches = trainer.limit_predict_batches = 1.0
        self.repeats_epoch = trainer.overfit_batches > 0
        trainer.overfit_batches = 0.0

    def setup(self, stage: str | None = None) -> None:
        """Read the index and the labels, make the fold, and measure the training tiles."""
        if self.train_tiles is not None:
            return
        self.fold, self.scored_on = self._fold()
        self._prepare([*self.fold.train, *self.fold.validation, *self.fold.test])
        self.validation_tiles = self._dataset(self.fold.validation)
        self.test_tiles = self._dataset(self.fold.test)
        for use in PASSES:  # a limit that leaves nothing is found before the training
            self.scored_tiles(use)
        held_out = Ground(bounds_of([*self.fold.validation, *self.fold.test]), self.data_set.frame)
        for name, (other, _) in self.further.items():
            other.setup_training(held_out, f"data.further.{name}")

    def setup_training(self, held_out: Ground, key: str) -> None:
        """Read the index and the labels, make the fold, and measure the training tiles that are not held out.

        Args:
            held_out: ground of the tiles that validate and test the training
            key: of this data in the config, for messages

        Raises:
            UserError: no tile is left to train with
        """
        fold, _ = self._fold()
        is_held_out = Ground(bounds_of(fold.train), self.data_set.frame).overlapping(held_out)
        if number := int(is_held_out.sum()):
            log.info("%s: %d training tiles overlap validation or test tiles of data; left out", key, number)
        train = select_tiles(fold.train, ~is_held_out)
        if not train:
            raise UserError(
                f"{key} has no tile to train with: all of its {number} training tiles overlap validation or test tiles "
                f"of data; leave out {key}",
                kind="conflict",
                key=key,
            )
        self.fold = replace(fold, train=train)
        self._prepare(train)

    def _prepare(self, tiles: list[Tile]) -> None:
        """Measure the training tiles of the fold, and put `tiles` into the store."""
        self.statistics = self._statistics()
        if self.store_on is not None:
            folder = store_folder(self.data_set.root, self.store_root)
            self.store = Store(self.data_set, self.source, folder, self.targets)
            self.store.prepare(tiles)
        self.train_tiles = self._dataset(self.fold.train)

    def _statistics(self) -> Statistics:
        """Return the given mean and std, or measure them; the building fraction only where a target uses it."""
        needs_building_fraction = any(target.needs_building_fraction for target in self.targets.values())
        if self.mean is not None and self.std is not None and not needs_building_fraction:
            return Statistics(tuple(self.mean), tuple(self.std), None)
        measured = measure_statistics(self.data_set, self.fold.train, self.source)
        if self.mean is None or self.std is None:
            return measured
        return replace(measured, mean=tuple(self.mean), std=tuple(self.std))

    def _fold(self) -> tuple[Fold, str]:
        """Make the fold, and describe its test tiles.

        The fold is that of the SAR tiles for every product, so that an optical run and the SAR run that follows it
        separate the same ground even where a tile lacks its optical image.
        """
        product = self.source.product.name
        index = self.data_set.main_product() or product
        tiles = self._labelled(self.data_set.tiles("train", index))
        check_footprints(self.data_set, tiles)
        if product != index and self.data_set.has_product("train", product):
            self.data_set.tiles("train", product)  # checks the headers and positions of its images
        test: list[Tile] = []
        if self.test_column is None and self.data_set.has_test_labels:
            test = self._labelled(self.data_set.tiles("test_public", index))
        all_products = make_fold(tiles, self.fold_index, self.test_column, test, self.partition)
        fold = with_fraction(with_product(all_products, product), self.train_fraction, self.seed)
        noun = PARTITIONS[self.partition].noun
        if self.test_column is not None:
            return fold, f"test {noun} {self.test_column}"
        if test and not self.source.product.optical:
            return fold, "test tiles"
        # The test tiles have no optical image. Training tiles that overlap them are dropped all the same, for the SAR
        # run that follows.
        return replace(fold, test=fold.validation), f"validation {noun} {self.fold_index}, which also chose the epoch"

    def _labelled(self, tiles: list[Tile]) -> list[Tile]:
        labelled = [tile for tile in tiles if self.data_set.has_labels(tile)]
        if len(labelled) < len(tiles):
            log.warning("tiles without labels, which are left out: %d of %d", len(tiles) - len(labelled), len(tiles))
        return labelled

    def _dataset(self, tiles: list[Tile]) -> TileDataset:
        options = (self.source, self.statistics, self.nodata, self.targets)
        return TileDataset(self.data_set, tiles, *options, reader=self.store)

    def train_dataloader(self) -> DataLoader:
        """Load random crops; `batch_size` is the total over all devices."""
        rank, ranks = self._rank()
        batch_size = per_device_batch_size(self.batch_size, ranks)
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        parts = [self._crops(device), *(other._crops(device) for other, _ in self.further.values())]
        crops = MixedCrops(parts, self.draws) if self.further else parts[0]
        sampler = EpochSampler(sum(self.draws), self.batch_size, self.seed, rank, ranks, self.repeats_epoch)
        if self.store is not None:
            return ResumableLoader(crops, batch_size=batch_size, sampler=sampler, collate_fn=identity)
        return self._loader(ResumableLoader, crops, batch_size, sampler, identity if self.further else None)

    def _crops(self, device: torch.device) -> CropDataset | StoredCrops:
        """Return the dataset of the training crops; from a store it makes batches on `device`."""
        assert self.train_tiles is not None
        options = (self.crop, self.crops_per_tile, self.augmentation, self.seed, self.prefer_buildings)
        crops = CropDataset(self.train_tiles, *options)
        if self.store is None:
            return crops
        batches = StoredCrops(crops, self.store, device)
        if self.store_on == "device":
            batches.load_to_device()
        return batches

    @property
    def draws(self) -> list[int]:
        """Return the number of training crops of an epoch: of the data, then of each of the further data."""
        assert self.train_tiles is not None
        own = len(self.train_tiles) * self.crops_per_tile
        return [own, *(max(1, round(own * weight)) for _, weight in self.further.values())]

    @property
    def batches_per_epoch(self) -> int:
        """Return the number of training batches, each over all devices."""
        return EpochSampler(sum(self.draws), self.batch_size, self.seed).batches

    def val_dataloader(self) -> DataLoader:
        """Load the whole tiles of the validation part."""
        return self._eval_loader(self.validation_tiles, "val")

    def predict_dataloader(self) -> DataLoader:
        """Load the tiles that the calibration uses: those of the validation."""
        return self.val_dataloader()

    def test_dataloader(self) -> DataLoader:
        """Load the whole tiles that are only scored."""
        return self._eval_loader(self.test_tiles, "test")

    def _eval_loader(self, tiles: TileDataset, use: Pass) -> DataLoader:
        rank, ranks = self._rank()
        # repeats tiles so that all ranks have equally many; metrics count each tile once, by its index
        scored = range(self.scored_tiles(use))
        sampler: Sampler = DistributedSampler(cast(Dataset, scored), num_replicas=ranks, rank=rank, shuffle=False)
        return self._loader(DataLoader, tiles, self.eval_batch_size, sampler)

    def scored_tiles(self, use: Pass) -> int:
        """Return how many tiles a validation or test scores on all ranks together: the first ones, up to its limit.

        Raises:
            UserError: the limit is a fraction of less than one batch
        """
        tiles = self.validation_tiles if use == "val" else self.test_tiles
        return limited_tiles(
            len(tiles), self.eval_batch_size, self.limits.get(use, 1.0), f"trainer.limit_{use}_batches"
        )

    def _loader(
        self, kind: type[DataLoader], dataset: Any, batch_size: int, sampler: Any, collate: Any = None
    ) -> DataLoader:
        return kind(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=start_loader_worker,
            collate_fn=collate,
        )

    def _rank(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)

    def state_dict(self) -> dict[str, Any]:
        """Return the metadata of a checkpoint from which others make the same samples, and its training area."""
        return {
            "source": asdict(self.source),
            "nodata": self.nodata,
            "mean": list(self.statistics.mean),
            "std": list(self.statistics.std),
            "building_fraction": self.statistics.building_fraction,
            "partition": self.partition,
            "fold": self.fold_index,
            "training_area": [list(tile.bounds) for tile in self._trained_on()],  # metres
            "training_crs": self.data_set.frame,
        } | ({"further": self._further_statistics()} if self.further else {})

    def _trained_on(self) -> list[Tile]:
        """Return the training tiles, with those of further data whose bounds are in the same CRS."""
        others = [other for other, _ in self.further.values() if other.data_set.frame == self.data_set.frame]
        return [tile for module in (self, *others) for tile in module.fold.train]

    def _further_statistics(self) -> dict[str, dict[str, list[float]]]:
        """Return the normalisation of each of the further data."""
        every = {name: other.statistics for name, (other, _) in self.further.items()}
        return {name: {"mean": list(one.mean), "std": list(one.std)} for name, one in every.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare the normalisation of a checkpoint with that of the training tiles; all else follows from the config.

        Raises:
            UserError: the pixels of the training tiles are not those that the checkpoint was trained on
        """
        self._check_pixels(state_dict, "data")
        for name, (other, _) in self.further.items():
            other._check_pixels(state_dict["further"][name], f"data.further.{name}")

    def _check_pixels(self, saved: Mapping[str, Any], node: str) -> None:
        for key in ("mean", "std"):
            before, now = saved[key], getattr(self.statistics, key)
            if not np.allclose(before, now, rtol=SAME_STATISTICS):
                raise UserError(
                    f"{node}: {self.data_set.root} has other pixels than the run was trained on: the {key} of the "
                    f"training tiles is {[round(x, 4) for x in now]}, was {[round(x, 4) for x in before]}; give a copy "
                    "of the same images, or set resume=false to start over",
                    kind="conflict",
                    key=f"{node}.{self.data_set.path_keys[0]}",
                    value=str(self.data_set.root),
                )


def check_band_statistics(mean: list[float] | None, std: list[float] | None, bands: int) -> None:
    """Raise a UserError unless `mean` and `std` are both None, or finite numbers for each band, `std` positive."""
    for key, values in (("data.mean", mean), ("data.std", std)):
        if (mean is None) != (std is None) or (values is not None and len(values) != bands):
            needed = f"data.mean and data.std need one number for each band ({bands}), or both null"
        elif not np.isfinite(values or 0).all() or (key == "data.std" and min(values or [1]) <= 0):
            needed = "finite numbers are needed, and of data.std positive ones"
        else:
            continue
        raise UserError(f"invalid {key}={values}: {needed}", kind="invalid_value", key=key, value=values)


def per_device_batch_size(batch_size: int, devices: int) -> int:
    """Return the number of crops of a batch on each device.

    Raises:
        UserError: the batch size is not divisible by the number of devices
    """
    if batch_size % devices:
        raise UserError(
            f"invalid data.batch_size={batch_size}: the total must be divisible by the number of devices, {devices}; "
            f"set data.batch_size={-(-batch_size // devices) * devices}, or change trainer.devices",
            kind="invalid_value",
            key="data.batch_size",
            value=batch_size,
        )
    return batch_size // devices
