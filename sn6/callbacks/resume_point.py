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
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from lightning.pytorch.trainer.states import TrainerFn
from pydantic import PositiveInt

from sn6.callbacks.last_validation import ends_training
from sn6.checkpoints.run_files import BEFORE_LAST, LAST
from sn6.errors import UserError, first_line
from sn6.files import atomic_write
from sn6.signals import STOP_SIGNALS, SignalHandler, Stopped, stop

REQUEUE_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)  # by which a cluster announces a time-out or a preemption
REQUEUE_SECONDS = 600  # that the other ranks leave the first one to requeue the job, which ends them all


class TrainerSignals(_SignalConnector):
    """Leave SIGTERM to sn6: Lightning would end a test with status 0, and wait for the other ranks before that."""

    def register_signal_handlers(self) -> None:
        """Listen to a cluster's signals to requeue the job."""
        handler = signal.getsignal(signal.SIGTERM)
        super().register_signal_handlers()
        self._register_signal(signal.SIGTERM, handler)


class ResumePoint(Checkpoint):
    """Write `last.ckpt`, and keep the one before as `before_last.ckpt`.

    On SIGINT (Ctrl-C) or SIGTERM (the end of a cluster's job) the checkpoint is written after the current step, then
    the run stops; in a validation it stops at once, and resumes from the checkpoint before. A second signal ends the
    process at once. SIGUSR1 and SIGUSR2, where Lightning or submitit listens to them to requeue a cluster's job, wait
    for the end of a validation: their handlers are called when the checkpoint is written.

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
        self.at_once = False  # whether a signal stops the run without a checkpoint
        self.handlers: dict[int, Any] = {}  # of signals, before the training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to the signals."""
        current = signal.getsignal(signal.SIGTERM)
        handler = current if isinstance(current, SignalHandler) else SignalHandler(stop)
        self.handlers = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
        for number in REQUEUE_SIGNALS:
            if callable(signal.getsignal(number)):
                self.handlers[number] = signal.signal(number, self._on_requeue_signal)
        handler.first, self.at_once = self._on_signal, False

    def _on_signal(self, number: int) -> None:
        self.signal = number
        if self.at_once:
            stop(number, self._advice())

    def _on_requeue_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, self.handlers[number])

    def _advice(self) -> str:
        """Return how to resume after a stop."""
        path = self.folder / LAST
        return f"the same command resumes from {path}" if path.exists() else "run the same command again"

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the handlers of the signals."""
        for number in self.handlers:
            if isinstance(handler := signal.getsignal(number), SignalHandler):
                handler.first = stop
        while self.handlers:
            signal.signal(*self.handlers.popitem())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a checkpoint when it is time, but not after the last batch of an epoch: a validation follows."""
        stop = trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)
        is_last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch or ends_training(trainer, batch_idx)
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
            raise Stopped(self.signal or signal.SIGTERM, self._advice())

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop where a signal came in the step before a validation of the training; it may take minutes."""
        if not is_validation_of_training(trainer):
            return
        self.at_once = True
        if trainer.strategy.reduce_boolean_decision(self.signal in STOP_SIGNALS, all=False):
            raise Stopped(self.signal or signal.SIGTERM, self._advice())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write a checkpoint after a validation of the training, with its score among the best values."""
        if is_validation_of_training(trainer):
            self.at_once = False
            self.write(trainer)
            self.may_stop = trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop where a signal came in the last validation, whose checkpoint is written."""
        self.at_once = True
        if self.may_stop:
            raise Stopped(self.signal or signal.SIGTERM, self._advice())

    def write(self, trainer: Trainer) -> None:
        """Write a new checkpoint and keep the previous one."""
        if trainer.is_global_zero and (self.folder / LAST).exists():
            os.replace(self.folder / LAST, self.folder / BEFORE_LAST)
        trainer.save_checkpoint(self.folder / LAST)


def is_validation_of_training(trainer: Trainer) -> bool:
    """Return whether this is a validation within fit, after the sanity check."""
    return trainer.state.fn is TrainerFn.FITTING and not trainer.sanity_checking


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
