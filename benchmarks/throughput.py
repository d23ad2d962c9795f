"""Measure what limits a training: the loader only, the step only, and both together, in crops per second.

    python -m benchmarks.throughput            (--help lists its keys)

The steps are those of `python -m sn6.run`: Lightning's Trainer with sn6's module, loss and optimizer. A GPU is
synchronised before the clock is read.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from lightning import Callback, Trainer
from pydantic import NonNegativeInt, PositiveInt
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from sn6.cli import run_command
from sn6.data.augment import FlipLR
from sn6.data.datamodule import TileDataModule
from sn6.data.stored_crops import identity
from sn6.datasets.spacenet6 import SpaceNet6
from sn6.heads import mask_head
from sn6.losses import FocalDice
from sn6.models.fcn import FCN8s
from sn6.models.resunet import ResUNet
from sn6.models.ternausnet import TernausNet
from sn6.models.timm_unet import TimmUNet
from sn6.models.unet import UNet
from sn6.processes import keep_freed_memory
from sn6.schedules import constant
from sn6.segmenter import Segmenter
from sn6.simulation.archive import make_archive, settings_of
from sn6.training.devices import fastest_precision

NETWORKS = {"ternausnet": TernausNet, "unet": UNet, "fcn8s": FCN8s, "resunet": ResUNet}
WARM_UP = 5  # batches that are not measured
log = logging.getLogger("lightning.pytorch")


def throughput(
    root: Annotated[Path, "an archive of 24 tiles, simulated if it is missing"] = Path("outputs/throughput"),
    model: Annotated[
        Literal["ternausnet", "unet", "fcn8s", "resunet", "timm_unet"],
        "the network, with its default number of filters",
    ] = "ternausnet",
    encoder: Annotated[str, "of timm_unet, by timm's name, from scratch"] = "resnet34",
    store: Annotated[Literal["disk", "device"] | None, "null: workers decode GeoTIFFs"] = "disk",
    workers: Annotated[NonNegativeInt, "worker processes that decode GeoTIFFs"] = 2,
    crop: Annotated[PositiveInt, "edge length in pixels"] = 512,
    batch_size: Annotated[PositiveInt, "crops per step"] = 16,
    steps: Annotated[PositiveInt, "measured steps of each kind"] = 50,
    precision: Annotated[str | None, "32-true, bf16-mixed or 16-mixed; null: the fastest"] = None,
    compile: Annotated[bool, "torch.compile the network"] = False,
) -> None:
    """Print crops per second, the arithmetic that they need, and the peak memory of a GPU."""
    keep_freed_memory()
    log.setLevel(logging.WARNING)
    precision = precision or fastest_precision("auto")
    make_archive(root, settings_of(tiles=24, test_tiles=0))
    options = {
        "data_set": SpaceNet6(root),
        "product": "SAR-Intensity",
        "augmentation": FlipLR(),
        "crop": crop,
        "store": store,
    }
    data = TileDataModule(**options, batch_size=batch_size, num_workers=workers, crops_per_tile=batch_size)
    trainer = make_trainer(precision, steps)
    data.trainer = trainer
    data.setup()
    device = trainer.strategy.root_device
    loader = data.train_dataloader()
    epochs = chain.from_iterable(repeat(loader))
    loader_only = rate(epochs, steps, batch_size, device)
    batch = next(iter(loader))
    make_network = partial(TimmUNet, encoder=encoder) if model == "timm_unet" else NETWORKS[model]
    flops = flops_of(make_network(), batch["image"][:1])
    constant_batch = ConstantBatch(batch, **options, batch_size=batch_size)
    step_only = train(make_network, constant_batch, precision, steps, compile)
    both = train(make_network, data, precision, steps, compile)
    name = f"{model} with {encoder}" if model == "timm_unet" else model
    title = f"{name}, crops of {crop} pixels, {precision}, {device_name(device)}"
    table = Table("what", "crops per second", title=title)
    table.add_row("the loader only", f"{loader_only:.1f}")
    table.add_row("the step only", f"{step_only:.1f}")
    table.add_row("both", f"{both:.1f}")
    Console().print(table)
    print(
        f"the step computes {3 * flops * step_only / 1e12:.2f} TFLOP/s; forward pass: {flops / 1e9:.0f} GFLOP per crop"
    )
    if device.type == "cuda":
        print(f"peak memory of the GPU: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")


class ConstantBatch(TileDataModule):
    """Return the same batch for every step."""

    def __init__(self, batch: dict[str, Any], **options: Any) -> None:
        super().__init__(**options)
        self.batch = batch

    def setup(self, stage: str | None = None) -> None:
        """Read nothing."""

    @property
    def batches_per_epoch(self) -> int:
        """Return a typical number of batches."""
        return 1000

    def train_dataloader(self) -> Any:
        """Return the batch, repeated."""
        return DataLoader([self.batch] * self.batches_per_epoch, batch_size=None, collate_fn=identity)


class Clock(Callback):
    """Measure the seconds of the steps after the first ones."""

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Start and stop the clock."""
        if trainer.global_step in (WARM_UP, trainer.max_steps):
            wait_for(trainer.strategy.root_device)
            now = time.perf_counter()
            if trainer.global_step == WARM_UP:
                self.started = now
            self.seconds = now - self.started


def make_trainer(precision: str, steps: int, *callbacks: Callback) -> Trainer:
    """Return a trainer that only trains."""
    return Trainer(
        precision=precision,
        max_steps=steps + WARM_UP,
        max_epochs=-1,
        limit_val_batches=0,
        callbacks=list(callbacks),
        use_distributed_sampler=False,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def train(
    make_network: Callable[[], nn.Module], data: TileDataModule, precision: str, steps: int, compile: bool
) -> float:
    """Train a network, and return crops per second."""
    torch.manual_seed(0)
    network = make_network()
    if compile:
        network.compile()
    clock = Clock()
    optimizer = partial(torch.optim.AdamW, lr=1e-4, fused=True)
    make_trainer(precision, steps, clock).fit(Segmenter(network, mask_head(FocalDice()), optimizer, constant), data)
    return steps * data.batch_size / clock.seconds


def rate(batches: Any, steps: int, batch_size: int, device: torch.device) -> float:
    """Measure crops per second on the device."""
    for _ in islice(batches, WARM_UP):
        pass
    wait_for(device)
    started = time.perf_counter()
    for batch in islice(batches, steps):
        batch["image"].to(device, non_blocking=True)
    wait_for(device)
    return steps * batch_size / (time.perf_counter() - started)


def flops_of(network: nn.Module, image: torch.Tensor) -> int:
    """Count the floating point operations of the forward pass of one crop; a multiplication and an addition are two."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network.to("meta")(image.to("meta"))
    return counter.get_total_flops()


def wait_for(device: torch.device) -> None:
    """Wait for a GPU, which computes asynchronously."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: torch.device) -> str:
    """Return the name of a device."""
    return torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    run_command(throughput, "benchmarks.throughput")
