"""How a network is asked for: its options, as they are said or as given weights fix them, and what it starts from."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from inspect import signature
from typing import Any

from pydantic import NonNegativeInt
from torch import nn

from sn6.checkpoints.transfer import Adapt
from sn6.errors import UserError

ARCHITECTURE_KEYS = ("encoder", "classes", "width", "depth", "batch_norm", "padded")  # what weights and their names fix


@dataclass(frozen=True)
class InitOptions:
    """The keys of conf/model beside those of the network's class.

    Attributes:
        weights: file or folder that `sn6.checkpoints.loading` reads
        adapt: rule for a first layer of other bands, see `sn6.checkpoints.transfer.adapted_layer`
        reset_head: leave the last layers as they start
        weights_fold: the column of easting that the weights were not trained on, where they do not tell it themselves
        building_class: the channel of building among several classes
    """

    weights: str | None = None
    adapt: Adapt | None = None
    reset_head: bool = False
    weights_fold: NonNegativeInt | None = None
    building_class: NonNegativeInt | None = None


INIT_KEYS = tuple(field.name for field in fields(InitOptions))


def resolve_options(
    network: type[nn.Module], asked: Mapping[str, Any], held: Mapping[str, Any], reset_head: bool, where: str
) -> dict[str, Any]:
    """All options of a network: what is asked for, else what given weights fix, else the default.

    Args:
        network: the class
        asked: options as the config says them; None is not said
        held: the `network` of the weights' card, empty where there are no weights or they tell nothing
        reset_head: whether the classes are free
        where: of the weights, for messages

    Raises:
        UserError: the weights are of another network, or have another option than was asked for
    """
    kind = str(held.get("_target_", network.__name__)).rpartition(".")[2]
    if kind != network.__name__:
        raise UserError(
            f"{where} is of {kind}, and model={network.__name__.lower()} was asked for; set model={kind.lower()}"
        )
    result, parameters = {}, signature(network).parameters
    for key, said in asked.items():
        free = key not in ARCHITECTURE_KEYS or (key == "classes" and reset_head)
        fixed = None if free else held.get(key)
        if said is not None and fixed is not None and said != fixed:
            new_head = ", set model.reset_head=true to start the last layers anew" if key == "classes" else ""
            raise UserError(
                f"model.{key}={said}, and {where} has {key}={fixed}; leave model.{key} out{new_head}, or take other "
                "weights"
            )
        default = parameters[key].default if key in parameters else None
        result[key] = said if said is not None else default if fixed is None else fixed
    return result


def check_building_class(classes: int, building_class: int | None) -> None:
    """Raises a UserError where `building_class` does not go with the number of classes."""
    if classes == 1 and building_class is not None:
        raise UserError(
            f"model.building_class={building_class} is for several classes, model.classes=1 is building; drop it"
        )
    if classes > 1 and (building_class is None or building_class >= classes):
        raise UserError(
            f"model.classes={classes} with model.building_class={building_class}: tell which channel is building by "
            f"model.building_class=0 to {classes - 1}, or of given weights start the last layers anew for one class by "
            "model.reset_head=true model.classes=1"
        )
