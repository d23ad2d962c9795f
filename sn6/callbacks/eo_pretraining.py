"""Write the weights of an EO run for SAR runs to start from."""

from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from sn6.checkpoints.loading import installed_versions, read_checkpoint
from sn6.checkpoints.metadata import CheckpointMetadata
from sn6.checkpoints.run_files import WEIGHTS_FILE
from sn6.checkpoints.weights_file import write_weights


class EOPretraining(Callback):
    """Write `weights.safetensors` at the end: the epoch that `callbacks.checkpoint` chose, with metadata.

    The metadata hold the network and its options, product, bands and their order, normalisation, orientation, the fold
    and the training area, the scores of the epoch, and the versions of the packages.
    """

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Convert the best checkpoint, which holds the calibrated threshold."""
        checkpoint = trainer.checkpoint_callback
        assert isinstance(checkpoint, ModelCheckpoint)
        if not trainer.is_global_zero or not checkpoint.best_model_path:
            return
        weights, metadata = read_checkpoint(Path(checkpoint.best_model_path), "callbacks.eo_pretraining")
        assert isinstance(metadata, CheckpointMetadata)
        metadata = metadata.model_copy(update={"versions": installed_versions()})
        write_weights(Path(trainer.default_root_dir) / WEIGHTS_FILE, weights, metadata.model_dump())
