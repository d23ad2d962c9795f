"""The heads of a config: checked, and made with their targets and losses."""

import re
from collections.abc import Iterator, Mapping
from inspect import isclass
from typing import Annotated, Any

from pydantic import Field

from sn6.cli import check_arguments
from sn6.config.targets import import_target, make_object
from sn6.data.dataset import SAMPLE_KEYS
from sn6.errors import UserError
from sn6.heads import CLASSES, MASK, Head
from sn6.targets.classes import Classes
from sn6.targets.mask import Mask
from sn6.targets.target import Target
from sn6.training.loss import make_loss

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def make_heads(values: Mapping[str, Any]) -> dict[str, Head]:
    """Make the heads of a config that `head_errors` found right.

    Args:
        values: the config, resolved

    Raises:
        UserError: a class refuses its arguments, or a loss does not fit its target
    """
    heads = {}
    for name, node in values["heads"].items():
        target = make_object(node["target"], f"heads.{name}.target")
        loss = make_loss(node["loss"], target, loss_node(values, name))
        heads[name] = Head(target, loss, float(node["weight"]))
    return heads


def loss_node(values: Mapping[str, Any], name: str) -> str:
    """Return the node of the config that the loss of a head comes from: `loss`, or its own."""
    return "loss" if values["heads"][name]["loss"] == values.get("loss") else f"heads.{name}.loss"


def parts_of_heads(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the nodes of each head that make objects: its target, and its loss unless that is the node `loss`."""
    return {
        name: {"target": node["target"]} | ({} if loss_node(values, name) == "loss" else {"loss": node["loss"]})
        for name, node in values["heads"].items()
    }


def head_errors(values: Mapping[str, Any]) -> Iterator[UserError]:
    """Yield what is wrong with the declaration of the heads, but for the arguments of their classes."""
    if "heads" not in values:
        return  # is one of the keys that are required
    heads = values["heads"]
    if not isinstance(heads, Mapping) or not {MASK, CLASSES} & set(heads):
        yield UserError(
            f"heads.{MASK} is missing: the footprints and the score are made from the mask; leave out the override "
            "that removes it, write defaults: [mask] into your file of heads, or choose heads=classes",
            kind="missing_value",
            key=f"heads.{MASK}",
        )
        return
    for name, node in heads.items():
        errors = list(errors_of(name, node))
        yield from errors
        if not errors:
            yield from class_errors(values, name)


def errors_of(name: str, node: Any) -> Iterator[UserError]:
    """Yield what is wrong with the declaration of a head."""
    where = f"heads.{name}"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in set(SAMPLE_KEYS) - {MASK}:
        yield UserError(
            f"{where}: a head is named by small letters, digits and _, and not {', '.join(SAMPLE_KEYS)}; rename it",
            kind="invalid_value",
            key=where,
            value=name,
        )
        return
    if not isinstance(node, Mapping):
        yield UserError(
            f"{where}={node} is no head; leave it out with ~{where}, or give weight, target and loss",
            kind="invalid_value",
            key=where,
            value=node,
        )
        return
    if node.get("weight") == 0:
        yield UserError(
            f"{where}.weight=0: the head would not be trained, and its map would be random; leave the head out with "
            f"~{where}, or set a weight above 0",
            kind="invalid_value",
            key=f"{where}.weight",
            value=node["weight"],
        )
        return
    _, errors = check_arguments(declared_head, node, f"{where}.", strict=True)
    yield from errors
    keys = ("weight", "target._target_", "loss._target_")
    missing = [key for key in keys if not has_key(node, key)]
    yield from (UserError(f"{where}.{key} is missing", kind="missing_value", key=f"{where}.{key}") for key in missing)


def declared_head(weight: Weight, target: dict[str, Any], loss: dict[str, Any]) -> None:
    """Declare the keys of a head and their types."""


def has_key(node: Mapping[str, Any], key: str) -> bool:
    """Return whether a node has a key, which may be dotted."""
    first, _, rest = key.partition(".")
    return first in node and (not rest or (isinstance(node[first], Mapping) and has_key(node[first], rest)))


def class_errors(values: Mapping[str, Any], name: str) -> Iterator[UserError]:
    """Yield an error for a target or a loss that is of a wrong class."""
    node = values["heads"][name]
    target, loss = str(node["target"]["_target_"]), str(node["loss"]["_target_"])
    key, of_loss = f"heads.{name}.target._target_", f"{loss_node(values, name)}._target_"
    found = import_target(target, f"heads.{name}.target")
    if not (isclass(found) and issubclass(found, Target)):
        message = "is no subclass of sn6.targets.target.Target; derive it from that class"
        yield UserError(f"{key}={target} {message}", kind="invalid_value", key=key, value=target)
    elif name == MASK and found is not Mask:
        message = "is not sn6.targets.mask.Mask, which the score needs; give your head another name"
        yield UserError(f"{key}={target} {message}", kind="invalid_value", key=key, value=target)
    elif name == CLASSES and found is not Classes:
        message = "is not sn6.targets.classes.Classes, which footprints have their classes from; give your head another"
        yield UserError(f"{key}={target} {message} name", kind="invalid_value", key=key, value=target)
    if not isclass(import_target(loss, of_loss.removesuffix("._target_"))):
        message = "names a function, but a loss is a class derived from torch.nn.Module; correct it"
        yield UserError(f"{of_loss}={loss} {message}", kind="invalid_value", key=of_loss)
