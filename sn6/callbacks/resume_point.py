"""Checkpoints to go on from: in the middle of an epoch, after each validation, and when a signal says stop."""

import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn
from pydantic import PositiveInt

from sn6.checkpoints.run_files import BEFORE_LAST, LAST
from sn6.errors import UserError, first_line
from sn6.files import atomic_write

STOPPING = (signal.SIGINT, signal.SIGTERM)
QUEUEING = (signal.SIGUSR1, signal.SIGUSR2)  # by which a cluster says that the job's time or place is taken
QUEUED = 600  # seconds that the other ranks leave the first one to queue the job again, which ends them all


class Stopped(UserError):
    """A signal stopped the run after it had written its checkpoint.

    Attributes:
        status: of the process: 128 and the signal's number, as a shell tells it
    """

    def __init__(self, number: int, path: Path) -> None:
        self.status = 128 + number
        super().__init__(f"stopped by {signal.Signals(number).name}; the same command goes on from {path}")


class ResumePoint(Checkpoint):
    """Writes `last.ckpt`, and keeps the one before as `before_last.ckpt`.

    SIGINT (Ctrl-C) and SIGTERM (the end of a cluster's job) are heard after the step or the validation that is under
    way: the checkpoint is written first. A second one ends the process as it stands, and the run goes on from the
    checkpoint before. SIGUSR1 and SIGUSR2 likewise, where Lightning or submitit listens to them to queue the job of a
    cluster again: they are told when the checkpoint is written.

    Args:
        folder: of the run
        every_n_steps: steps from one checkpoint to the next in the middle of an epoch
    """

    def __init__(self, folder: str, every_n_steps: PositiveInt = 100) -> None:
        self.folder = Path(folder)
        self.every_n_steps = every_n_steps
        self.signal: int | None = None
        self.step = 0
        self.may_stop = False  # on all ranks: the checkpoint is written
        self.handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listens to the signals."""
        heard = [*STOPPING, *(number for number in QUEUEING if callable(signal.getsignal(number)))]
        self.handlers = {number: signal.signal(number, self._hear) for number in heard}

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, signal.SIG_DFL if number in STOPPING else self.handlers[number])

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gives the signals back."""
        while self.handlers:
            signal.signal(*self.handlers.popitem())

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Writes, where it is time, but not after the last batch of an epoch: a validation follows."""
        stop = trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)
        is_last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        has_stepped = trainer.global_step > self.step  # and did not just gather gradients, which are not kept
        if has_stepped and (stop or trainer.global_step % self.every_n_steps == 0) and not is_last:
            self.write(trainer)
            self.may_stop = stop

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Stops, now that the step before is logged too."""
        self.step = trainer.global_step
        if self.may_stop:
            if self.signal in QUEUEING:
                self.handlers[self.signal](self.signal, None)
                time.sleep(QUEUED)
            raise Stopped(self.signal or signal.SIGTERM, self.folder / LAST)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the state after a validation of the training, with its score among the best values."""
        if trainer.state.fn is TrainerFn.FITTING and not trainer.sanity_checking:
            self.write(trainer)
            self.may_stop = trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)

    def write(self, trainer: Trainer) -> None:
        """Keeps the checkpoint that there is and writes a new one."""
        if trainer.is_global_zero and (self.folder / LAST).exists():
            os.replace(self.folder / LAST, self.folder / BEFORE_LAST)
        trainer.save_checkpoint(self.folder / LAST)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints are written whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Raises a UserError where the disk is full."""
        path = Path(path)
        try:
            with atomic_write(path) as part:
                torch.save(checkpoint, part)
        except (OSError, RuntimeError) as error:  # torch raises a RuntimeError when a write falls short
            raise UserError(
                f"{path} cannot be written ({first_line(error)}); make room and run the same command again"
            ) from None
