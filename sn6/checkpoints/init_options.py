"""What a network starts from: its options, as requested or as given weights fix them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from inspect import signature
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt
from torch import nn

from sn6.checkpoints.architecture import architecture_keys
from sn6.errors import UserError
from sn6.models.first_layer import Adapt

MAX_MULTIPLE = 4096  # pixels


@dataclass(frozen=True)
class InitOptions:
    """The keys of conf/any_model.yaml that are never arguments of the network's class.

    Attributes:
        multiple: pixels; images are padded to multiples of it
        weights: file, folder or address, see `sn6.checkpoints.loading`
        adapt: rule for a first layer of other bands, see `sn6.models.first_layer.adapt_first_layer`
        reset_head: keep the initialisation of the last layers
        weights_fold: column of easting that the weights were not trained on, if their metadata do not say
        building_class: channel of building among several classes
    """

    multiple: Annotated[int, Field(gt=0, le=MAX_MULTIPLE)] = 32
    weights: str | None = None
    adapt: Adapt | None = None
    reset_head: bool = False
    weights_fold: NonNegativeInt | None = None
    building_class: NonNegativeInt | None = None


INIT_KEYS = tuple(field.name for field in fields(InitOptions))


def network_arguments(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the config's `model` that goes to the network's class, `_target_` included."""
    return {key: value for key, value in model.items() if key not in INIT_KEYS}


def resolve_options(
    network: Callable[..., nn.Module],
    requested: Mapping[str, Any],
    from_checkpoint: Mapping[str, Any],
    reset_head: bool,
    where: str,
) -> dict[str, Any]:
    """Return all options of a network: those that shape its weights as given weights fix them, the others as requested.

    A null of an architecture key is open: the value of the weights is taken, else the default of the class.

    Args:
        network: the class, or a function that makes one
        requested: options of the config
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
    result, parameters, open_keys = {}, signature(network).parameters, architecture_keys(network)
    for key, value in requested.items():
        is_free = key not in open_keys or (key == "classes" and reset_head)
        fixed = None if is_free else from_checkpoint.get(key)
        if value is not None and fixed is not None and value != fixed:
            raise UserError(
                f"model.{key}={value}, but {where} has {key}={fixed}; {remedy(key, fixed)}, or use other weights",
                kind="mismatch",
                key=f"model.{key}",
                value=value,
            )
        if value is None and key in open_keys:
            value = parameters[key].default if fixed is None else fixed
        result[key] = value
    return result


def remedy(key: str, fixed: Any) -> str:
    """Return what to do about an option that given weights fix to another value."""
    if key != "classes":
        return f"leave out model.{key}"
    several = f" model.building_class=0 to {fixed - 1}" if fixed > 1 else ""
    return f"set model.classes={fixed}{several}, or model.reset_head=true to initialise the last layers"


def check_classes(classes: int, building_class: int | None, channels: int) -> None:
    """Raise a UserError if the number of classes does not fit the heads, or `building_class` not that number.

    Args:
        classes: channels of the network
        building_class: channel of building among several classes
        channels: of the heads
    """
    if building_class is not None and (classes == 1 or channels > 1):
        needed = "several classes, but model.classes=1" if classes == 1 else "heads=mask, but the heads are several"
        raise UserError(
            f"model.building_class={building_class} needs {needed}; leave it out",
            kind="conflict",
            key="model.building_class",
            value=building_class,
        )
    if channels > 1 and classes != channels:
        raise UserError(
            f"model.classes={classes}, but the heads have {channels} channels; leave out model.classes",
            kind="conflict",
            key="model.classes",
            value=classes,
        )
    if channels == 1 < classes and (building_class is None or building_class >= classes):
        raise UserError(
            f"model.classes={classes} with model.building_class={building_class}: set the channel of building, "
            f"model.building_class=0 to {classes - 1}, or initialise the last layers of given weights for one class "
            "with model.reset_head=true",
            kind="conflict",
            key="model.building_class",
            value=building_class,
        )
