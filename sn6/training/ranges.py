"""Ranges of the values of Lightning's Trainer and of optimizers, which their own signatures do not state."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt
from pydantic_core import PydanticCustomError

from sn6.cli import check_arguments
from sn6.errors import UserError


def limit_of_steps(steps: int) -> int:
    """Return a number of steps as it is.

    Raises:
        PydanticCustomError: it is neither -1, which is no limit, nor at least 1
    """
    if steps != -1 and steps < 1:
        raise PydanticCustomError("steps", "input should be at least 1, or -1 for no limit")
    return steps


def without_duplicates(devices: list[int]) -> list[int]:
    """Return numbers of devices as they are; raise a PydanticCustomError where one is given twice."""
    if len(set(devices)) < len(devices):
        raise PydanticCustomError("duplicates", "each device should be given once")
    return devices


Fraction: TypeAlias = Annotated[float, Field(gt=0, le=1)]
Finite: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Batches: TypeAlias = PositiveInt | Fraction | None
Steps: TypeAlias = Annotated[int, AfterValidator(limit_of_steps)]
DeviceList: TypeAlias = Annotated[list[NonNegativeInt], Field(min_length=1), AfterValidator(without_duplicates)]
Momentum: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class TrainerRanges:
    """Arguments of `lightning.Trainer`; one that is not here is checked by its own type."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"]
    devices: PositiveInt | Literal[-1, "auto"] | DeviceList | Annotated[str, Field(pattern=r"^-1$|^\d+(,\d+)*,?$")]
    num_nodes: PositiveInt
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false"]
    max_epochs: Annotated[int, Field(ge=-1)] | None
    min_epochs: NonNegativeInt | None
    max_steps: Steps
    min_steps: NonNegativeInt | None
    check_val_every_n_epoch: PositiveInt
    val_check_interval: Batches
    num_sanity_val_steps: Annotated[int, Field(ge=-1)] | None
    log_every_n_steps: PositiveInt
    gradient_clip_val: Finite | None
    gradient_clip_algorithm: Literal["norm", "value"] | None
    accumulate_grad_batches: PositiveInt
    limit_train_batches: Batches
    limit_val_batches: Batches | Literal[0]
    limit_test_batches: Batches | Literal[0]
    overfit_batches: NonNegativeInt | Fraction
    reload_dataloaders_every_n_epochs: NonNegativeInt
    profiler: Literal["simple", "advanced", "pytorch"] | None


@dataclass(frozen=True)
class OptimizerRanges:
    """Arguments of the optimizers of torch, which others name alike."""

    lr: Finite
    weight_decay: Finite
    eps: Finite
    momentum: Momentum
    betas: Annotated[list[Momentum], Field(min_length=2, max_length=2)]


RANGES: dict[str, type] = {"trainer": TrainerRanges, "optimizer": OptimizerRanges}
MAY_BE_OBJECTS = ("accelerator", "strategy", "profiler")  # that a node with a `_target_` makes
# Arguments of the Trainer that a run sets, and what sets them instead.
SET_BY_RUN = {
    "logger": "logger=",
    "callbacks": "callbacks.NAME",
    "default_root_dir": "name=",
    "enable_checkpointing": "callbacks.checkpoint",
    "enable_model_summary": "",
    "use_distributed_sampler": "",
    "plugins": "",
    "barebones": "",
    "sync_batchnorm": "",
    "model_registry": "",
}


def keys_with_ranges(group: str) -> Collection[str]:
    """Return the arguments of a config group whose ranges are here."""
    return [one.name for one in fields(RANGES[group])] if group in RANGES else []


def is_node(value: Any) -> bool:
    """Return whether a value of a config is an object to make."""
    return isinstance(value, Mapping) and "_target_" in value


def range_errors(group: str, node: Mapping[str, Any]) -> list[UserError]:
    """Return the errors of the values of a config group that are out of their range, or that a run sets itself."""
    made = {key for key, value in node.items() if key in MAY_BE_OBJECTS and is_node(value)}
    given = {key: value for key, value in node.items() if key in keys_with_ranges(group) and key not in made}
    errors = check_arguments(RANGES[group], given, f"{group}.", strict=True)[1] if given else []
    for key in (key for key in node if group == "trainer" and key in SET_BY_RUN):
        instead = f"use {SET_BY_RUN[key]}" if SET_BY_RUN[key] else "leave it out"
        message = f"{group}.{key} is set by sn6; {instead}"
        errors.append(UserError(message, kind="conflict", key=f"{group}.{key}", value=node[key]))
    return errors
