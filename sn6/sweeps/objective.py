"""The objective of a sweep: a key of metrics.json, to be maximised or minimised."""

import json
from pathlib import Path

from omegaconf import DictConfig

from sn6.errors import UserError

MINIMIZED = ("val_loss", "loss")  # all others are maximised


def read_objective(folder: Path, objective: str) -> float:
    """Return the objective of the finished run in `folder`."""
    return float(json.loads((folder / "metrics.json").read_text())[objective])


def direction_of(config: DictConfig) -> str:
    """Return "minimize" or "maximize" for a search by Optuna.

    Args:
        config: of the sweep

    Raises:
        UserError: `hydra.sweeper.direction` is the other one
    """
    given = str(config.hydra.sweeper.direction)
    wanted = "minimize" if config.objective in MINIMIZED else "maximize"
    if given.rpartition(".")[2] != wanted:
        raise UserError(
            f"hydra.sweeper.direction={given} does not fit objective={config.objective}; set {wanted}",
            kind="conflict",
            key="hydra.sweeper.direction",
            value=given,
        )
    return wanted
