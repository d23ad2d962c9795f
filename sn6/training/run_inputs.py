"""What a run reads from outside its folder: the data set, and weights to start from. Known by contents, not by path."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sn6.checkpoints.initial_weights import HANDOFF_KEY, MODEL_KEY
from sn6.checkpoints.loading import find_weights
from sn6.checkpoints.run_files import EO_WEIGHTS, FINAL_WEIGHTS
from sn6.datasets.fingerprint import data_fingerprint, file_sha256
from sn6.datasets.from_config import open_data_set, path_keys
from sn6.errors import UserError
from sn6.files import read_json, write_text

INPUTS_FILE = "inputs.json"
WEIGHTS = {MODEL_KEY: FINAL_WEIGHTS, HANDOFF_KEY: EO_WEIGHTS}  # key → files of a run's folder
Inputs = dict[str, dict[str, str]]  # config key → part → digest


def read_inputs(config: Mapping[str, Any]) -> Inputs:
    """Return the digests of what the config names; without what is not there (any more).

    Args:
        config: of a stage, resolved
    """
    result: Inputs = {}
    for key, candidates in WEIGHTS.items():
        if (path := value_of(config, key)) is not None:
            with suppress(UserError, OSError):
                result[key] = {"file": file_sha256(find_weights(Path(path), key, candidates))}
    with suppress(UserError, OSError):
        data_set = open_data_set(config["data"])
        result[path_keys(config["data"])[0]] = data_fingerprint(data_set, config["data"]["product"])
    return result


def input_keys(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys that name what a run reads from outside its folder."""
    return (*path_keys(config["data"]), *WEIGHTS)


def saved_inputs(folder: Path) -> Inputs:
    """Read the digests that a run has written; empty where it is of an older version.

    Raises:
        UserError: the file is broken or foreign
    """
    path = folder / INPUTS_FILE
    if not path.exists():
        return {}
    inputs = read_json(path)
    if not all(isinstance(parts, dict) for parts in inputs.values()):
        raise UserError(f"{path} is not a file of sn6; restore it or remove it", kind="wrong_data", key=path)
    return inputs


def write_inputs(folder: Path, config: Mapping[str, Any], resumes: bool) -> None:
    """Write the digests of what the config names; those of weights that a resumed run does not find any more stay."""
    inputs = (saved_inputs(folder) if resumes else {}) | read_inputs(config)
    write_text(folder / INPUTS_FILE, json.dumps(inputs, indent=2) + "\n")


def check_inputs(folder: Path, config: Mapping[str, Any], inputs: Inputs) -> None:
    """Raise a UserError where the run in `folder` has read other data or weights than are there now.

    Args:
        folder: of the run
        config: the new one
        inputs: of the new config
    """
    for key, parts in saved_inputs(folder).items():
        differ = [part for part in parts if key in inputs and inputs[key].get(part) != parts[part]]
        if differ:
            raise UserError(
                f"{key}={value_of(config, key)} is not what the run in {folder} was trained on: other "
                f"{', '.join(described(part, parts, inputs[key]) for part in differ)}; give a copy of the same data, "
                "choose another name=, or set resume=false to start over",
                kind="conflict",
                key=key,
                value=value_of(config, key),
            )


def described(part: str, before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return the name of a part, with the number of tiles where that has changed."""
    one, two = (parts.get(part, "none").rpartition(", ")[0] for parts in (before, now))
    return f"{part} ({two or 'none'}, was {one})" if one != two else part


def is_same_input(key: str, saved: Any, config: Mapping[str, Any], recorded: Inputs, inputs: Inputs) -> bool:
    """Return whether two values of a key name the same data, where `check_inputs` has compared their contents.

    Args:
        key: of the config
        saved: its value in the run's folder
        config: the new one
        recorded: of the run
        inputs: of the new config
    """
    given, of_data = value_of(config, key), path_keys(config["data"])
    if key not in (*of_data, *WEIGHTS) or None in (saved, given):
        return False
    compared = of_data[0] if key in of_data else key
    if compared in recorded and compared in inputs:
        return True
    return isinstance(saved, str) and isinstance(given, str) and os.path.realpath(saved) == os.path.realpath(given)


def value_of(config: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key, None where the config lacks it."""
    node: Any = config
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node
