"""Validate the end of a training."""

from typing import Any

from lightning import Callback, LightningModule, Trainer


class LastValidation(Callback):
    """Validate after the last step of a training, wherever `max_epochs` or `max_steps` ends it.

    Lightning validates after every `check_val_every_n_epoch`-th complete epoch. The steps after the last of these, with
    the lowest learning rates of most schedules, would have no effect, since the network of the best validation is kept.
    """

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Keep the number of the logged steps where a longer training resumes from a validation within an epoch.

        Lightning counts a step after its validation, in which the checkpoint is written.
        """
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let Lightning validate after this batch if it is the last one."""
        if ends_training(trainer, batch_idx):
            trainer.check_val_every_n_epoch = 1
            trainer.val_check_batch = batch_idx + 1


def ends_training(trainer: Trainer, batch_idx: int) -> bool:
    """Return whether a batch of the current epoch, after its step, is the last one of the training."""
    is_last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
    return 0 <= trainer.max_steps <= trainer.global_step or (
        is_last_epoch and batch_idx + 1 == trainer.num_training_batches
    )
