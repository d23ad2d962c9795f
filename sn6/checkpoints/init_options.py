"""What a network starts from: its options, as requested or as given weights fix them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from inspect import signature
from typing import Any

from pydantic import NonNegativeInt
from torch import nn

from sn6.checkpoints.transfer import Adapt
from sn6.errors import UserError


@dataclass(frozen=True)
class InitOptions:
    """The keys of conf/model that are not arguments of the network's class.

    Attributes:
        weights: file or folder, see `sn6.checkpoints.loading`
        adapt: rule for a first layer of other bands, see `sn6.checkpoints.transfer.adapt_first_layer`
        reset_head: keep the initialisation of the last layers
        weights_fold: column of easting that the weights were not trained on, if their metadata do not say
        building_class: channel of building among several classes
    """

    weights: str | None = None
    adapt: Adapt | None = None
    reset_head: bool = False
    weights_fold: NonNegativeInt | None = None
    building_class: NonNegativeInt | None = None


INIT_KEYS = tuple(field.name for field in fields(InitOptions))


def network_arguments(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the config's `model` that goes to the network's class, `_target_` included."""
    return {key: value for key, value in model.items() if key not in INIT_KEYS}


def architecture_keys(network: type[nn.Module]) -> tuple[str, ...]:
    """Return the options of a network that the shapes of its weights depend on, as its class declares them."""
    return getattr(network, "architecture_keys", ())


def resolve_options(
    network: type[nn.Module],
    requested: Mapping[str, Any],
    from_checkpoint: Mapping[str, Any],
    reset_head: bool,
    where: str,
) -> dict[str, Any]:
    """Return all options of a network: the requested value, else that of the checkpoint, else the default.

    Args:
        network: the class
        requested: options of the config; None is open
        from_checkpoint: `network` in the metadata of the weights; empty without weights or metadata
        reset_head: whether the number of classes is free
        where: the weights, for messages

    Raises:
        UserError: the weights are of another network, or have another value than the requested one
    """
    kind = str(from_checkpoint.get("_target_", network.__name__)).rpartition(".")[2]
    if kind != network.__name__:
        raise UserError(
            f"{where} contains weights of {kind}, but the config has model={network.__name__.lower()}; set "
            f"model={kind.lower()}",
            kind="mismatch",
            key="model",
            value=network.__name__.lower(),
        )
    result, parameters = {}, signature(network).parameters
    for key, value in requested.items():
        is_free = key not in architecture_keys(network) or (key == "classes" and reset_head)
        fixed = None if is_free else from_checkpoint.get(key)
        if value is not None and fixed is not None and value != fixed:
            new_head = ", set model.reset_head=true to initialise the last layers" if key == "classes" else ""
            raise UserError(
                f"model.{key}={value}, but {where} has {key}={fixed}; leave out model.{key}{new_head}, or use other "
                "weights",
                kind="mismatch",
                key=f"model.{key}",
                value=value,
            )
        default = parameters[key].default if key in parameters else None
        result[key] = value if value is not None else default if fixed is None else fixed
    return result


def check_building_class(classes: int, building_class: int | None) -> None:
    """Raise a UserError if `building_class` does not fit the number of classes."""
    if classes == 1 and building_class is not None:
        raise UserError(
            f"model.building_class={building_class} needs several classes, but model.classes=1; leave it out",
            kind="conflict",
            key="model.building_class",
            value=building_class,
        )
    if classes > 1 and (building_class is None or building_class >= classes):
        raise UserError(
            f"model.classes={classes} with model.building_class={building_class}: set the channel of building, "
            f"model.building_class=0 to {classes - 1}, or initialise the last layers of given weights for one class "
            "with model.reset_head=true model.classes=1",
            kind="conflict",
            key="model.building_class",
            value=building_class,
        )
