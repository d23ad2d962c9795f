"""What libraries print and raise in a training, reduced to what a user needs."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from sn6.data.datamodule import TileDataModule
from sn6.errors import UserError, first_line
from sn6.segmenter import Segmenter


@contextmanager
def lightning_errors() -> Iterator[None]:
    """Turn what Lightning raises about its arguments into a UserError."""
    try:
        yield
    except MisconfigurationException as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}", kind="invalid_value", key="trainer") from None
    except RuntimeError as error:
        if str(error).startswith("Early stopping conditioned on"):
            raise UserError(f"callbacks: {first_line(error)}", kind="unknown_value", key="callbacks") from None
        if "loading state_dict" not in str(error):
            raise
        raise UserError(
            f"the checkpoint of this run does not fit its network, whose code has changed "
            f"({' '.join(str(error).split())}); restore the code, choose another name=, or set resume=false",
            kind="mismatch",
            key="name",
        ) from None


@contextmanager
def memory_errors(segmenter: Segmenter, datamodule: TileDataModule) -> Iterator[None]:
    """Turn the end of a GPU's memory into a UserError that says which key makes the batches of that phase smaller."""
    try:
        yield
    except torch.OutOfMemoryError:
        if segmenter.training:
            key, value = "data.batch_size", datamodule.batch_size
            advice = f"{key}={value} crops of {datamodule.crop} pixels; lower data.batch_size or data.crop"
        else:
            key, value = "data.eval_batch_size", datamodule.eval_batch_size
            advice = f"{key}={value} whole tiles; set window=512, a smaller one if it is set, or data.eval_batch_size=1"
        message = f"the GPU does not have enough memory for {advice}"
        raise UserError(message, kind="failed", key=key, value=value) from None


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence what libraries print about themselves, and advice that does not apply here."""
    for name in ("lightning.pytorch", "lightning.fabric", "timm"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            ".*GPU available but not used.*",  # trainer.accelerator=cpu was chosen
            ".*does not have many workers.*",  # two processes feed two cores
            ".*sync_dist=True.*",  # the table of tiles is the same on all ranks already
            ".*is smaller than the logging interval.*",
            ".*PyTorch Profiler default schedule.*",  # a short run
            ".*no geotransform.*",  # masks are pixels; rasterio's own filter does not hold beside another thread
            ".*lr_scheduler.step.* before .*optimizer.step.*",  # 16-mixed skips steps until its scale fits
            ".*isinstance.treespec, LeafSpec.*",  # Lightning's own
            ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run
        ):
            warnings.filterwarnings("ignore", message=message)
        yield
