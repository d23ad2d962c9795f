"""Import and make what a `_target_` names."""

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from sn6.config.composition import TRUST_NODE
from sn6.errors import UserError, locate_error


def import_target(target: Any, where: str) -> Any:
    """Return the class or function that a `_target_` names.

    Args:
        target: dotted name, such as "my_parts.Small"; anything else is refused
        where: node of the config, for messages

    Raises:
        UserError: it cannot be imported
    """
    reason, advice = f"{target!r} has no module", "; write MODULE.CLASS"
    parts = str(target).split(".")
    for length in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:length])
        try:
            module = import_module(name)
        except ModuleNotFoundError as error:
            reason = f"there is no module {error.name}"
            advice = "; run the command in the folder of its file, or install its package"
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                reason = f"{name} needs the package {error.name}, which is not installed"
                break
            continue
        except Exception as error:  # of the user's own file
            reason, advice = f"{name} cannot be imported: {locate_error(error)}", ""
            break
        found, owner, advice = module, name, ""
        for attribute in parts[length:]:
            if not hasattr(found, attribute):
                near = difflib.get_close_matches(attribute, dir(found), n=1)
                reason = f"{owner} has no {attribute}" + (f"; did you mean {near[0]}?" if near else "")
                break
            found, owner = getattr(found, attribute), f"{owner}.{attribute}"
        else:
            return found
        break
    raise UserError(
        f"cannot import {where}._target_={target}: {reason}{advice}",
        kind="not_found",
        key=f"{where}._target_",
        value=target,
    )


def make_object(node: Any, where: str, **arguments: Any) -> Any:
    """Make the object that a node of the config describes, and those in it.

    Args:
        node: `_target_` and arguments
        where: the node's key, for messages
        arguments: further ones

    Raises:
        UserError: the class of another package or of the user refuses its arguments
    """
    try:
        # without its parents, all of which `instantiate` would copy
        node = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
        # not as arguments of `instantiate`: Hydra 1.3 makes dicts of dataclasses
        return instantiate(node, _convert_="all", _partial_=True, **TRUST_NODE)(**arguments)
    except Exception as error:
        target = str(node["_target_"])
        if isinstance(error.__cause__ or error, UserError) or target.startswith("sn6."):
            raise
        raise UserError(
            f"{where}._target_={target} cannot be made ({locate_error(error)}); correct the class or its arguments",
            kind="failed",
            key=f"{where}._target_",
            value=target,
        ) from None


def is_switched_off(target: Any, node: Mapping[str, Any]) -> bool:
    """Return whether a node is that of a callback which its own arguments leave out.

    Args:
        target: class of the node; its attribute `switch`, if there is one, names the argument whose null does that
        node: of the config
    """
    switch = getattr(target, "switch", None)
    return switch is not None and node.get(switch) is None
