"""The devices of a run: what fits on them, and that the processes on them end together."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning import Trainer
from omegaconf import DictConfig, OmegaConf
from torch import distributed, nn

from sn6.errors import UserError

GPU = ("gpu", "cuda")
FIRST_SPEAKS = 3  # seconds that other processes leave the first one to tell what is wrong


def fastest_precision(accelerator: str) -> str:
    """bf16-mixed where the device computes in it, else 16-mixed on a GPU and 32-true on a CPU."""
    if on_gpu(accelerator):
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    native = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return "bf16-mixed" if native and accelerator in ("auto", "cpu") else "32-true"


def on_gpu(accelerator: str) -> bool:
    """Whether Lightning takes a GPU for this `trainer.accelerator`."""
    return accelerator in ("auto", *GPU) and torch.cuda.is_available()


def check_devices(config: DictConfig) -> None:
    """Raises a UserError where the machine lacks the devices, or they cannot do what is asked."""
    trainer, there = config.trainer, torch.cuda.device_count()
    if trainer.accelerator in GPU and not there:
        raise UserError(f"trainer.accelerator={trainer.accelerator}: there is no GPU here; set trainer.accelerator=cpu")
    wanted = len(trainer.devices) if OmegaConf.is_list(trainer.devices) else trainer.devices
    if on_gpu(trainer.accelerator) and isinstance(wanted, int) and wanted > there:
        raise UserError(f"trainer.devices={trainer.devices}: there are {there} GPUs here; set trainer.devices={there}")
    precision = str(trainer.precision)
    if precision in ("16-true", "bf16-true", "transformer-engine", "transformer-engine-float16"):
        raise UserError(f"trainer.precision={precision} does not train these networks; set bf16-mixed")
    if precision in ("16", "16-mixed"):
        if not on_gpu(trainer.accelerator):
            raise UserError(f"trainer.precision={precision} needs a GPU; set bf16-mixed or 32-true")
        if trainer.gradient_clip_val is not None and config.optimizer.get("fused"):
            raise UserError(
                "trainer.gradient_clip_val with trainer.precision=16-mixed needs optimizer.fused=false: a fused "
                "optimizer takes the scaled gradients; or set bf16-mixed"
            )


def has_batch_norm(network: nn.Module) -> bool:
    """Whether statistics are taken over a batch, which several devices share."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


@contextmanager
def stop_all_ranks_on_error(trainer: Trainer) -> Iterator[None]:
    """Ends the processes that Lightning started when the first one fails: they would wait for it for ever.

    The same fault is told once: the others leave the first one some seconds, which ends them when it has met it too.

    Raises:
        UserError: the port of the first process is in use
    """
    try:
        yield
    except BaseException as error:
        launcher: Any = trainer.strategy.launcher
        if getattr(launcher, "procs", None):
            launcher.kill(signal.SIGKILL)
        elif trainer.global_rank > 0 and isinstance(error, UserError):
            time.sleep(FIRST_SPEAKS)
        if isinstance(error, distributed.DistNetworkError):
            port = os.environ.get("MASTER_PORT")
            raise UserError(
                f"MASTER_PORT={port} cannot be used, another program may have it; unset it or give a free one"
            ) from None
        raise
