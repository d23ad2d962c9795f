"""Make the parts of a run, for tests that do not use the command line."""

from pathlib import Path
from typing import Any

import torch
from torch import nn


def make_trainer(ranks: int, folder: Path, **more: Any) -> Any:
    """Make a Trainer on CPU processes that prints nothing."""
    from lightning import Trainer

    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        use_distributed_sampler=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        **quiet | more,
    )


def make_datamodule(root: Path, **more: Any) -> Any:
    """Make the datamodule of the SAR tiles of an archive, read in this process."""
    from sn6.data.datamodule import TileDataModule
    from sn6.datasets.spacenet6 import SpaceNet6

    return TileDataModule(SpaceNet6(root), product="SAR-Intensity", num_workers=0, **more)


def make_segmenter(network: nn.Module, lr: float = 0.1, loss: nn.Module | None = None) -> Any:
    """Make a Segmenter with plain gradient descent, of the mask with this loss, or BCE."""
    from sn6.heads import mask_head
    from sn6.losses import BCE
    from sn6.schedules import constant
    from sn6.segmenter import Segmenter

    return Segmenter(network, mask_head(loss or BCE()), lambda parameters: torch.optim.SGD(parameters, lr=lr), constant)
