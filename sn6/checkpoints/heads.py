"""The heads that a checkpoint describes: built, and compared with those of a run."""

from collections.abc import Mapping
from inspect import isclass, signature
from typing import Any

from sn6.cli import check_arguments
from sn6.config.targets import import_target
from sn6.errors import UserError
from sn6.heads import MASK, Heads
from sn6.targets.classes import Classes
from sn6.targets.mask import Mask
from sn6.targets.target import Target

OWN = "sn6.targets."
Nodes = Mapping[str, Mapping[str, Any]]  # name of the head → `_target_` and fields of its target
CLASSES_TARGET = f"{Classes.__module__}.{Classes.__qualname__}"
MASK_ONLY: dict[str, dict[str, Any]] = {MASK: {"_target_": f"{Mask.__module__}.{Mask.__qualname__}"}}


def target_nodes(heads: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what a checkpoint says of the heads of a config: the node of each target."""
    return {name: dict(node["target"]) for name, node in heads.items()}


def foreign_heads(nodes: Nodes) -> list[str]:
    """Return the classes of the targets of heads that are not part of sn6."""
    names = [str(node.get("_target_")) for node in nodes.values()]
    return [name for name in dict.fromkeys(names) if not name.startswith(OWN)]


def build_heads(nodes: Nodes) -> Heads:
    """Build the heads of a checkpoint; fields that are left out have their defaults.

    Raises:
        UserError: a class cannot be imported or is no target, a field is unknown, or a value is out of range
    """
    return Heads({name: build_target(node, f"heads.{name}") for name, node in nodes.items()})


def build_target(node: Mapping[str, Any], where: str) -> Target:
    """Build the target of a head; arguments and errors of `build_heads`."""
    name = str(node.get("_target_"))
    target = import_target(name, where)
    if not (isclass(target) and issubclass(target, Target)):
        message = f"{where}._target_={name} is no subclass of sn6.targets.target.Target"
        raise UserError(message, kind="invalid_value", key=f"{where}._target_", value=name)
    fields = {key: value for key, value in node.items() if key != "_target_"}
    if errors := check_arguments(target, fields, f"{where}.", strict=True)[1]:
        raise errors[0]
    return target(**fields)


def check_same_heads(saved: Nodes, heads: Nodes, where: str, node: str) -> None:
    """Raise a UserError unless weights are of the heads of a run.

    Args:
        saved: of the weights
        heads: of the run
        where: the weights, for messages
        node: config node with the key `reset_head`, for messages
    """
    fitting, different = [], []
    for name in dict.fromkeys([*heads, *saved]):
        if name not in saved:
            different.append(f"{name} is missing")
        elif name not in heads:
            different.append(f"{name} is not of this run")
        elif problem := difference(saved[name], heads[name]):
            different.append(f"{name} {problem}")
        else:
            fitting.append(name)
    if different:
        fits = f"{', '.join(fitting)} fit{'s' if len(fitting) == 1 else ''}, but " if fitting else ""
        raise UserError(
            f"{where} is of other heads: {fits}{', '.join(different)}; choose the same heads, or set "
            f"{node}.reset_head=true to initialise the last layers",
            kind="mismatch",
            key="heads",
            value=list(heads),
        )


def difference(saved: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """Return in which field two targets differ, as the end of a sentence; "" where they are equal."""
    name, current_name = (str(node.get("_target_")).rpartition(".")[2] for node in (saved, current))
    if saved.get("_target_") != current.get("_target_"):
        return f"learned {name}, not {current_name}"
    before, after = (with_defaults(node) for node in (saved, current))
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return " and ".join(f"has {key}={before.get(key)}, not {after.get(key)}" for key in keys)


def with_defaults(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node with the defaults of its class, which the run has imported already."""
    parameters = signature(import_target(str(node["_target_"]), "heads")).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not one.empty} | dict(node)
