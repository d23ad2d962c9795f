"""Train a run longer: `trainer.max_epochs` or `max_steps` is raised after it has finished or was stopped."""

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from torch import nn
from torch.optim import SGD

from sn6.config.composition import TRUST_NODE
from sn6.errors import UserError
from sn6.training.resume import METRICS_FILE, check_same_run, has_checkpoint
from sn6.training.run_identity import LENGTH
from sn6.training.saved_config import saved_config

EXTEND = "extend"  # value of resume=
SAMPLED = 100  # steps at which the learning rates of two lengths are compared
log = logging.getLogger(__name__)


def train_longer(folder: Path, config: dict[str, Any]) -> None:
    """Make a finished run one to resume where its length was raised; check that of a stopped one.

    The result of the shorter training is kept as `metrics.before.json`.

    Raises:
        UserError: its learning rates would differ from those of a run that has had this length from the start, and
            resume=extend is not given
    """
    saved = saved_config(folder)
    if not has_checkpoint(folder) or not is_longer(saved, config):
        return
    check_same_run(folder, config, may_train_longer=True)
    if config["resume"] != EXTEND and not keeps_rates(config["schedule"]):
        key = next(key for key in LENGTH if value_of(saved, key) != value_of(config, key))
        old, new, schedule = value_of(saved, key), value_of(config, key), str(config["schedule"]["_target_"])
        raise UserError(
            f"{folder} was trained with {key}={old}; with {new} the learning rates of {schedule.rpartition('.')[2]} "
            "differ from its first step on; set resume=extend to train on from where it ended at the rates of the new "
            "length, or choose another name=",
            kind="conflict",
            key=key,
            value=new,
        )
    path = folder / METRICS_FILE
    if path.exists():
        log.info("%s is finished, and trains longer", folder)
        with suppress(FileNotFoundError):  # another rank did it
            os.replace(path, path.with_suffix(".before.json"))


def value_of(config: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key; None where it is missing."""
    group, _, name = key.partition(".")
    return (config.get(group) or {}).get(name)


def is_longer(saved: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Return whether a config trains for more epochs or steps than the saved one, and for fewer of none."""
    before, after = ([no_limit(value_of(one, key)) for key in LENGTH] for one in (saved, config))
    return after != before and all(new >= old for new, old in zip(after, before, strict=True))


def no_limit(length: int | None) -> float:
    """Return a number of epochs or steps; None and -1, which are no limit, as infinity."""
    return inf if length in (None, -1) else float(length or 0)


def keeps_rates(schedule: Mapping[str, Any]) -> bool:
    """Return whether a schedule of twice the length has the same learning rates as far as the shorter one goes.

    Args:
        schedule: node of the config: (optimizer, steps) → schedule
    """
    short, double = (rates(schedule, steps) for steps in (SAMPLED, 2 * SAMPLED))
    return short == double


def rates(schedule: Mapping[str, Any], steps: int) -> list[float]:
    """Return the learning rates of the first `SAMPLED` of `steps` steps, relative to that of the optimizer."""
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    made, result = instantiate(dict(schedule), _convert_="all", **TRUST_NODE)(optimizer, steps), []
    for _ in range(SAMPLED):
        result.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()
    return result
