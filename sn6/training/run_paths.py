"""Paths inside a run's folder, written so that the folder can be renamed, copied or mounted elsewhere."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sn6.config.comments import declared_keys

HERE = "."  # as `folder` in the config of a run: the folder that contains the file


def path_inside(path: str | Path, folder: str | Path) -> str | None:
    """Return a path relative to a folder; None where it is outside. Either may lead through symbolic links."""
    for absolute in (os.path.abspath, os.path.realpath):
        if Path(absolute(path)).is_relative_to(absolute(folder)):
            return str(Path(absolute(path)).relative_to(absolute(folder)))
    return None


def portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a run with the paths inside the run relative to `folder`, which becomes `.`.

    Other paths stay as they are: absolute, or relative to the working folder. A config that is portable already is
    returned as it is.
    """
    if config.get("folder", HERE) == HERE or "run_folder" not in config:
        return dict(config)
    up = os.path.relpath(config["run_folder"], config["folder"])
    folders = {str(config["folder"]): HERE, str(config["run_folder"]): up}
    own = {"folder": HERE, "run_folder": up}
    return {key: own.get(key) or relative_value(value, str(key), folders) for key, value in config.items()}


def relative_value(value: Any, key: str, folders: Mapping[str, str]) -> Any:
    """Return a value of the config with the paths that are inside one of the folders relative to it.

    Args:
        value: a value, a list or a node
        key: its dotted key
        folders: folder → its relative path, the innermost first
    """
    if isinstance(value, Mapping):
        return {name: relative_value(one, f"{key}.{name}", folders) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [relative_value(one, key, folders) for one in value]
    is_path = isinstance(value, str) and (
        os.path.isabs(value) or (key in declared_keys() and declared_keys()[key].type == "path")
    )
    if is_path:
        for folder, relative in folders.items():
            if (inside := path_inside(value, folder)) is not None:
                return os.path.normpath(os.path.join(relative, inside))
    return value
