"""GPUs for jobs that run at the same time on one machine."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from sn6.errors import UserError, counted


@contextmanager
def free_gpus(config: DictConfig, launcher: str) -> Iterator[dict[str, str]]:
    """Yield `CUDA_VISIBLE_DEVICES` with GPUs that no other job on this machine uses; wait until there are enough.

    Yields nothing where jobs run one after another, or the run names its GPUs or uses none.

    Args:
        config: of the job
        launcher: Hydra's, by name
    """
    number = config.trainer.devices
    if launcher == "basic" or not isinstance(number, int) or config.trainer.accelerator == "cpu":
        yield {}
        return
    import torch

    from sn6.training.devices import on_gpu

    if not on_gpu(config.trainer.accelerator):
        yield {}
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    with ExitStack() as stack:
        yield {"CUDA_VISIBLE_DEVICES": ",".join(acquire_gpus(visible.split(","), number, stack))}


def acquire_gpus(names: list[str], number: int, stack: ExitStack) -> list[str]:
    """Lock the first `number` of `names` that are free until `stack` closes, and return them.

    Raises:
        UserError: there are fewer
    """
    if number > len(names):
        raise UserError(
            f"trainer.devices={number}: this machine has {counted(len(names), 'GPU')}; set "
            + (f"trainer.devices={len(names)}" if names else "trainer.accelerator=cpu"),
            kind="not_found",
            key="trainer.devices",
            value=number,
        )
    while True:
        with ExitStack() as locks:
            locked = []
            for name in names:
                lock = FileLock(Path(tempfile.gettempdir()) / f"sn6-gpu-{name}.lock", mode=0o666)
                try:
                    locks.enter_context(lock.acquire(timeout=0))
                except Timeout:
                    continue
                locked.append(name)
                if len(locked) == number:
                    stack.enter_context(locks.pop_all())
                    return locked
        time.sleep(1)
