"""Measure training crops per second from GeoTIFFs, from a store on disk, and from a store on the device.

    python -m benchmarks.loading            (--help lists its keys)

All draw the same crops and are measured in turns; the table gives medians. The published GeoTIFFs are not compressed,
the simulated ones are: both are measured.
"""

import logging
import shutil
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import rasterio
import torch
from lightning import Trainer
from pydantic import NonNegativeInt, PositiveInt
from rich.console import Console
from rich.table import Table

from sn6.cli import run_command
from sn6.data.datamodule import TileDataModule
from sn6.datasets.spacenet6 import SpaceNet6, split_folder
from sn6.losses import WeightedBoundary
from sn6.processes import keep_freed_memory
from sn6.simulation.archive import make_archive, settings_of

PRODUCT = "SAR-Intensity"


def loading(
    folder: Annotated[Path, "folder for the archives and their store"] = Path("outputs/loading"),
    tiles: Annotated[PositiveInt, "tiles of the simulated archive"] = 24,
    crop: Annotated[PositiveInt, "edge length in pixels"] = 512,
    crops_per_tile: Annotated[PositiveInt, "crops of a training tile in a measurement"] = 4,
    rounds: Annotated[PositiveInt, "measurements of each"] = 3,
    workers: Annotated[tuple[NonNegativeInt, ...], "worker processes of a loader of GeoTIFFs"] = (0, 2),
    boundary: Annotated[bool, "include the pixel weights of loss=weighted_boundary"] = False,
) -> None:
    """Print crops per second, and their ratio to the compressed GeoTIFFs with as many workers."""
    keep_freed_memory()
    compressed, plain = folder / "compressed", folder / "uncompressed"
    make_archive(compressed, settings_of(tiles=tiles, test_tiles=0))
    write_uncompressed(compressed, plain)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False)
    device = trainer.strategy.root_device
    loaders = {}
    for name, (root, store) in {
        "GeoTIFFs, deflate": (compressed, None),
        "GeoTIFFs, uncompressed": (plain, None),
        "store on disk": (plain, "disk"),
        "store on the device": (plain, "device"),
    }.items():
        for number in workers if store is None else (0,):
            options = {"crop": crop, "crops_per_tile": crops_per_tile, "num_workers": number, "store": store}
            loaders[name, number] = loader_of(root, boundary, trainer, **options)
    measured: dict[tuple[str, int], list[float]] = {source: [] for source in loaders}
    for _ in range(rounds):
        for source, loader in loaders.items():
            measured[source].append(rate(loader, device))
    rates = {source: statistics.median(values) for source, values in measured.items()}
    table = Table("from", "workers", "crops per second", "ratio", title=f"radar crops of {crop} pixels, on {device}")
    for (name, number), value in rates.items():
        table.add_row(name, str(number), f"{value:.1f}", f"{value / rates['GeoTIFFs, deflate', number]:.1f}")
    Console().print(table)


def loader_of(root: Path, boundary: bool, trainer: Trainer, **options: Any) -> Any:
    """Return the loader of the training crops of an archive, in batches of 8."""
    targets = WeightedBoundary().targets if boundary else {}
    known = {"mean": [30.0] * 4, "std": [8.0] * 4} if not boundary else {}  # saves measuring them
    data = TileDataModule(SpaceNet6(root), product=PRODUCT, targets=targets, **known, **options)
    data.trainer = trainer
    data.setup()
    return data.train_dataloader()


def write_uncompressed(compressed: Path, plain: Path) -> None:
    """Copy the archive with uncompressed radar tiles, as the published ones are."""
    if plain.exists():
        return
    part = plain.with_name("part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(compressed, part, ignore=shutil.ignore_patterns(".sn6", "PS-*", "RGBNIR", "PAN"))
    for path in (split_folder(part, "train") / PRODUCT).glob("*.tif"):
        with rasterio.open(path) as source:
            pixels, profile = source.read(), source.profile
        profile.pop("compress", None)
        with rasterio.open(path, "w", **profile) as file:
            file.write(pixels)
    part.rename(plain)


def rate(loader: Any, device: torch.device) -> float:
    """Measure crops per second on the device in an epoch, after its first batch, which starts the workers."""
    batches = iter(loader)
    next(batches)
    started, crops = time.perf_counter(), 0
    for batch in batches:
        crops += len(batch["image"].to(device))
    if device.type == "cuda":
        torch.cuda.synchronize()
    return crops / (time.perf_counter() - started)


if __name__ == "__main__":
    run_command(loading, "benchmarks.loading")
