"""Read a trained network: its weights, and the metadata that describes how to use them."""

import platform
import re
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from torch import Tensor

from sn6.checkpoints.init_options import network_arguments
from sn6.checkpoints.published import rename_published
from sn6.checkpoints.state_dict import abbreviate, network_state
from sn6.checkpoints.torch_file import read_torch_file
from sn6.checkpoints.weights_file import SUFFIX, read_weights
from sn6.errors import UserError, first_line
from sn6.footprints import PolygonOptions

OLD_KEYS = {"ground", "split"}  # of metadata written by sn6 0.1
PACKAGES = ("sn6", "torch", "lightning", "timm")
WRAPPERS = ("state_dict", "model", "model_state_dict")  # keys that other programs store a state dict under
PARALLEL = "module."  # prefix that DataParallel adds to every name


def find_weights(path: Path, key: str, candidates: Sequence[str]) -> Path:
    """Return the file of weights: `path` itself, or the first of the candidates in a run's folder.

    Args:
        path: a checkpoint of Lightning, a safetensors file, or a run's folder
        key: the option that names it, for messages
        candidates: names of files relative to a run's folder

    Raises:
        UserError: there is no such file
    """
    if path.is_dir():
        existing = [path / name for name in candidates if (path / name).exists()]
        if not existing:
            raise UserError(
                f"{key}={path}: the folder has none of {', '.join(candidates)}; give the folder of a finished run",
                kind="not_found",
                key=key,
                value=str(path),
            )
        return existing[0]
    if not path.is_file():
        raise UserError(
            f"{key}={path} does not exist; give weights.safetensors, a checkpoint or a run's folder",
            kind="not_found",
            key=key,
            value=str(path),
        )
    return path


def read_checkpoint(file: Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the network's tensors by our names, and their metadata.

    The metadata of sn6's own files describes the network and its training. That of published weights contains their
    `format` and the `network` that they fit (`sn6.checkpoints.published`); that of any other state dict is empty.

    Args:
        file: a checkpoint or a safetensors file
        key: the option that names it, for messages

    Raises:
        UserError: the file cannot be read without unpickling code, contains no named tensors, or is of sn6 0.1
    """
    if file.suffix == SUFFIX:
        weights, metadata = read_weights(file)
        return (weights, current(metadata, file, key)) if metadata else rename_published(weights, file, key)
    checkpoint = load_tensors(file, key)
    weights = network_state(checkpoint) if "state_dict" in checkpoint else {}
    if weights:
        return weights, current(checkpoint_metadata(checkpoint), file, key)
    return rename_published(unwrap_state_dict(checkpoint, file, key), file, key)


def current(metadata: dict[str, Any], file: Path, key: str) -> dict[str, Any]:
    """Return the metadata of a file of this version.

    Raises:
        UserError: sn6 0.1 wrote it, whose threshold is a logit and whose training area has another name
    """
    if OLD_KEYS & set(metadata):
        raise UserError(
            f"{key}={file} was written by sn6 0.1 and cannot be used; train the network again",
            kind="wrong_data",
            key=key,
            value=str(file),
        )
    return metadata


def load_tensors(file: Path, key: str) -> dict[str, Any]:
    """Load the tensors and plain values that torch.save wrote, without running code from the file."""
    try:
        checkpoint = read_torch_file(file)
    except Exception as error:  # zip, pickle and torch each raise their own
        if code := re.search(r"GLOBAL ([\w.]+)", str(error)):
            message = (
                f"{key}={file} cannot be read without running code from it: it pickles {code[1]} besides tensors; if "
                "you trust it, save torch.load(FILE, weights_only=False).state_dict() where that class can be "
                "imported, and give that file"
            )
        else:
            # For a file that is no pickle, torch's own message advises to run code from it.
            reason = "not written by torch" if isinstance(error, UnpicklingError) else first_line(error)
            message = f"{key}={file} is broken, truncated or not a checkpoint ({reason}); give a checkpoint"
        raise UserError(message, kind="unreadable", key=key, value=str(file)) from None
    if not isinstance(checkpoint, dict):
        raise UserError(
            f"{key}={file} contains a {type(checkpoint).__name__} instead of named tensors; give a checkpoint",
            kind="wrong_data",
            key=key,
            value=str(file),
        )
    return checkpoint


def unwrap_state_dict(checkpoint: dict[str, Any], file: Path, key: str) -> dict[str, Tensor]:
    """Return the named tensors of another program's checkpoint, without the prefix of DataParallel.

    Raises:
        UserError: there are none
    """
    inner = next((checkpoint[name] for name in WRAPPERS if isinstance(checkpoint.get(name), dict)), checkpoint)
    weights = {name: value for name, value in inner.items() if isinstance(value, Tensor)}
    if not weights:
        raise UserError(
            f"{key}={file} contains no named tensors but {abbreviate(list(map(str, checkpoint)))}; give a checkpoint",
            kind="wrong_data",
            key=key,
            value=str(file),
        )
    is_parallel = all(name.startswith(PARALLEL) for name in weights)
    return {name.removeprefix(PARALLEL): value for name, value in weights.items()} if is_parallel else weights


def checkpoint_metadata(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of the network in a checkpoint of Lightning, as plain values."""
    config = checkpoint.get("hyper_parameters", {}).get("config", {})
    return {
        "network": network_arguments(config.get("model", {})),
        "multiple": config.get("model", {}).get("multiple"),
        "building_class": config.get("model", {}).get("building_class"),
        **checkpoint.get("TileDataModule", {}),
        "window": config.get("window"),
        "window_overlap": config.get("window_overlap"),
        "precision": config.get("trainer", {}).get("precision"),
        "footprints": polygon_options(checkpoint, config),
        "epoch": checkpoint.get("epoch"),
        "versions": {name: installed_version(name) for name in PACKAGES} | {"python": platform.python_version()},
    }


def polygon_options(checkpoint: dict[str, Any], config: dict[str, Any]) -> dict[str, float]:
    """Return the fields of PolygonOptions: those calibrated for the checkpoint, else those of the run's config."""
    options = config.get("callbacks", {}).get("polygon_f1", {}) | checkpoint.get("callbacks", {}).get("PolygonF1", {})
    names = [field.name for field in fields(PolygonOptions)]
    return {name: options[name] for name in names if options.get(name) is not None}


def installed_version(package: str) -> str | None:
    """Return the version of a package; None if it runs from a folder that is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
