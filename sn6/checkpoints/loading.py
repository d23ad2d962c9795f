"""What a training left of its network: the weights, and the card that tells how to use them."""

import platform
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from sn6.checkpoints.init_options import INIT_KEYS
from sn6.checkpoints.published import translate
from sn6.checkpoints.state_dict import first_of, network_state
from sn6.checkpoints.weights_file import SUFFIX, read_weights
from sn6.errors import UserError, first_line

PACKAGES = ("sn6", "torch", "lightning", "timm")
WRAPPERS = ("state_dict", "model", "model_state_dict")  # keys under which others keep the state dict
PARALLEL = "module."  # what DataParallel puts before every name
RULE = ("threshold", "min_area", "simplify")  # from logits to footprints


def find_weights(path: Path, key: str, inside: Sequence[str]) -> Path:
    """The file that holds the weights, of whatever of a run is given.

    Args:
        path: a checkpoint of Lightning, a file of safetensors, or a run's folder
        key: of the config or command line, for messages
        inside: the files of a run's folder to look for, the first that there is

    Raises:
        UserError: there is none
    """
    if path.is_dir():
        found = [path / name for name in inside if (path / name).exists()]
        if not found:
            raise UserError(
                f"{key}={path}: the folder holds none of {', '.join(inside)}; give the folder of a finished run"
            )
        return found[0]
    if not path.is_file():
        raise UserError(
            f"{key}={path}: there is no such file; give weights.safetensors, a checkpoint or a run's folder"
        )
    return path


def read_checkpoint(file: Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The network's tensors under our names, and their card.

    The card of an own file holds all that is known of its training; that of published weights tells their `form` and
    the `network` that they fit (`sn6.checkpoints.published`); that of a state dict of unknown names is empty.

    Raises:
        UserError: the file cannot be read without unpickling code, or holds no weights by name
    """
    where = f"{key}={file}"
    if file.suffix == SUFFIX:
        weights, card = read_weights(file)
        return (weights, card) if card else translate(weights, where)
    held = load_tensors(file, where)
    weights = network_state(held) if "state_dict" in held else {}
    return (weights, checkpoint_metadata(held)) if weights else translate(plain_weights(held, where), where)


def load_tensors(file: Path, where: str) -> dict[str, Any]:
    """What torch.save wrote, as far as it is tensors and plain values; no code of it is run."""
    try:
        held = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each raise their own
        if code := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise UserError(
                f"{where} cannot be read without running code from it: it pickles {code[1]} and not its weights alone; "
                "if you trust it, save torch.load(FILE, weights_only=False).state_dict() where that class can be "
                "imported, and give that file"
            ) from None
        # What torch says of a file that is no pickle is advice to run its code.
        reason = "not written by torch" if isinstance(error, UnpicklingError) else first_line(error)
        raise UserError(
            f"{where} cannot be read, it is broken, cut short or no checkpoint ({reason}); give a checkpoint"
        ) from None
    if not isinstance(held, dict):
        raise UserError(f"{where} holds no weights by name but a {type(held).__name__}; give a checkpoint")
    return held


def plain_weights(held: dict[str, Any], where: str) -> dict[str, Tensor]:
    """The tensors of a state dict, without what was wrapped around it or around the network."""
    inner = next((held[name] for name in WRAPPERS if isinstance(held.get(name), dict)), held)
    weights = {name: value for name, value in inner.items() if isinstance(value, Tensor)}
    if not weights:
        raise UserError(f"{where} holds no weights by name; it has {first_of(list(map(str, held)))}")
    is_parallel = all(name.startswith(PARALLEL) for name in weights)
    return {name.removeprefix(PARALLEL): value for name, value in weights.items()} if is_parallel else weights


def checkpoint_metadata(held: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint of Lightning tells of its network, in plain values."""
    config = held.get("hyper_parameters", {}).get("config", {})
    return {
        "network": {key: value for key, value in config.get("model", {}).items() if key not in INIT_KEYS},
        "building_class": config.get("model", {}).get("building_class"),
        **held.get("TileDataModule", {}),
        "window": config.get("window"),
        "window_overlap": config.get("window_overlap"),
        "precision": config.get("trainer", {}).get("precision"),
        "footprints": polygon_options(held, config),
        "epoch": held.get("epoch"),
        "versions": {name: version_of(name) for name in PACKAGES} | {"python": platform.python_version()},
    }


def polygon_options(held: dict[str, Any], config: dict[str, Any]) -> dict[str, float]:
    """Threshold, least area and tolerance: those that were found for the checkpoint, else those of the run's config."""
    told = config.get("callbacks", {}).get("polygon_f1", {}) | held.get("callbacks", {}).get("PolygonF1", {})
    return {key: told[key] for key in RULE if told.get(key) is not None}


def version_of(package: str) -> str | None:
    """None where it runs from a folder that was never installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
