"""Compose the config from conf/, and explain in one line what Hydra refuses."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from inspect import signature
from pathlib import Path
from typing import Any

import hydra
import hydra.utils
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sn6.cli import unknown_key
from sn6.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
# In a wheel conf/ is inside the package, in a clone beside it.
CONF = next((folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir()), PACKAGE / "conf")
IS_HYDRA_1_3 = hydra.__version__.startswith("1.3.")
# Hydra 1.3 needs to know whose defaults to follow, Hydra 1.4 warns when it is told.
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if IS_HYDRA_1_3 else {}
# Hydra 1.4 asks which `_target_` may be called. For `hydra.main` any, as the command line is the user's own; for
# `instantiate` of a network any too: what a file names was compared with allow= before.
ANY_TARGET = None if IS_HYDRA_1_3 else vars(hydra.utils)["UNSAFE_DISABLE_EXECUTION_CHECKS"]
TRUST: dict[str, Any] = {} if IS_HYDRA_1_3 else {"execution_whitelist": ANY_TARGET}
TRUST_NODE: dict[str, Any] = {} if IS_HYDRA_1_3 else {"_execution_whitelist_": ANY_TARGET}

# Hydra has no class of its own for these: a group that is null or a number, and flags that exclude one another.
HYDRA_VALUE_ERRORS = ("Config group override", "Only one of --")
SEARCH_PATH = "hydra.searchpath="


def job_folder(dirname: str) -> str:
    """Return the folder of a sweep's job, which a shell takes without quotes: `loss-bce_seed-0`.

    Where characters are replaced, a digest keeps two jobs apart.
    """
    name = re.sub(r"[^\w.+-]+", "-", dirname, flags=re.ASCII)
    return name if name == dirname else f"{name}-{hashlib.sha256(dirname.encode()).hexdigest()[:6]}"


# for conf/config.yaml; the function has another name in the OmegaConf of Hydra 1.3
register_resolver = OmegaConf.register_new_resolver if IS_HYDRA_1_3 else OmegaConf.register_resolver
register_resolver("job_folder", job_folder, replace=True)


def compose_values(overrides: Sequence[str], **options: str | None) -> dict[str, Any]:
    """Compose the config of these overrides and return it resolved, as dicts, lists and values.

    Args:
        overrides: as Hydra reads them
        options: text values of keys at the top, which win over the overrides; None is null
    """
    texts = [f"{key}={'null' if value is None else quote(value)}" for key, value in options.items()]
    return to_plain(compose("config", [*search_path(), *overrides, *texts]))


def search_path(arguments: Sequence[str] = ()) -> list[str]:
    """Return the override of `hydra.searchpath`, the user's own folders of config files, in a list; empty without one.

    Args:
        arguments: of the command line; where they have none, those that this process was started with count
    """
    if not any(argument.startswith(SEARCH_PATH) for argument in arguments) and HydraConfig.initialized():
        arguments = HydraConfig.get().overrides.hydra
    return [argument for argument in arguments if argument.startswith(SEARCH_PATH)][-1:]


def config_folders(arguments: Sequence[str] = ()) -> list[Path]:
    """Return conf/ and the user's own folders of config files; argument of `search_path`."""
    values: list[Any] = [OverridesParser.create().parse_override(one).value() for one in search_path(arguments)]
    texts = [str(getattr(path, "text", path)) for paths in values for path in paths]
    return [CONF, *(Path(text.removeprefix("file://")) for text in texts if text.startswith("file://"))]


def group_file(group: str, choice: str, arguments: Sequence[str] = ()) -> Path | None:
    """Return the file of a choice of a config group, None where there is none; argument of `search_path`."""
    paths = [folder / group / f"{choice}.yaml" for folder in config_folders(arguments)]
    return next((path for path in paths if path.exists()), None)


def group_choices(group: str, arguments: Sequence[str] = ()) -> list[str]:
    """Return the choices of a config group; argument of `search_path`."""
    if not group:
        return []
    return sorted({path.stem for folder in config_folders(arguments) for path in (folder / group).glob("*.yaml")})


@contextmanager
def composing(arguments: Sequence[str] = ()) -> Iterator[list[str]]:
    """Let Hydra compose, in a job or outside of one; yield the overrides to add, see `search_path`."""
    if GlobalHydra.instance().is_initialized():  # a stage is composed inside a job
        yield search_path(arguments)
    else:
        with initialize_config_dir(str(CONF), **VERSION_BASE):
            yield search_path(arguments)


def quote(text: str) -> str:
    """Return a value that Hydra reads as this text, whatever characters it holds."""
    return QuotedString(text=text, quote=Quote.single).with_quotes()


def to_plain(config: DictConfig) -> dict[str, Any]:
    """Return the config as dicts, lists and values, with every `${...}` resolved."""
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


@contextmanager
def one_line_config_errors(overrides: Sequence[str]) -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise about the `overrides` into a UserError."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        if isinstance(error.__cause__, UserError):  # raised in a constructor that Hydra called
            raise error.__cause__ from None
        raise explain(error, overrides) from None
    except ValueError as error:
        if not str(error).startswith(HYDRA_VALUE_ERRORS):
            raise
        raise explain(error, overrides) from None


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
        return UserError(
            f"unknown {match[1]}={match[2]}; choose from {choices}, or give the folder of your own config files: "
            "--config-dir DIR",
            kind="unknown_value",
            key=match[1],
            value=match[2],
        )
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
    node = OmegaConf.select(config, parent) if parent else None
    arguments: list[str] = []
    if isinstance(node, DictConfig) and "_target_" in node:
        with suppress(Exception):  # the module cannot be imported: that is another error
            arguments = list(signature(hydra.utils.get_object(node["_target_"])).parameters)
    if choices := group_choices(name):
        return f"unknown key {key!r}; did you mean the group {name}={'|'.join(choices)}?"
    if isinstance(node, DictConfig) and name in arguments:
        return f"{key} is an argument of {node['_target_']} that its file does not list; add it by +{key}=..."
    return unknown_key(key, [*keys_beside(key, config), *(f"{parent}.{argument}" for argument in arguments)])


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
        except HydraException:  # a group of a sweep has several names
            return compose("config", more)


def keys_beside(key: str, config: DictConfig) -> list[str]:
    """Return the keys of the nearest node above `key` that exists."""
    parent = key.rpartition(".")[0]
    while parent and not isinstance(OmegaConf.select(config, parent), DictConfig):
        parent = parent.rpartition(".")[0]
    node = OmegaConf.select(config, parent) if parent else config
    prefix = f"{parent}." if parent else ""
    return [prefix + name for name in map(str, node) if not name.startswith("_")]
