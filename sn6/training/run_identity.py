"""Whether two configs train the same: what a resumed run may change, and what it may not."""

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any, get_args

from sn6.checkpoints.heads import MASK_ONLY
from sn6.checkpoints.init_options import INIT_KEYS, InitOptions
from sn6.cli import has_signature, type_hints
from sn6.config.moved_keys import MOVED_TARGETS
from sn6.config.targets import is_switched_off
from sn6.config.types import MAY_CHANGE, OPTION_NAMES, Mark, RunOptions
from sn6.heads import MASK
from sn6.training.run_paths import portable

# Arguments of Lightning's classes that decide where a run computes and what it shows, not what it trains.
LIGHTNING = {
    "lightning.Trainer": (
        "accelerator",
        "devices",
        "num_nodes",
        "strategy",
        "enable_progress_bar",
        "profiler",
        "log_every_n_steps",
    ),
}
LENGTH = ("trainer.max_epochs", "trainer.max_steps")  # a stopped run may train longer, a finished one is finished


def differences(
    saved: Mapping[str, Any], config: Mapping[str, Any], may_train_longer: bool
) -> dict[str, tuple[Any, Any]]:
    """Return key → (saved, new) of the keys in which two configs differ and that a resumed run may not change.

    A key that one of them lacks has the default of the signature that declares it, so that a new key with a default
    does not make older runs different. Paths inside the run are compared relative to its folder.

    Args:
        saved: config of the run in the folder
        config: the new one
        may_train_longer: whether `LENGTH` may differ
    """
    configs = current(portable(saved)), current(portable(config))
    targets = {node: target for one in configs for node, target in target_of_nodes(one)}
    before, after = (binding_values(one, targets) for one in configs)
    free = LENGTH if may_train_longer else ()
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key) and key not in free]
    found = {key: (before.get(key), after.get(key)) for key in keys}
    # `loss` is in the config once more for each head that learns with it
    of_heads = {key: re.sub(r"^heads\.\w+\.", "", key) for key in keys if key.startswith("heads.")}
    return {key: pair for key, pair in found.items() if key not in of_heads or found.get(of_heads[key]) != pair}


def current(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config as this version writes it: with heads, the mask alone, and the names that classes have now."""
    mask = {"weight": 1.0, "target": MASK_ONLY[MASK], "loss": config.get("loss")}
    schedule = dict(config.get("schedule") or {})
    if (target := str(schedule.get("_target_"))) in MOVED_TARGETS:
        schedule["_target_"] = MOVED_TARGETS[target]
    return {"heads": {MASK: mask}, **config, "schedule": schedule}


def binding_values(config: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a resumed run may not change, by dotted keys, with defaults filled in."""
    options = {key: value for key, value in config.items() if key in OPTION_NAMES}
    result = dict(declared(RunOptions, options, ""))
    for group, node in config.items():
        if group not in OPTION_NAMES and isinstance(node, Mapping):
            result |= dict(of_node(node, group, targets))
    return result


def of_node(node: Mapping[str, Any], where: str, targets: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the binding values of a node of the config and of those below it."""
    target = targets.get(where)
    if target is not None and (is_free(target) or is_switched_off(target, node)):
        return
    inner = {key: value for key, value in node.items() if isinstance(value, Mapping)}
    values = {key: value for key, value in node.items() if key not in inner}
    if where == "model":
        init = {key: values.pop(key) for key in INIT_KEYS if key in values}
        yield from declared(InitOptions, init, where)
    yield from declared(target, values, where)
    for key, value in inner.items():
        yield from of_node(value, f"{where}.{key}", targets)


def declared(target: Any, values: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    """Yield the arguments of a class or function that bind a resumed run, given or by default."""
    parameters = inspect.signature(target).parameters if target is not None and has_signature(target) else {}
    defaults = {k: p.default for k, p in parameters.items() if p.default is not p.empty and p.kind is not p.VAR_KEYWORD}
    free = (
        {key for key, hint in type_hints(target).items() if MAY_CHANGE in marks(hint)} if target is not None else set()
    )
    free |= set(LIGHTNING.get(str(values.get("_target_")), ()))
    for key, value in (defaults | dict(values)).items():
        if key not in free:
            yield f"{where}.{key}" if where else key, as_list(value)


def marks(hint: Any) -> set[Mark]:
    """Return the marks of an annotated type."""
    return {extra for extra in get_args(hint) if isinstance(extra, Mark)}


def as_list(value: Any) -> Any:
    """Return a tuple as the list that a YAML file holds."""
    return [as_list(one) for one in value] if isinstance(value, tuple | list) else value


def is_free(target: Any) -> bool:
    """Return whether a node of this class may change: loggers, progress bars, monitors, callbacks that say so."""
    from lightning.pytorch.callbacks import DeviceStatsMonitor, LearningRateMonitor, ProgressBar
    from lightning.pytorch.loggers import Logger

    shows = (Logger, ProgressBar, LearningRateMonitor, DeviceStatsMonitor)
    return inspect.isclass(target) and (issubclass(target, shows) or getattr(target, "may_change", False))


def target_of_nodes(node: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key of each node with a `_target_` that can be imported, and the class or function."""
    if "_target_" in node:
        with suppress(Exception):  # a class of another version: its values are compared as they are
            module, _, name = str(node["_target_"]).rpartition(".")
            if callable(target := getattr(import_module(module), name)):
                yield where, target
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from target_of_nodes(value, f"{where}.{key}" if where else str(key))
