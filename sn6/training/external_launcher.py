"""How this process was started: alone, or as one of several of the same run."""

import os
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sn6.errors import UserError


def external_launcher() -> str | None:
    """The program that started this process as one of several of the same run, if one did.

    Lightning's own processes and submitit's are told the folder of the first one, and are none of these.
    """
    if "SUBMITIT_EXECUTOR" in os.environ:
        return None
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    by_srun = int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ
    return "srun" if by_srun else None


def require_run_name(config: DictConfig) -> None:
    """Raises a UserError where each of several processes would make another run of its own."""
    program = external_launcher()
    if program is None:
        return
    raw: Any = OmegaConf.to_container(config, resolve=False)
    if "${now:" in raw["name"]:
        raise UserError(f"each process that {program} starts would make a folder of its own; give name=...")
    if not config.resume:
        raise UserError(f"each process that {program} starts would put the run aside; give another name=...")


def check_world_size(world_size: int) -> None:
    """Raises a UserError where torchrun started more or fewer processes than the run has devices."""
    there = int(os.environ.get("WORLD_SIZE", world_size))
    if external_launcher() == "torchrun" and there != world_size:
        raise UserError(
            f"torchrun started {there} processes, trainer.devices × trainer.num_nodes is {world_size}; make them equal"
        )
