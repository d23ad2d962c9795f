"""Check a config against the signatures that its values are meant for, before anything is made."""

from collections.abc import Mapping
from typing import Any

from hydra.utils import get_object

from sn6.checkpoints.init_options import INIT_KEYS, InitOptions
from sn6.cli import has_signature, validate_arguments
from sn6.config.types import OPTION_NAMES, RunOptions
from sn6.errors import UserError
from sn6.simulation.archive import settings_of

# Keys that are read by name, which ~key cannot remove.
REQUIRED = (
    *OPTION_NAMES,
    *("data._target_", "data.root", "model._target_", "model.in_channels", "loss._target_", "optimizer._target_"),
    *("model.weights", "schedule._target_", "augmentation._target_", "logger"),
    *(f"trainer.{key}" for key in ("accelerator", "devices", "precision", "max_epochs", "limit_val_batches")),
    *("trainer.gradient_clip_val", "trainer.profiler", "callbacks.polygon_f1", "callbacks.checkpoint.monitor"),
)


def check_types(values: Mapping[str, Any]) -> None:
    """Check every value against its declared type.

    Args:
        values: the config, resolved

    Raises:
        UserError: an unknown key or a value of another type, with its key
    """
    check_required(values)
    groups = {key: node for key, node in values.items() if key not in OPTION_NAMES and isinstance(node, dict | None)}
    options = {key: value for key, value in values.items() if key not in groups}
    validate_arguments(RunOptions, options, "config", strict=True)
    if options["simulation"] is not None:
        validate_arguments(settings_of, options["simulation"], "config", "simulation.", strict=True)
    for group, node in groups.items():
        if node is None:
            continue
        if group == "model":  # null is left open, for the weights or the default of the network
            init = {key: value for key, value in node.items() if key in INIT_KEYS}
            validate_arguments(InitOptions, init, "config", "model.", strict=True)
            node = {key: value for key, value in node.items() if value is not None and key not in init}
        check_node(node, group)


def check_required(values: Mapping[str, Any]) -> None:
    """Raise a UserError if a key is missing that a run cannot do without."""
    for key in REQUIRED:
        node: Any = values
        for name in key.split("."):
            if not isinstance(node, Mapping) or name not in node:
                raise UserError(
                    f"config: {key} is missing, which every run needs; leave out the override that removes it",
                    kind="missing_value",
                    key=key,
                )
            node = node[name]


def check_node(node: Mapping[str, Any], where: str) -> None:
    """Check a node with a `_target_`, and the nodes below it."""
    inner = {key: value for key, value in node.items() if isinstance(value, dict)}
    if "_target_" in node:
        arguments = {
            key: value
            for key, value in node.items()
            if not key.startswith("_") and not (isinstance(value, dict) and "_target_" in value)
        }
        target = import_target(node["_target_"], where)
        if has_signature(target):
            validate_arguments(target, arguments, "config", f"{where}.", strict=True)
    for key, value in inner.items():
        check_node(value, f"{where}.{key}")


def import_target(target: str, where: str) -> Any:
    """Return the class or function that a `_target_` names.

    Raises:
        UserError: it cannot be imported
    """
    try:
        return get_object(target)
    except Exception as error:
        reason = " ".join(str(error).split())  # Hydra's has several lines
        raise UserError(
            f"cannot import {where}._target_={target} ({reason}); check the module's name, and that it is installed",
            kind="not_found",
            key=f"{where}._target_",
            value=target,
        ) from None
