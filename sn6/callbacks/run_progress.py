"""Show how far a run is: training with a line per validation, then calibration and scoring."""

import time
from contextlib import ExitStack
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn

from sn6.callbacks.polygon_f1 import polygon_f1_of
from sn6.errors import counted
from sn6.progress import Phase, duration, phase
from sn6.segmenter import steps_of


class RunProgress(ProgressBar):
    """Show each phase of a run as `sn6.progress` does, and print a line for each validation while training.

    The line has epoch, step, mean training loss since the last line (of the first process), scores, seconds since the
    last line, and the time that is left. Only the first process prints.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_enabled = True
        self.stack = ExitStack()
        self.shown: Phase | None = None
        self.loss, self.batches = torch.zeros(()), 0  # sum since the last line

    def enable(self) -> None:
        """Print."""
        self.is_enabled = True

    def disable(self) -> None:
        """Print nothing."""
        self.is_enabled = False

    def _open(self, name: str, total: float | None) -> None:
        self._close()
        if self.is_enabled:
            self.shown = self.stack.enter_context(phase(name, total))

    def _close(self) -> None:
        self.shown = None
        self.stack.close()

    def on_train_start(self, trainer: Any, pl_module: LightningModule) -> None:
        """Open the phase of the training."""
        total = steps_of(trainer, trainer.datamodule.batches_per_epoch)
        self._open("training", total)
        if self.shown is not None:
            self.shown.resume(trainer.global_step)
        self._restart(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step; its loss stays on the device, for which nothing waits."""
        if self.shown is not None:
            self.loss += outputs["loss"].detach() * trainer.accumulate_grad_batches
            self.batches += 1
            self.shown.update(trainer.global_step, note=self._step(trainer))

    def _restart(self, pl_module: LightningModule) -> None:
        self.loss, self.batches = torch.zeros((), device=pl_module.device), 0
        self.since = time.monotonic()

    def _step(self, trainer: Any) -> str:
        assert self.shown is not None
        return f"epoch {trainer.current_epoch}  step {trainer.global_step}/{self.shown.total}"

    def on_validation_end(self, trainer: Any, pl_module: LightningModule) -> None:
        """Print the line of a validation while training."""
        if self.shown is None or trainer.state.fn is not TrainerFn.FITTING or trainer.sanity_checking:
            return
        scores, left = polygon_f1_of(trainer).scores, self.shown.seconds_left()
        seconds = duration(time.monotonic() - self.since) + (f", {duration(left)} left" if left else "")
        self.shown.line(
            f"{self._step(trainer)}  train loss {self.loss.item() / max(self.batches, 1):.4f}  "
            f"val loss {scores['loss']:.4f}  F1 {scores['f1']:.3f}  precision {scores['precision']:.3f}  "
            f"recall {scores['recall']:.3f}  {seconds}"
        )
        self._restart(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the phase."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the bar, so that the error is not written beside it."""
        self._close()

    def on_predict_epoch_start(self, trainer: Any, pl_module: LightningModule) -> None:
        """Open the phase of the calibration."""
        tiles = trainer.datamodule.scored_tiles("val")
        self._open(f"calibrating on {counted(tiles, 'validation tile')}", tiles)

    def on_predict_batch_end(
        self, trainer: Any, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Count the tiles of a batch."""
        self._count(trainer, batch, batch_idx)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the phase."""
        self._close()

    def on_validation_epoch_start(self, trainer: Any, pl_module: LightningModule) -> None:
        """Open the phase of a validation after the training."""
        tiles = trainer.datamodule.scored_tiles("val")
        if trainer.state.fn is not TrainerFn.FITTING:
            self._open(f"scoring {counted(tiles, 'validation tile')}", tiles)
        elif self.shown is not None and not trainer.sanity_checking:
            self.shown.update(trainer.global_step, note=f"{self._step(trainer)}, validating {counted(tiles, 'tile')}")

    def on_validation_batch_end(
        self, trainer: Any, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Count the tiles of a batch after the training."""
        if trainer.state.fn is not TrainerFn.FITTING:
            self._count(trainer, batch, batch_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the phase of a validation after the training."""
        if trainer.state.fn is not TrainerFn.FITTING:
            self._close()

    def on_test_epoch_start(self, trainer: Any, pl_module: LightningModule) -> None:
        """Open the phase of the test."""
        tiles = trainer.datamodule.scored_tiles("test")
        self._open(f"scoring {count_scored(tiles, trainer.datamodule.scored_on)}", tiles)

    def on_test_batch_end(
        self, trainer: Any, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Count the tiles of a batch."""
        self._count(trainer, batch, batch_idx)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the phase."""
        self._close()

    def _count(self, trainer: Any, batch: Any, batch_idx: int) -> None:
        if self.shown is not None and self.shown.total is not None:
            done = (batch_idx + 1) * len(batch["index"]) * trainer.world_size
            self.shown.update(min(done, self.shown.total))


def count_scored(tiles: int, scored_on: str) -> str:
    """Return the number of scored tiles as text: `6 test tiles`, `5 tiles of validation column 4`."""
    part = scored_on.partition(",")[0]
    return counted(tiles, "test tile") if part == "test tiles" else f"{counted(tiles, 'tile')} of {part}"
