"""Out of memory: which keys make a batch smaller, and what of the run is kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning import Trainer

from sn6.checkpoints.run_files import LAST
from sn6.data.datamodule import TileDataModule
from sn6.errors import UserError, counted
from sn6.segmenter import Segmenter

# in the RuntimeErrors of PyTorch's CPU allocator, of cuDNN and of cuBLAS; on a GPU PyTorch raises an OutOfMemoryError
NO_MEMORY = ("allocate memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")


@contextmanager
def memory_errors(trainer: Trainer, segmenter: Segmenter, datamodule: TileDataModule) -> Iterator[None]:
    """Turn the end of the memory into a UserError that says which keys make the batches of that phase smaller."""
    try:
        yield
    except RuntimeError as error:
        is_of_memory = isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in NO_MEMORY)
        if not is_of_memory:
            raise
        device = "GPU" if segmenter.device.type == "cuda" else "machine"
        if segmenter.training:
            key, value = "data.batch_size", datamodule.batch_size
            advice = of_training(trainer, datamodule)
        else:
            key, value = "data.eval_batch_size", datamodule.eval_batch_size
            advice = f"{key}={value} whole tiles; set window=512, a smaller one if it is set, or data.eval_batch_size=1"
        message = f"the {device} does not have enough memory for {advice}"
        raise UserError(message, kind="failed", key=key, value=value) from None


def of_training(trainer: Trainer, datamodule: TileDataModule) -> str:
    """Return what a training step computes, how to make it smaller, and whether the run can resume then."""
    batch, crop, accumulate = datamodule.batch_size, datamodule.crop, trainer.accumulate_grad_batches
    devices = trainer.world_size
    step = f"data.batch_size={batch} crops of data.crop={crop} pixels on {counted(devices, 'device')}"
    smaller = f"set data.crop={max(crop // 2, 1)}"
    if batch % (2 * devices) == 0:
        smaller = f"set data.batch_size={batch // 2} trainer.accumulate_grad_batches={2 * accumulate}"
        smaller += ", or a smaller data.crop"
    if not (last := Path(trainer.default_root_dir) / LAST).exists():
        return f"{step} with trainer.accumulate_grad_batches={accumulate}; {smaller}"
    return (
        f"{step} with trainer.accumulate_grad_batches={accumulate}; the run resumes from {last} with the same values, "
        f"where there is more memory or with more trainer.devices; other values give other steps: {smaller} with "
        "another name= or resume=false"
    )
