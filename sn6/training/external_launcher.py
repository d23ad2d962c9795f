"""How this process was started: alone, or as one of several of the same run by torchrun or srun."""

import os
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sn6.errors import UserError


def external_launcher() -> str | None:
    """Return the program that started this process as one of several of the same run; None if none did.

    Processes that Lightning or submitit starts get the folder of the first one, and do not count.
    """
    if "SUBMITIT_EXECUTOR" in os.environ:
        return None
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    by_srun = int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ
    return "srun" if by_srun else None


def require_run_name(config: DictConfig) -> None:
    """Raise a UserError where each of several processes would make a run of its own."""
    program = external_launcher()
    if program is None:
        return
    raw: Any = OmegaConf.to_container(config, resolve=False)
    if "${now:" in raw["name"]:
        raise UserError(
            f"each process that {program} starts would create its own folder; set name=...",
            kind="missing_value",
            key="name",
        )
    if not config.resume:
        raise UserError(
            f"resume=false with {program}: each process would rename the existing run's folder; leave out resume=false "
            "and choose a new name=...",
            kind="conflict",
            key="resume",
            value=False,
        )


def check_world_size(world_size: int) -> None:
    """Raise a UserError where torchrun started more or fewer processes than the run has devices."""
    started = int(os.environ.get("WORLD_SIZE", world_size))
    if external_launcher() == "torchrun" and started != world_size:
        raise UserError(
            f"torchrun started {started} processes, but trainer.devices × trainer.num_nodes is {world_size}; make "
            "them equal",
            kind="conflict",
            key="trainer.devices",
            value=world_size,
        )
