"""What a training left of its network: the weights, and the card that tells how to use them."""

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sn6.errors import UserError, first_line
from sn6.models.checkpoint import network_of
from sn6.models.portable import SUFFIX, read_portable

WEIGHTS_FILE = "weights.safetensors"
BEST = "checkpoints/best.ckpt"
PACKAGES = ("sn6", "torch", "lightning", "timm")
RULE = ("threshold", "min_area", "simplify")  # from logits to footprints


def trained_file(path: Path, key: str, inside: Sequence[str]) -> Path:
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


def read_trained(file: Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The network's tensors and their card.

    Raises:
        UserError: the file cannot be read without unpickling code
    """
    if file.suffix == SUFFIX:
        return read_portable(file)
    try:
        held = torch.load(file, map_location="cpu", weights_only=True)
        return network_of(held), card_of(held)
    except Exception as error:  # zip, pickle and torch each raise their own
        raise UserError(
            f"{key}={file} cannot be read without running code from it, or is cut short ({first_line(error)}); "
            "give a checkpoint of sn6"
        ) from None


def card_of(held: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint of Lightning tells of its network, in plain values."""
    config = held.get("hyper_parameters", {}).get("config", {})
    return {
        "network": {key: value for key, value in config.get("model", {}).items() if key != "weights"},
        **held.get("TileDataModule", {}),
        "window": config.get("window"),
        "window_overlap": config.get("window_overlap"),
        "precision": config.get("trainer", {}).get("precision"),
        "footprints": rule_of(held, config),
        "epoch": held.get("epoch"),
        "versions": {name: version_of(name) for name in PACKAGES} | {"python": platform.python_version()},
    }


def rule_of(held: dict[str, Any], config: dict[str, Any]) -> dict[str, float]:
    """Threshold, least area and tolerance: those that were found for the checkpoint, else those of the run's config."""
    told = config.get("callbacks", {}).get("polygon_f1", {}) | held.get("callbacks", {}).get("PolygonF1", {})
    return {key: told[key] for key in RULE if told.get(key) is not None}


def version_of(package: str) -> str | None:
    """None where it runs from a folder that was never installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
