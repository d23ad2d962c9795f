"""Log the mean training loss of each epoch."""

from typing import Any, ClassVar

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, distributed

EPOCH_LOSS = "train/epoch_loss"  # as it is logged


class EpochLoss(Callback):
    """Log `train/epoch_loss`, the mean loss of the crops of an epoch over all devices.

    Its sums are in the checkpoints: Lightning's own mean of an epoch restarts in a run that resumes within an epoch.
    """

    may_change: ClassVar = True  # when a run resumes

    def __init__(self) -> None:
        self.epoch = -1
        self.before = [0.0, 0.0]  # sum and number of crops before the resumed checkpoint, over all ranks
        self.sums: Tensor | None = None  # the same since then, of this rank

    def state_dict(self) -> dict[str, Any]:
        """Return the sums over all ranks; every rank calls it."""
        return {"epoch": self.epoch, "sums": self.totals()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the sums of an epoch that was stopped."""
        self.epoch, self.before, self.sums = state_dict["epoch"], state_dict["sums"], None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the loss of a batch, without waiting for the device."""
        if trainer.current_epoch != self.epoch:
            self.epoch, self.before, self.sums = trainer.current_epoch, [0.0, 0.0], None
        loss, crops = outputs["loss"].detach(), len(batch["image"])
        # Losses in float32 add up exactly in float64, in any order; Apple's GPUs have no float64.
        loss = loss.to(torch.float32 if loss.device.type == "mps" else torch.float64)
        added = torch.stack([loss * trainer.accumulate_grad_batches * crops, loss.new_tensor(crops)])
        self.sums = added if self.sums is None else self.sums + added

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the mean."""
        total, crops = self.totals()
        pl_module.log(EPOCH_LOSS, total / max(crops, 1.0))

    def totals(self) -> list[float]:
        """Return sum and number of the crops of this epoch, over all ranks."""
        if self.sums is None:
            return self.before
        sums = self.sums.clone()
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(sums)
        return [one + other for one, other in zip(self.before, sums.tolist(), strict=True)]
