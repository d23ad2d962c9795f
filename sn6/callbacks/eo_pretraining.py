"""What an optical run leaves for radar runs to start from."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from sn6.callbacks.polygon_f1 import polygon_f1_of
from sn6.models.checkpoint import network_of
from sn6.models.portable import write_portable

WEIGHTS_FILE = "weights.safetensors"
PACKAGES = ("sn6", "torch", "lightning", "timm")


class EOPretraining(Callback):
    """Writes `weights.safetensors` at the end: the epoch that `callbacks.checkpoint` found best, and its card.

    The card holds the network and its options, product, bands and their order, normalisation, orientation, the fold
    and the ground that it was trained on, the scores of the epoch, and the versions of what made it.
    """

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reads the best checkpoint, so that the file is of the epoch that is tested."""
        checkpoint = trainer.checkpoint_callback
        assert isinstance(checkpoint, ModelCheckpoint)
        if not trainer.is_global_zero or not checkpoint.best_model_path:
            return
        held = torch.load(checkpoint.best_model_path, map_location="cpu", weights_only=True)
        card = card_of(held) | {
            "score": held["callbacks"][polygon_f1_of(trainer).state_key]["scores"],
            "chosen_by": checkpoint.monitor,
        }
        write_portable(Path(trainer.default_root_dir) / WEIGHTS_FILE, network_of(held), card)


def card_of(held: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint of Lightning tells of its network, in plain values."""
    data = held.get("TileDataModule", {})
    config = held.get("hyper_parameters", {}).get("config", {})
    return {
        "network": {key: value for key, value in config.get("model", {}).items() if key != "weights"},
        **data,
        "epoch": held.get("epoch"),
        "versions": {name: version_of(name) for name in PACKAGES} | {"python": platform.python_version()},
    }


def version_of(package: str) -> str | None:
    """None where it runs from a folder that was never installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
