"""The objective of a sweep: a key of metrics.json, to be maximised or minimised."""

from pathlib import Path

from omegaconf import DictConfig

from sn6.errors import UserError
from sn6.files import read_json
from sn6.training.resume import METRICS_FILE

MINIMIZED = ("validation.loss", "test.loss")  # all others are maximised


def read_objective(folder: Path, objective: str) -> float:
    """Return the objective of the finished run in `folder`.

    Args:
        folder: of the run
        objective: dotted key of its metrics.json

    Raises:
        UserError: the file is broken, or an older version of sn6 wrote it
    """
    path, (part, score) = folder / METRICS_FILE, objective.split(".")
    metrics = read_json(path)
    if part not in metrics:
        raise UserError(
            f"{path} was written by an older version of sn6 and has no {objective}; choose another name=..., or set "
            "resume=false to train again",
            kind="wrong_data",
            key=path,
            value=objective,
        )
    return float(metrics[part][score])


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
