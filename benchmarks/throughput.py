"""What holds a training up: the loader alone, the step alone, and both together, in crops a second.

    python -m benchmarks.throughput            (--help tells its keys)

The steps are those of `python -m sn6.run`: Lightning's Trainer with sn6's module, loss and optimizer. On a GPU all is
waited for before a clock is read.
"""

import logging
import time
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from lightning import Callback, Trainer
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from sn6.cli import run_command
from sn6.data.datamodule import TileDataModule
from sn6.data.stored_crops import identity
from sn6.losses import FocalDice
from sn6.models.fcn import FCN8s
from sn6.models.ternausnet import TernausNet
from sn6.models.unet import UNet
from sn6.processes import keep_freed_memory
from sn6.segmenter import Segmenter, constant
from sn6.simulate import simulate
from sn6.training.devices import fastest_precision

NETWORKS = {"ternausnet": TernausNet, "unet": UNet, "fcn8s": FCN8s}
WARM_UP = 5  # batches that no clock sees
log = logging.getLogger("lightning.pytorch")


def throughput(
    root: Annotated[Path, "an archive; 24 tiles are simulated there if it is missing"] = Path("outputs/throughput"),
    model: Annotated[Literal["ternausnet", "unet", "fcn8s"], "the network, of its published width"] = "ternausnet",
    store: Annotated[Literal["disk", "device"] | None, "null decodes GeoTIFFs in workers"] = "disk",
    workers: Annotated[int, "processes that decode GeoTIFFs"] = 2,
    crop: Annotated[int, "pixels a side"] = 512,
    batch_size: Annotated[int, "crops of a step"] = 16,
    steps: Annotated[int, "that are measured, of each kind"] = 50,
    precision: Annotated[str | None, "32-true, bf16-mixed or 16-mixed; null is the fastest"] = None,
    compile: Annotated[bool, "torch.compile the network"] = False,
) -> None:
    """Prints crops a second, the arithmetic that they take, and the memory of a GPU."""
    keep_freed_memory()
    log.setLevel(logging.WARNING)
    precision = precision or fastest_precision("auto")
    simulate(root, tiles=24, test_tiles=0)
    options = {"root": str(root), "product": "SAR-Intensity", "augmentation": "flip_lr", "crop": crop, "store": store}
    data = TileDataModule(**options, batch_size=batch_size, num_workers=workers, crops_per_tile=batch_size)
    trainer = a_trainer(precision, steps)
    data.trainer = trainer
    data.setup()
    device = trainer.strategy.root_device
    loader = data.train_dataloader()
    epochs = chain.from_iterable(repeat(loader))
    alone = rate(epochs, steps, batch_size, device)
    batch = next(iter(loader))
    flops = flops_of(NETWORKS[model](), batch["image"][:1])
    one = OneBatch(batch, **options, batch_size=batch_size)
    step = trained(model, one, precision, steps, compile)
    both = trained(model, data, precision, steps, compile)
    table = Table("what", "crops a second", title=f"{model}, crops of {crop} pixels, {precision}, {used(device)}")
    table.add_row("the loader alone", f"{alone:.1f}")
    table.add_row("the step alone", f"{step:.1f}")
    table.add_row("both", f"{both:.1f}")
    Console().print(table)
    print(f"the step computes {3 * flops * step / 1e12:.2f} TFLOP/s, of {flops / 1e9:.0f} GFLOP a crop forward")
    if device.type == "cuda":
        print(f"at most {torch.cuda.max_memory_allocated() / 1e9:.1f} GB of the GPU's memory")


class OneBatch(TileDataModule):
    """The same batch again and again, where a step takes it."""

    def __init__(self, batch: dict[str, Any], **options: Any) -> None:
        super().__init__(**options)
        self.batch = batch

    def setup(self, stage: str | None = None) -> None:
        """Nothing is read."""

    @property
    def batches_per_epoch(self) -> int:
        """As many as an epoch of tiles might have."""
        return 1000

    def train_dataloader(self) -> Any:
        """All of them."""
        return DataLoader([self.batch] * self.batches_per_epoch, batch_size=None, collate_fn=identity)


class Clock(Callback):
    """Seconds of the steps after the first ones."""

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Starts, and stops."""
        if trainer.global_step in (WARM_UP, trainer.max_steps):
            wait_for(trainer.strategy.root_device)
            now = time.perf_counter()
            if trainer.global_step == WARM_UP:
                self.started = now
            self.seconds = now - self.started


def a_trainer(precision: str, steps: int, *callbacks: Callback) -> Trainer:
    """One that trains and does nothing else."""
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(
        precision=precision,
        max_steps=steps + WARM_UP,
        max_epochs=-1,
        limit_val_batches=0,
        callbacks=list(callbacks),
        use_distributed_sampler=False,
        devices=1,
        **quiet,
    )


def trained(model: str, data: TileDataModule, precision: str, steps: int, compile: bool) -> float:
    """Crops a second of a training."""
    torch.manual_seed(0)
    network = NETWORKS[model]()
    if compile:
        network.compile()
    clock = Clock()
    optimizer = partial(torch.optim.AdamW, lr=1e-4, fused=True)
    a_trainer(precision, steps, clock).fit(Segmenter(network, FocalDice(), optimizer, constant), data)
    return steps * data.batch_size / clock.seconds


def rate(batches: Any, steps: int, batch_size: int, device: torch.device) -> float:
    """Crops a second that come to the device."""
    for _ in islice(batches, WARM_UP):
        pass
    wait_for(device)
    started = time.perf_counter()
    for batch in islice(batches, steps):
        batch["image"].to(device, non_blocking=True)
    wait_for(device)
    return steps * batch_size / (time.perf_counter() - started)


def flops_of(network: torch.nn.Module, image: torch.Tensor) -> int:
    """Floating point operations of one crop forward, a multiplication and an addition being two."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network.to("meta")(image.to("meta"))
    return counter.get_total_flops()


def wait_for(device: torch.device) -> None:
    """Until the GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def used(device: torch.device) -> str:
    """Its name."""
    return torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    run_command(throughput, "benchmarks.throughput")
