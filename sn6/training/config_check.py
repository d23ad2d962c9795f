"""Check a config against the signatures that its values are meant for, before anything is made."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from inspect import Parameter, signature
from itertools import chain
from types import NoneType
from typing import Any, Literal

from sn6.callbacks.operating_point import candidates_of
from sn6.checkpoints.architecture import architecture_keys, constructor_arguments, is_own
from sn6.checkpoints.init_options import INIT_KEYS, InitOptions, network_arguments
from sn6.checkpoints.polygonizer import build_polygonizer, polygonizer_class
from sn6.cli import alternatives, check_arguments, has_signature, type_hints
from sn6.config.moved_keys import MOVED, moved_key
from sn6.config.targets import import_target
from sn6.config.types import OPTION_NAMES, RunOptions, TestOptions
from sn6.datasets.from_config import data_set_node, further_nodes, module_node
from sn6.errors import UserError, joined
from sn6.simulation.archive import settings_of
from sn6.training.heads import head_errors, parts_of_heads
from sn6.training.ranges import RANGES, keys_with_ranges, range_errors

# Keys that are read by name, which ~key cannot remove.
REQUIRED = (
    *OPTION_NAMES,
    *(
        "data._target_",
        "heads",
        "polygons._target_",
        "model._target_",
        "model.in_channels",
        "loss._target_",
        "optimizer._target_",
    ),
    *("data.crop", "data.batch_size", "data.bands", "model.classes", "schedule._target_"),
    *(f"model.{key}" for key in INIT_KEYS),
    *("augmentation._target_", "logger", "callbacks"),
    *(f"trainer.{key}" for key in ("accelerator", "devices", "precision", "max_epochs", "limit_val_batches")),
    *("trainer._target_", "trainer.gradient_clip_val", "trainer.profiler"),
)


@dataclass(frozen=True)
class HydraKeys:
    """Keys of a node with a `_target_` that Hydra reads itself."""

    _partial_: bool = False
    _recursive_: bool = True
    _convert_: Literal["none", "partial", "object", "all"] = "none"
    _args_: list[Any] = field(default_factory=list)


# Callbacks that others, and the result of a run, are made from; the others can be left out by callbacks.NAME=null.
NEEDED_CALLBACKS = ("polygon_f1", "checkpoint")


def check_types(values: Mapping[str, Any]) -> None:
    """Check every value against its declared type.

    Args:
        values: the config, resolved

    Raises:
        UserError: missing and unknown keys and values of another type, all in one message
    """
    of_groups = (moved_keys(values), callback_errors(values.get("callbacks") or {}), head_errors(values))
    if errors := [*missing_keys(values), *chain.from_iterable(of_groups)]:
        raise joined(errors, "config")
    groups = {key: node for key, node in values.items() if key not in OPTION_NAMES and isinstance(node, dict | None)}
    options = {key: value for key, value in values.items() if key not in groups}
    _, errors = check_arguments(RunOptions, options, "", strict=True)
    if isinstance(options["test"], dict):
        errors += check_arguments(TestOptions, options["test"], "test.", strict=True)[1]
    if isinstance(options["simulation"], dict):
        errors += check_arguments(settings_of, options["simulation"], "simulation.", strict=True)[1]
    for group, node in groups.items():
        if node is None:
            continue
        given: tuple[str, ...] = ()
        if group == "model":
            init = {key: value for key, value in node.items() if key in INIT_KEYS}
            errors += check_arguments(InitOptions, init, "model.", strict=True)[1]
            node = network_node(node)
        if group == "heads":
            node = parts_of_heads(values)
        if group == "data":
            errors += check_node(data_set_node(node), group)
            for name, (further, _) in further_nodes(node).items():
                errors += check_node(data_set_node(further), f"data.further.{name}")
                errors += check_node(module_node(further), f"data.further.{name}", ("data_set",))
            node, given = module_node(node), ("data_set",)
        if group == "polygons":
            polygonizer_class(node, group)
        if group in RANGES:
            errors += range_errors(group, node)
            node = {key: value for key, value in node.items() if key not in keys_with_ranges(group)}
            given = tuple(keys_with_ranges(group))
        errors += check_node(node, group, given)
    if errors := [*errors, *missing_tensorboard(values["logger"] or {})]:
        raise joined(errors, "config")
    check_trial_run(values["trainer"])
    check_polygons(values)


def check_trial_run(trainer: Mapping[str, Any]) -> None:
    """Raise a UserError for Lightning's trial run, which writes none of the checkpoints that a result is made from."""
    if trainer.get("fast_dev_run"):
        limits = "trainer.max_epochs=1 trainer.limit_train_batches=1 trainer.limit_val_batches=1"
        raise UserError(
            f"trainer.fast_dev_run leaves no checkpoint to score; set {limits} trainer.limit_test_batches=1 instead",
            kind="conflict",
            key="trainer.fast_dev_run",
            value=trainer["fast_dev_run"],
        )


def check_polygons(values: Mapping[str, Any]) -> None:
    """Raise a UserError if the polygonizer does not fit the heads, or the calibration does not fit it.

    A field of the polygonizer that a target which it needs has too, such as the reach of the distance, is the same.
    """
    polygonizer = build_polygonizer(values["polygons"], "polygons")
    polygonizer.check_heads(tuple(values["heads"]), "polygons")
    for head in (name for name in polygonizer.needs if name in values["heads"]):
        target = values["heads"][head]["target"]
        for key in target.keys() & vars(polygonizer).keys():
            if (value := getattr(polygonizer, key)) != target[key]:
                raise UserError(
                    f"polygons.{key}={value}, but heads.{head}.target.{key}={target[key]}; set one to match the other",
                    kind="conflict",
                    key=f"polygons.{key}",
                    value=value,
                )
    if calibration := values["callbacks"].get("calibration"):
        candidates_of(polygonizer, calibration.get("candidates"))


def missing_keys(values: Mapping[str, Any]) -> Iterator[UserError]:
    """Yield an error for each key that is missing and that a run cannot do without."""
    for key in REQUIRED:
        node: Any = values
        for name in key.split("."):
            if not isinstance(node, Mapping) or name not in node:
                in_file = "write _target_: MODULE.CLASS into its file, or " if name == "_target_" else ""
                yield UserError(
                    f"{key} is missing, which every run needs; {in_file}leave out the override that removes it",
                    kind="missing_value",
                    key=key,
                )
                break
            node = node[name]


def moved_keys(values: Mapping[str, Any]) -> Iterator[UserError]:
    """Yield an error for each key of an older version in a config file of the user."""
    for key in MOVED:
        node: Any = values
        for name in key.split("."):
            node = node.get(name) if isinstance(node, Mapping) else None
        if node is not None:
            yield UserError(str(moved_key(key)), kind="unknown_key", key=key, value=node)


def callback_errors(callbacks: Any) -> Iterator[UserError]:
    """Yield an error for each callback that names no class, and for each one that is left out and that others need."""
    if not isinstance(callbacks, Mapping):
        message = f"invalid callbacks={callbacks}: input should be a valid dictionary"
        yield UserError(message, kind="invalid_value", key="callbacks", value=callbacks)
        return
    for name in NEEDED_CALLBACKS:
        if callbacks.get(name) is None:
            yield UserError(
                f"callbacks.{name} is missing: the score and the choice of the epoch need it; leave out the override "
                "that removes it",
                kind="missing_value",
                key=f"callbacks.{name}",
            )
    for name, node in callbacks.items():
        if node is not None and not isinstance(node, Mapping):
            yield UserError(
                f"invalid callbacks.{name}={node}: input should be a valid dictionary; set a key of it, "
                f"callbacks.{name}.KEY={node}",
                kind="invalid_value",
                key=f"callbacks.{name}",
                value=node,
            )
        elif node is not None and "_target_" not in node:
            yield UserError(
                f"callbacks.{name} names no class; set +callbacks.{name}._target_=MODULE.CLASS",
                kind="missing_value",
                key=f"callbacks.{name}._target_",
            )


def network_node(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of the node `model` is checked against the arguments of the network's class.

    Left out are the nulls that given weights fill in, and those of other packages, whose types are often too narrow.
    """
    arguments = network_arguments(model)
    target = import_target(arguments["_target_"], "model")
    parameters, open_keys = signature(target).parameters, architecture_keys(target)
    for key in [key for key, value in arguments.items() if value is None]:
        has_default = key in parameters and parameters[key].default is not Parameter.empty
        if key in open_keys or (not is_own(target) and has_default):
            del arguments[key]
    return constructor_arguments(target, arguments)


def check_node(node: Mapping[str, Any], where: str, given: Collection[str] = ()) -> list[UserError]:
    """Return the errors of a node with a `_target_`, and of the nodes below it.

    Args:
        node: of the config
        where: its key
        given: names of arguments that are not in the config
    """
    inner = {key: value for key, value in node.items() if isinstance(value, dict)}
    errors: list[UserError] = []
    if "_target_" in node:
        target = import_target(node["_target_"], where)
        hydra_keys = {key: value for key, value in node.items() if key.startswith("_") and key != "_target_"}
        errors += check_arguments(HydraKeys, hydra_keys, f"{where}.", strict=True)[1]
        made = {key for key, value in inner.items() if "_target_" in value and takes_objects(target, key)}
        arguments = {key: value for key, value in node.items() if not key.startswith("_")}
        if has_signature(target):
            if not node.get("_partial_") and "_args_" not in node:
                errors += missing_arguments(target, [*arguments, *given], where)
            plain = {key: value for key, value in arguments.items() if key not in made}
            errors += check_arguments(target, plain, f"{where}.", strict=True)[1]
    for key, value in inner.items():
        errors += check_node(value, f"{where}.{key}")
    return errors


def takes_objects(target: Any, name: str) -> bool:
    """Return whether an argument may be an object that a node with a `_target_` makes: not where it is a number."""
    hint = type_hints(target).get(name, Any)
    return not set(alternatives(hint)) <= {int, float, bool, str, NoneType}


def missing_arguments(target: Any, arguments: Collection[str], where: str) -> Iterator[UserError]:
    """Yield one error that names the arguments without a default that a node does not give."""
    named = [p for p in signature(target).parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    missing = [f"{where}.{p.name}" for p in named if p.default is p.empty and p.name not in arguments]
    if missing:
        yield UserError(
            f"{target.__qualname__} has arguments without a default: set {', '.join(missing)}",
            kind="missing_value",
            key=missing[0],
        )


def missing_tensorboard(loggers: Mapping[str, Any]) -> Iterator[UserError]:
    """Yield an error for a logger of TensorBoard where its package, an extra, is not installed."""
    if find_spec("tensorboard") or find_spec("tensorboardX"):
        return
    from lightning.pytorch.loggers import TensorBoardLogger

    for name, node in loggers.items():
        target = import_target(node["_target_"], f"logger.{name}")
        if isinstance(target, type) and issubclass(target, TensorBoardLogger):
            yield UserError(
                f"logger={name} needs tensorboard, which is not installed; install it with pip install "
                "'sn6[tensorboard]', or leave the logger out",
                kind="unavailable",
                key=f"logger.{name}",
            )
