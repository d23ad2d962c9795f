"""Log how fast a run is, and how much GPU memory it takes."""

import time
from typing import Any, ClassVar

import torch
from lightning import Callback, LightningModule, Trainer

GIB = 2**30


class Throughput(Callback):
    """Log means since the last logged values.

    `throughput/step_seconds` (from batch to batch, waiting for data included), `throughput/crops_per_second` over all
    devices, `throughput/tiles_per_second` of a validation with its polygons, and on a GPU `throughput/gpu_gib`, the
    peak memory of the first device.
    """

    may_change: ClassVar = True  # when a run resumes

    def __init__(self) -> None:
        self.since: float | None = None
        self.batches = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset: the first batch of an epoch, which starts the workers, does not count."""
        self.since, self.batches = None, 0

    def on_train_batch_end(
        self, trainer: Any, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count batches, and log at the steps at which Lightning logs."""
        now = time.perf_counter()
        if self.since is None:
            self.since = now
            return
        self.batches += 1
        every = trainer.log_every_n_steps
        if every == 0 or trainer.global_step % every:
            return
        seconds = (now - self.since) / self.batches
        pl_module.log("throughput/step_seconds", seconds)
        pl_module.log("throughput/crops_per_second", len(batch["image"]) * trainer.world_size / seconds)
        if pl_module.device.type == "cuda":
            pl_module.log("throughput/gpu_gib", torch.cuda.max_memory_allocated(pl_module.device) / GIB)
        self.since, self.batches = now, 0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.validation_since = time.perf_counter()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock; callbacks before this one have scored their polygons."""
        loader: Any = trainer.val_dataloaders
        seconds = time.perf_counter() - self.validation_since
        pl_module.log("throughput/tiles_per_second", len(loader.dataset) / seconds)
