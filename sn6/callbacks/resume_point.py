"""Checkpoints to resume from: within an epoch, after each validation, and when a signal stops the run."""

import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn
from pydantic import PositiveInt

from sn6.checkpoints.run_files import BEFORE_LAST, LAST
from sn6.errors import UserError, first_line
from sn6.files import atomic_write

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
REQUEUE_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)  # by which a cluster announces a time-out or a preemption
REQUEUE_SECONDS = 600  # that the other ranks leave the first one to requeue the job, which ends them all


class Stopped(UserError):
    """Report that a signal stopped the run after it had written its checkpoint.

    Args:
        number: the signal
        path: the checkpoint

    Attributes:
        status: exit status of the process: 128 plus the signal's number, as shells report it
    """

    def __init__(self, number: int, path: Path) -> None:
        self.status = 128 + number
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name}; the same command resumes from {path}", kind="stopped", value=name)


class ResumePoint(Checkpoint):
    """Write `last.ckpt`, and keep the one before as `before_last.ckpt`.

    On SIGINT (Ctrl-C) or SIGTERM (the end of a cluster's job) the checkpoint is written after the current step or
    validation, then the run stops. A second signal ends the process at once, and the run resumes from the checkpoint
    before. SIGUSR1 and SIGUSR2 are treated alike where Lightning or submitit listens to them to requeue a cluster's
    job: these are called when the checkpoint is written.

    Args:
        folder: of the run
        every_n_steps: steps between two checkpoints within an epoch
    """

    may_change: ClassVar = True  # when a run resumes

    def __init__(self, folder: str, every_n_steps: PositiveInt = 100) -> None:
        self.folder = Path(folder)
        self.every_n_steps = every_n_steps
        self.signal: int | None = None
        self.step = 0
        self.may_stop = False  # on all ranks: the checkpoint is written
        self.handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to the signals."""
        numbers = [*STOP_SIGNALS, *(number for number in REQUEUE_SIGNALS if callable(signal.getsignal(number)))]
        self.handlers = {number: signal.signal(number, self._on_signal) for number in numbers}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, signal.SIG_DFL if number in STOP_SIGNALS else self.handlers[number])

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the handlers of the signals."""
        while self.handlers:
            signal.signal(*self.handlers.popitem())

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Write a checkpoint when it is time, but not after the last batch of an epoch: a validation follows."""
        stop = trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)
        is_last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        has_stepped = trainer.global_step > self.step  # and did not only accumulate gradients, which are not saved
        if has_stepped and (stop or trainer.global_step % self.every_n_steps == 0) and not is_last:
            self.write(trainer)
            self.may_stop = stop

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Stop, now that the step before is logged too."""
        self.step = trainer.global_step
        if self.may_stop:
            if self.signal in REQUEUE_SIGNALS:
                self.handlers[self.signal](self.signal, None)
                time.sleep(REQUEUE_SECONDS)
            raise Stopped(self.signal or signal.SIGTERM, self.folder / LAST)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write a checkpoint after a validation of the training, with its score among the best values."""
        if trainer.state.fn is TrainerFn.FITTING and not trainer.sanity_checking:
            self.write(trainer)
            self.may_stop = trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)

    def write(self, trainer: Trainer) -> None:
        """Write a new checkpoint and keep the previous one."""
        if trainer.is_global_zero and (self.folder / LAST).exists():
            os.replace(self.folder / LAST, self.folder / BEFORE_LAST)
        trainer.save_checkpoint(self.folder / LAST)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints atomically."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            UserError: the disk is full
        """
        path = Path(path)
        try:
            with atomic_write(path) as part:
                torch.save(checkpoint, part)
        except (OSError, RuntimeError) as error:  # torch raises a RuntimeError when a write is cut short
            raise UserError(
                f"cannot write {path} ({first_line(error)}); free some space and run the same command again",
                kind="unwritable",
                key=path,
            ) from None
