"""The LightningDataModule: an archive and a fold as loaders of batches."""

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, DistributedSampler, Sampler

from sn6.cli import validate_arguments
from sn6.data.augment import Augmentation
from sn6.data.dataset import CropDataset, Nodata, Source, Statistics, TileDataset, measure_statistics
from sn6.data.folds import Fold, make_fold
from sn6.data.partitions import PARTITIONS, PartitionName
from sn6.data.sampler import EpochSampler, ResumableLoader
from sn6.data.store import Store, store_folder
from sn6.data.stored_crops import StoredCrops, identity
from sn6.datasets.archive import Archive, Tile
from sn6.datasets.layout import PRODUCTS, test_truth_path
from sn6.errors import UserError
from sn6.targets.boundary import PixelWeights

log = logging.getLogger(__name__)


class TileDataModule(LightningDataModule):
    """Training crops, and whole tiles for validation and test. conf/data tells what each argument means.

    Args:
        pixel_weights: the loss's, not a key of the config

    Raises:
        UserError: (in `setup`) the archive or the fold cannot be used
    """

    def __init__(
        self,
        *,
        root: str | None,
        product: str,
        bands: list[int] | None = None,
        split: PartitionName = "columns",
        fold: int = 4,
        test_column: int | None = None,
        crop: int = 512,
        crops_per_tile: int = 1,
        batch_size: int = 8,
        eval_batch_size: int = 1,
        augmentation: Augmentation = "none",
        orient: bool = True,
        nodata: Nodata = "zero",
        mean: list[float] | None = None,
        std: list[float] | None = None,
        min_area: float = 20.0,
        num_workers: int = 2,
        seed: int = 0,
        simulation: dict[str, Any] | None = None,
        store: Literal["disk", "device"] | None = None,
        store_root: str | None = None,
        pixel_weights: PixelWeights | None = None,
    ) -> None:
        super().__init__()
        if root is None:
            raise UserError(
                "data.root is not set; `python -m sn6.run experiment=quickstart` runs on a simulated archive, "
                "`python -m sn6.simulate root=DIR` makes one, and the README tells how to get the real one"
            )
        for key, value in (("crop", crop), ("crops_per_tile", crops_per_tile), ("batch_size", batch_size)):
            if value < 1:
                raise UserError(f"data.{key}={value} does not do; it is at least 1")
        self.root, self.simulation = root, simulation and simulation_settings(simulation)
        self.source = Source(product, tuple(bands or default_bands(product)), orient, min_area)
        number = len(self.source.bands)
        if (mean is None) != (std is None) or (mean and std and not len(mean) == len(std) == number):
            raise UserError(f"data.mean and data.std go together, with one number for each of the {number} bands")
        if simulation is None:
            Archive(root)  # a root that is none is told before a network is made or fetched
        self.split, self.fold_index, self.test_column = split, fold, test_column
        self.crop, self.crops_per_tile, self.augmentation = crop, crops_per_tile, augmentation
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        self.nodata, self.mean, self.std = nodata, mean, std
        self.seed, self.pixel_weights = seed, pixel_weights
        self.store_on, self.store_root = store, Path(store_root) if store_root is not None else None
        self.store: Store | None = None
        self.train_tiles: TileDataset | None = None

    def prepare_data(self) -> None:
        """Makes the simulated archive that the config asks for; called on one process alone."""
        if self.simulation is not None and self.train_tiles is None:
            from sn6.simulate import make_archive

            make_archive(Path(self.root), self.simulation)

    def setup(self, stage: str | None = None) -> None:
        """Reads the index and the labels, splits, and measures the training tiles."""
        if self.train_tiles is not None:
            return
        self.archive = Archive(self.root)
        self.fold, self.scored_on = self._fold()
        self.statistics = self._statistics()
        if self.store_on is not None:
            folder = store_folder(self.archive.root, self.store_root)
            self.store = Store(self.archive, self.source, self.pixel_weights, folder)
            self.store.prepare([*self.fold.train, *self.fold.validation, *self.fold.test])
        self.train_tiles = self._dataset(self.fold.train)
        self.validation_tiles = self._dataset(self.fold.validation)
        self.test_tiles = self._dataset(self.fold.test)

    def _statistics(self) -> Statistics:
        """As given, or measured; the share of building only where a loss asks for it."""
        if self.mean is not None and self.std is not None and self.pixel_weights is None:
            return Statistics(tuple(self.mean), tuple(self.std), None)
        measured = measure_statistics(self.archive, self.fold.train, self.source)
        if self.mean is None or self.std is None:
            return measured
        return replace(measured, mean=tuple(self.mean), std=tuple(self.std))

    def _fold(self) -> tuple[Fold, str]:
        """The fold, and in words what its test tiles are.

        It is that of the radar tiles whatever the product, so that an optical run and the radar run after it keep
        the same ground apart also where a tile lacks its optical image.
        """
        index = "SAR-Intensity" if self.archive.has("train", "SAR-Intensity") else self.source.product
        tiles = self._labelled(self.archive.tiles("train", index))
        test: list[Tile] = []
        if self.test_column is None and test_truth_path(self.archive.root).exists():
            test = self._labelled(self.archive.tiles("test_public", "SAR-Intensity"))
        parts = make_fold(tiles, self.fold_index, self.test_column, test, self.split)
        fold, noun = with_product(parts, self.source.product), PARTITIONS[self.split].noun
        if self.test_column is not None:
            return fold, f"test {noun} {self.test_column}"
        if test and not PRODUCTS[self.source.product].optical:
            return fold, "test tiles"
        # The test tiles have no optical image: their ground is kept out all the same, for the radar run to come.
        return replace(fold, test=fold.validation), f"validation {noun} {self.fold_index}, which also chose the epoch"

    def _labelled(self, tiles: list[Tile]) -> list[Tile]:
        labelled = [tile for tile in tiles if self.archive.has_labels(tile)]
        if len(labelled) < len(tiles):
            log.warning("%d of %d tiles have no labels and are left out", len(tiles) - len(labelled), len(tiles))
        return labelled

    def _dataset(self, tiles: list[Tile]) -> TileDataset:
        common = (self.source, self.statistics, self.nodata, self.pixel_weights)
        return TileDataset(self.archive, tiles, *common, reader=self.store)

    def train_dataloader(self) -> DataLoader:
        """Random crops; `batch_size` is the total over all devices."""
        rank, ranks = self._rank()
        share = share_of_batch(self.batch_size, ranks)
        assert self.train_tiles is not None
        crops = CropDataset(self.train_tiles, self.crop, self.crops_per_tile, self.augmentation, self.seed)
        sampler = EpochSampler(len(crops), self.batch_size, self.seed, rank, ranks)
        if self.store is None:
            return self._loader(ResumableLoader, crops, share, sampler)
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        batches = StoredCrops(crops, self.store, device)
        if self.store_on == "device":
            batches.hold()
        return ResumableLoader(batches, batch_size=share, sampler=sampler, collate_fn=identity)

    @property
    def batches_per_epoch(self) -> int:
        """Training batches over all devices together."""
        assert self.train_tiles is not None
        return EpochSampler(len(self.train_tiles) * self.crops_per_tile, self.batch_size, self.seed).batches

    def val_dataloader(self) -> DataLoader:
        """Whole tiles of the fold's column."""
        return self._eval_loader(self.validation_tiles)

    def test_dataloader(self) -> DataLoader:
        """Whole tiles that are only scored."""
        return self._eval_loader(self.test_tiles)

    def eval_loader(self, tiles: list[Tile]) -> DataLoader:
        """Whole tiles, whichever."""
        return self._eval_loader(self._dataset(tiles))

    def _eval_loader(self, tiles: TileDataset) -> DataLoader:
        rank, ranks = self._rank()
        # pads, so that no rank is without a tile: whoever counts, counts by the tile's index
        sampler: Sampler = DistributedSampler(tiles, num_replicas=ranks, rank=rank, shuffle=False)
        return self._loader(DataLoader, tiles, self.eval_batch_size, sampler)

    def _loader(self, kind: type[DataLoader], dataset: Any, batch_size: int, sampler: Any) -> DataLoader:
        return kind(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _rank(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)

    def state_dict(self) -> dict[str, Any]:
        """What a reader of the checkpoint needs to make the same samples."""
        return {
            "source": asdict(self.source) | {"bands": list(self.source.bands)},
            "nodata": self.nodata,
            "mean": list(self.statistics.mean),
            "std": list(self.statistics.std),
            "building_fraction": self.statistics.building_fraction,
            "split": self.split,
            "fold": self.fold_index,
            "ground": [list(tile.bounds) for tile in self.fold.train],  # metres; what the network has seen
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to restore: all of it follows from the archive and the config."""


def simulation_settings(given: dict[str, Any]) -> dict[str, int]:
    """What `data.simulation` asks for, checked."""
    from sn6.simulate import settings_of  # a run on a real archive does without the simulator

    return settings_of(**validate_arguments(settings_of, given, "data.simulation", strict=True))


def share_of_batch(batch_size: int, ranks: int) -> int:
    """The crops of a batch that each of `ranks` devices takes.

    Raises:
        UserError: the devices do not divide the batch
    """
    if batch_size % ranks:
        raise UserError(
            f"data.batch_size={batch_size} is the total and cannot be dealt to {ranks} devices; set "
            f"data.batch_size={-(-batch_size // ranks) * ranks}, or another trainer.devices"
        )
    return batch_size // ranks


def default_bands(product: str) -> list[int]:
    """All bands of a product in their order; of PS-RGB as many as a radar tile has, as the baseline reads them."""
    if product not in PRODUCTS:
        raise UserError(f"data.product={product} is unknown; the products are {', '.join(PRODUCTS)}")
    return [3, 1, 1, 2] if product == "PS-RGB" else list(range(1, len(PRODUCTS[product].bands) + 1))


def with_product(fold: Fold, product: str) -> Fold:
    """The tiles of a fold that have `product`; test tiles, which have radar alone, stay.

    Raises:
        UserError: none is left to train or to validate with
    """
    train, validation = (
        [tile for tile in tiles if product in tile.products] for tiles in (fold.train, fold.validation)
    )
    if not train or not validation:
        raise UserError(
            f"the fold leaves {len(train)} tiles with {product} to train and {len(validation)} to validate with; "
            "choose another data.fold or data.product"
        )
    test = [tile for tile in fold.test if tile.split == "test_public" or product in tile.products]
    return replace(fold, train=train, validation=validation, test=test)
