"""End a training when validations bring no better score."""

import logging
from typing import ClassVar, Literal

from lightning import LightningModule, Trainer, pytorch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from pydantic import NonNegativeFloat, PositiveInt

from sn6.errors import counted

log = logging.getLogger(__name__)


class EarlyStopping(pytorch.callbacks.EarlyStopping):
    """End the training after `patience` validations in a row without a better score.

    Lightning's callback, which also ends a run at once that was stopped after the decision and resumes.

    Args:
        patience: validations; None leaves the callback out
        min_delta: by how much a better score has to be better
        monitor: logged score
        mode: whether a higher score is better (max) or a lower one
    """

    switch: ClassVar = "patience"  # whose None leaves the callback out

    def __init__(
        self,
        patience: PositiveInt | None = None,
        min_delta: NonNegativeFloat = 0.0,
        monitor: str = "val/f1",
        mode: Literal["max", "min"] = "max",
    ) -> None:
        assert patience is not None
        super().__init__(monitor, min_delta, patience, mode=mode, check_on_train_epoch_end=False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End a training that resumes and was to end; one whose epoch is over finishes this epoch first."""
        is_over = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        trainer.should_stop = self.has_ended and not is_over

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End a training that was to end."""
        trainer.should_stop = trainer.should_stop or self.has_ended

    @property
    def has_ended(self) -> bool:
        """Return whether a validation has ended the training."""
        return self.stopping_reason is not EarlyStoppingReason.NOT_STOPPED

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print why the training is over."""
        if self.has_ended:
            waited, best = counted(self.wait_count, "validation"), float(self.best_score)
            rank_zero_only(log.info)(
                "early stopping: %s was not better than %.4f in the last %s", self.monitor, best, waited
            )
