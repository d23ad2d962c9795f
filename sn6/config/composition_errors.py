"""Explain in one line what Hydra and OmegaConf refuse about a config."""

import difflib
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from inspect import signature
from pathlib import Path
from typing import Any

import yaml
from hydra import compose
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sn6.cli import unknown_key
from sn6.config.composition import CONF, composing, config_folders, group_choices
from sn6.config.moved_keys import moved_key
from sn6.config.targets import import_target
from sn6.errors import UserError, first_line

# Hydra has no class of its own for these: a group that is null or a number, and flags that exclude one another.
NEAR = 0.75  # similarity from which on a name is taken for a misspelling of another one
HYDRA_VALUE_ERRORS = ("Config group override", "Only one of --")


@contextmanager
def one_line_config_errors(overrides: Sequence[str]) -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise about the `overrides` into a UserError."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        if isinstance(error.__cause__, UserError):  # raised in a constructor that Hydra called
            raise error.__cause__ from None
        raise explain(error, overrides) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{mark.name.removeprefix('file://')} line {mark.line + 1}" if mark else "a config file"
        message = f"{place} is not valid YAML ({getattr(error, 'problem', None) or first_line(error)}); correct it"
        raise UserError(message, kind="unreadable", key=place) from None
    except (ValueError, TypeError) as error:
        if is_of_defaults_list(error):
            raise group_without_name(overrides) from None
        if not str(error).startswith(HYDRA_VALUE_ERRORS):
            raise
        raise explain(error, overrides) from None


def is_of_defaults_list(error: Exception) -> bool:
    """Return whether Hydra raised an error about a choice of a group that is no name, such as callbacks=[0]."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).name == "defaults_list.py"


def explain(error: Exception, overrides: Sequence[str]) -> UserError:
    """Return an error of Hydra as one line: what is wrong in the config, and what is valid instead."""
    text = str(error)
    if text.startswith(HYDRA_VALUE_ERRORS[1]):
        return UserError(f"conflicting flags: {text[:1].lower()}{text[1:]}", kind="conflict")
    if text.startswith(HYDRA_VALUE_ERRORS[0]):
        return group_without_name(overrides)
    if isinstance(error, OverrideParseException):
        override = str(error.override)
        if "=" not in override:
            message = f"cannot read {override!r} as key=value; `python -m sn6.run --help` lists the keys"
            return UserError(message, kind="invalid_value", key=override)
        reason = text.splitlines()[0].partition(" out of [")[0]
        return UserError(
            f"cannot read {override!r} as key=value: {reason}; quote a value that contains special characters: "
            "'key=\"value\"'",
            kind="invalid_value",
            key=override.partition("=")[0],
            value=override.partition("=")[2],
        )
    if match := re.search(r"Could not override '([^']+)'", text):
        return unknown_overrides(overrides, match[1].split("@")[0])
    if match := re.search(r"Could not (?:find|load) '(hydra/\w+)/([^']+)'", text):
        return UserError(
            f"{match[1]}={match[2]} is not installed; pip install 'sn6[sweep]' (Optuna, joblib) or 'sn6[slurm]'",
            kind="unavailable",
            key=match[1],
            value=match[2],
        )
    if match := re.search(r"Could not (?:find|load) '(\w+)/([^']*)'", text):
        choices = ", ".join(group_choices(match[1], overrides))
        own = [str(folder) for folder in config_folders(overrides) if folder != CONF]
        return UserError(
            f"unknown {match[1]}={match[2]}; choose from {choices}, or add {match[1]}/{match[2]}.yaml to "
            + (" or ".join(own) if own else "a folder of your own: --config-dir DIR"),
            kind="unknown_value",
            key=match[1],
            value=match[2],
        )
    if match := re.search(r"Interpolation key '([^']+)' not found", text):
        key = getattr(error, "full_key", None)
        message = f"config: {key or 'a value'} refers to ${{{match[1]}}}, which does not exist; correct this name"
        return UserError(message, kind="invalid_value", key=key)
    if "Recursive interpolation" in text:
        key = getattr(error, "full_key", None)
        return UserError(
            f"config: {key or 'a key'} refers to itself; leave it out where another file has it",
            kind="invalid_value",
            key=key,
        )
    return UserError(" ".join(text.split()), kind="invalid_value")


def group_without_name(overrides: Sequence[str]) -> UserError:
    """Return the error of the first override of a config group that is not the name of a file, such as null."""
    for override in overrides:
        key, equals, value = override.lstrip("+").partition("=")
        choices = group_choices(key, overrides)
        is_group = bool(choices) or key.startswith("hydra/")
        if equals and is_group and value not in choices and not value.startswith("["):
            listed = f"; choose from {', '.join(choices)}" if choices else ""
            return UserError(
                f"unknown {key}={value}{listed}, or leave it out", kind="unknown_value", key=key, value=value
            )
    return UserError("a config group in the overrides is not a name; give it as group=name", kind="unknown_value")


def unknown_overrides(overrides: Sequence[str], first: str) -> UserError:
    """Return the error that names every override of a key that the composed config lacks.

    Args:
        overrides: of the command line
        first: the key that Hydra refused, which a stage may set
    """
    config = compose_groups(overrides)
    tree = OmegaConf.to_container(config, resolve=False)
    keys = [override.partition("=")[0] for override in overrides if re.match(r"[\w.]+=", override)]
    known = [key for key in keys if key.startswith("hydra.") or group_choices(key, overrides) or has_key(tree, key)]
    unknown = [key for key in keys if key not in known]
    messages = [explain_unknown(key, config) for key in unknown or [first]]
    message = f"config: {'; '.join(messages)}; `python -m sn6.run --help` lists all keys"
    return UserError(message, kind="unknown_key", key=(unknown or [first])[0])


def explain_unknown(key: str, config: DictConfig) -> str:
    """Return the message for a key that the config lacks: an argument that its file does not list, or a wrong name."""
    parent, _, name = key.rpartition(".")
    if moved := moved_key(key.lstrip("+~")):
        return moved
    if choices := group_choices(name):
        return f"unknown key {key!r}; did you mean the group {name}={'|'.join(choices)}?"
    if name == "_target_":
        return f"unknown key {key!r}; +{key}=... adds it"
    tree: Any = OmegaConf.to_container(config, resolve=False)
    owners = [group for group, node in tree.items() if isinstance(node, dict) and key in node]  # none of a dotted key
    if owners:
        return f"unknown key {key!r}; did you mean '{owners[0]}.{key}'?"
    beside = keys_beside(key, config)
    node = OmegaConf.select(config, parent) if parent else None
    if not isinstance(node, DictConfig) or "_target_" not in node:
        return unknown_key(key, beside)
    if difflib.get_close_matches(name, map(str, node), n=1, cutoff=NEAR):  # without an import, which takes seconds
        return unknown_key(key, beside)
    arguments: list[str] = []
    with suppress(Exception):  # the module cannot be imported: that is another error
        arguments = list(signature(import_target(node["_target_"], parent)).parameters)
    if name in arguments:
        return f"{key} is an argument of {node['_target_']} that its file does not list; add it by +{key}=..."
    return unknown_key(key, [*beside, *(f"{parent}.{argument}" for argument in arguments)])


def has_key(node: Any, key: str) -> bool:
    """Return whether nested dicts have a dotted key, or may have it: null stands for a dict of any keys."""
    for name in key.split("."):
        if not isinstance(node, dict):
            return node is None
        if name not in node:
            return False
        node = node[name]
    return True


def compose_groups(overrides: Sequence[str]) -> DictConfig:
    """Compose the config of the groups that the overrides choose, without their other keys."""
    groups = [override for override in overrides if group_choices(override.partition("=")[0], overrides)]
    with composing(overrides) as more:
        try:
            return compose("config", [*more, *groups])
        except (HydraException, ValueError, TypeError):  # a group of a sweep has several names, another one is none
            return compose("config", more)


def keys_beside(key: str, config: DictConfig) -> list[str]:
    """Return the keys of the nearest node above `key` that exists."""
    parent = key.rpartition(".")[0]
    while parent and not isinstance(OmegaConf.select(config, parent), DictConfig):
        parent = parent.rpartition(".")[0]
    node = OmegaConf.select(config, parent) if parent else config
    prefix = f"{parent}." if parent else ""
    return [prefix + name for name in map(str, node) if not name.startswith("_")]
