"""What a run was trained with: versions, git commit, devices."""

import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer

import sn6
from sn6.checkpoints.loading import installed_version

PACKAGES = ("torch", "lightning", "hydra-core", "timm", "numpy", "rasterio", "shapely")


def environment(trainer: Trainer) -> dict[str, Any]:
    """Return the environment of a run for its metrics.json."""
    return {
        "versions": {"sn6": sn6.__version__, "python": platform.python_version()}
        | {name: installed_version(name) for name in PACKAGES},
        "git_commit": git_commit(Path(sn6.__file__).resolve().parents[1]),
        "device": device_name(trainer),
        "devices": trainer.world_size,
        "precision": str(trainer.precision),
    }


def device_name(trainer: Trainer) -> str:
    """Return the name of the first device: "cpu", or that of the GPU."""
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def git_commit(checkout: Path) -> str | None:
    """Return the commit of a git checkout, with "+changes" after it where tracked files differ; None elsewhere.

    Args:
        checkout: its top folder
    """
    if not (checkout / ".git").exists():  # such as an installed package, which may be inside another repository
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
