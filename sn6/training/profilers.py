"""Lightning's profilers, by the name in `trainer.profiler`."""

from pathlib import Path
from typing import Any

from lightning.pytorch.profilers import AdvancedProfiler, PassThroughProfiler, Profiler, PyTorchProfiler, SimpleProfiler

from sn6.errors import UserError

PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}


def end_profile(trainer: Any) -> None:
    """Stop profiling after the training: calibration and scoring do not belong to the profile."""
    trainer.profiler = PassThroughProfiler()


def make_profiler(name: str | None, folder: Path) -> Profiler | None:
    """Make the profiler of that name, which writes `fit-profile.txt` to the run's folder.

    Raises:
        UserError: the name is unknown
    """
    if name is None:
        return None
    if name not in PROFILERS:
        raise UserError(
            f"unknown trainer.profiler={name}; choose from {', '.join(PROFILERS)}, or null",
            kind="unknown_value",
            key="trainer.profiler",
            value=name,
        )
    return PROFILERS[name](dirpath=folder, filename="profile")
