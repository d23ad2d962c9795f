"""The devices of a run: whether they exist, and that the processes on them end together."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from torch import distributed, nn

from sn6.errors import UserError, counted
from sn6.precision import is_fast_in_bfloat16
from sn6.signals import FIRST_RANK_ENDS, Stopped

GPU = ("gpu", "cuda")
HALF_WEIGHTS = ("16-true", "bf16-true", "transformer-engine", "transformer-engine-float16")
FIRST_REPORTS = 3  # seconds that other processes leave the first one to report an error


def fastest_precision(accelerator: str) -> str:
    """Return bf16-mixed where the device is faster in it, else 16-mixed on a GPU and 32-true on a CPU."""
    if on_gpu(accelerator):
        return "bf16-mixed" if is_fast_in_bfloat16("cuda") else "16-mixed"
    return "bf16-mixed" if accelerator in ("auto", "cpu") and is_fast_in_bfloat16("cpu") else "32-true"


def on_gpu(accelerator: str) -> bool:
    """Return whether Lightning takes a GPU for this `trainer.accelerator`."""
    return accelerator in ("auto", *GPU) and torch.cuda.is_available()


def check_devices(trainer: Mapping[str, Any], optimizer: Mapping[str, Any]) -> None:
    """Raise a UserError where the machine lacks the devices, or they cannot compute as configured.

    Args:
        trainer: node of the config, with a precision
        optimizer: node of the config
    """
    accelerator, devices, available = trainer["accelerator"], trainer["devices"], torch.cuda.device_count()
    if accelerator in GPU and not available:
        raise UserError(
            f"trainer.accelerator={accelerator}: this machine has no GPU; set trainer.accelerator=cpu",
            kind="not_found",
            key="trainer.accelerator",
            value=accelerator,
        )
    if str(devices) == "-1" and not on_gpu(accelerator):
        raise UserError(
            "trainer.devices=-1 is all GPUs, and no GPU is used; set trainer.devices=1 or more processes on the CPU",
            kind="conflict",
            key="trainer.devices",
            value=devices,
        )
    number = len(devices) if isinstance(devices, list) else devices
    if on_gpu(accelerator) and isinstance(number, int) and number > available:
        raise UserError(
            f"trainer.devices={devices}: this machine has {counted(available, 'GPU')}; set trainer.devices={available}",
            kind="not_found",
            key="trainer.devices",
            value=devices,
        )
    check_precision(str(trainer["precision"]), accelerator, trainer["gradient_clip_val"], optimizer)


def check_precision(
    precision: str, accelerator: str, gradient_clip_val: float | None, optimizer: Mapping[str, Any]
) -> None:
    """Raise a UserError for a precision that does not train these networks on this device."""
    if precision in HALF_WEIGHTS:
        raise UserError(
            f"trainer.precision={precision} is not supported for these networks; set bf16-mixed",
            kind="unknown_value",
            key="trainer.precision",
            value=precision,
        )
    if precision not in ("16", "16-mixed"):
        return
    if not on_gpu(accelerator):
        raise UserError(
            f"trainer.precision={precision} needs a GPU; set bf16-mixed or 32-true",
            kind="conflict",
            key="trainer.precision",
            value=precision,
        )
    if gradient_clip_val is not None and optimizer.get("fused"):
        raise UserError(
            "trainer.gradient_clip_val with trainer.precision=16-mixed needs optimizer.fused=false, as a fused "
            "optimizer gets scaled gradients; or set bf16-mixed",
            kind="conflict",
            key="optimizer.fused",
            value=True,
        )


def has_batch_norm(network: nn.Module) -> bool:
    """Return whether the network computes statistics over a batch, which several devices have to share."""
    return any(map(is_batch_norm, network.modules()))


class SyncBatchNorm(TorchSyncBatchNorm):
    """Share the statistics of batch norms over the devices while a network is trained.

    Lightning's own converts a batch norm of timm that includes its activation to one without, and converts back to
    others than there were. Here timm converts, and the layers themselves are put back, with the trained values.
    """

    def __init__(self) -> None:
        self.originals: dict[nn.Module, nn.Module] = {}  # layer that shares its statistics → layer of the network

    def apply(self, model: nn.Module) -> nn.Module:
        """Replace the batch norms of `model` in place."""
        from timm.layers import convert_sync_batchnorm  # takes seconds; needed on several GPUs only

        before = {name: layer for name, layer in model.named_modules() if is_batch_norm(layer)}
        model = convert_sync_batchnorm(model)
        self.originals = {model.get_submodule(name): layer for name, layer in before.items()}
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Put the layers of the network back in place."""
        for parent in list(model.modules()):
            for name, layer in list(parent.named_children()):
                original = self.originals.get(layer)
                if original is not None:
                    original._parameters.update(layer._parameters)
                    original._buffers.update(layer._buffers)
                    original.train(layer.training)
                    parent.add_module(name, original)
        return model


def is_batch_norm(module: nn.Module) -> bool:
    """Return whether a layer computes statistics over a batch."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


@contextmanager
def stop_all_ranks_on_error(trainer: Trainer) -> Iterator[None]:
    """End the processes that Lightning started when the first one fails: they would wait for it for ever.

    An error that all processes meet is reported once: the others give the first one some seconds, in which it ends
    them.

    Raises:
        UserError: the port of the first process is in use
    """
    try:
        yield
    except BaseException as error:
        launcher: Any = trainer.strategy.launcher
        if getattr(launcher, "procs", None):
            kill_ranks(launcher.procs)
        elif trainer.global_rank > 0 and isinstance(error, UserError | Stopped):
            time.sleep(FIRST_REPORTS if isinstance(error, UserError) else FIRST_RANK_ENDS)
        if isinstance(error, distributed.DistNetworkError):
            port = os.environ.get("MASTER_PORT")
            raise UserError(
                f"MASTER_PORT={port} is not available (another program may be using it); unset it or set a free one",
                kind="unavailable",
                key="MASTER_PORT",
                value=port,
            ) from None
        raise


def kill_ranks(processes: list[Any]) -> None:
    """Kill the other ranks and empty the list, as Lightning kills this process too when one in its list has failed."""
    ranks = processes[:]
    processes.clear()
    for rank in ranks:
        rank.kill()
    for rank in ranks:
        rank.wait()
