"""Write the weights of an EO run for SAR runs to start from."""

from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from sn6.callbacks.polygon_f1 import polygon_f1_of
from sn6.checkpoints.loading import checkpoint_metadata
from sn6.checkpoints.run_files import WEIGHTS_FILE
from sn6.checkpoints.state_dict import network_state
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
        state = torch.load(checkpoint.best_model_path, map_location="cpu", weights_only=True)
        metadata = checkpoint_metadata(state) | {
            "score": state["callbacks"][polygon_f1_of(trainer).state_key]["scores"],
            "selected_by": checkpoint.monitor,
        }
        write_weights(Path(trainer.default_root_dir) / WEIGHTS_FILE, network_state(state), metadata)
