"""What an optical run leaves for radar runs to start from."""

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
    """Writes `weights.safetensors` at the end: the epoch that `callbacks.checkpoint` found best, and its card.

    The card holds the network and its options, product, bands and their order, normalisation, orientation, the fold
    and the ground that it was trained on, the scores of the epoch, and the versions of what made it.
    """

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reads the best checkpoint, with the threshold that was chosen for it."""
        checkpoint = trainer.checkpoint_callback
        assert isinstance(checkpoint, ModelCheckpoint)
        if not trainer.is_global_zero or not checkpoint.best_model_path:
            return
        held = torch.load(checkpoint.best_model_path, map_location="cpu", weights_only=True)
        card = checkpoint_metadata(held) | {
            "score": held["callbacks"][polygon_f1_of(trainer).state_key]["scores"],
            "chosen_by": checkpoint.monitor,
        }
        write_weights(Path(trainer.default_root_dir) / WEIGHTS_FILE, network_state(held), card)
