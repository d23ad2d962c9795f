"""Lightning's profilers, by the name in `trainer.profiler`."""

from pathlib import Path

from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler

PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}


def make_profiler(name: str | None, folder: Path) -> Profiler | None:
    """Make the profiler of that name, which writes `fit-profile.txt` to the run's folder."""
    return None if name is None else PROFILERS[name](dirpath=folder, filename="profile")
