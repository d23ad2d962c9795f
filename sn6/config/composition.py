"""Compose the config from conf/ and the user's own folders of config files."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
import hydra.utils
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf

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


SEARCH_PATH = "hydra.searchpath="


def job_folder(dirname: str) -> str:
    """Return the folder of a sweep's job, which a shell takes without quotes: `loss-bce_seed-0`.

    Where characters are replaced, a digest keeps two jobs apart.
    """
    name = re.sub(r"[^\w.+-]+", "-", dirname, flags=re.ASCII)
    return name if name == dirname else f"{name}-{hashlib.sha256(dirname.encode()).hexdigest()[:6]}"


def head_channels(*, _root_: Any) -> int:
    """Return the number of channels of all heads of a config; a head that is not right, reported later, has one."""
    total = 0
    for node in (_root_.get("heads") or {}).values():
        channels = 1
        with suppress(Exception):
            fields: Any = OmegaConf.to_container(node.target, resolve=True)
            module, _, name = str(fields.pop("_target_")).rpartition(".")
            channels = int(getattr(import_module(module), name)(**fields).outputs)
        total += channels
    return max(total, 1)


def data_channels(*, _root_: Any) -> int:
    """Return the number of bands of the samples of a config; where data is not right, reported later, it is 1."""
    with suppress(Exception):
        data: Any = OmegaConf.to_container(_root_.data, resolve=True)
        if data["bands"] is not None:
            return max(len(data["bands"]), 1)
        module, _, name = str(data["dataset"]["_target_"]).rpartition(".")
        return int(getattr(import_module(module), name).channels(data))
    return 1


# for conf/; the function has another name in the OmegaConf of Hydra 1.3
register_resolver = OmegaConf.register_new_resolver if IS_HYDRA_1_3 else OmegaConf.register_resolver
register_resolver("job_folder", job_folder, replace=True)
register_resolver("head_channels", head_channels, replace=True)
register_resolver("data_channels", data_channels, replace=True)


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
