"""Read a trained network: its weights, and the metadata that describes how to use them."""

import platform
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from sn6.checkpoints.architecture import build_network, constructor_arguments, is_own_network, targets_in
from sn6.checkpoints.heads import target_nodes
from sn6.checkpoints.hub import download, is_address
from sn6.checkpoints.init_options import network_arguments
from sn6.checkpoints.metadata import CheckpointMetadata, ForeignMetadata, parse_metadata, unusable_metadata
from sn6.checkpoints.published import rename_published
from sn6.checkpoints.state_dict import abbreviate, describe_mismatch, network_state
from sn6.checkpoints.torch_file import read_torch_file
from sn6.checkpoints.weights_file import SUFFIX, read_weights
from sn6.cli import check_arguments
from sn6.config.targets import import_target
from sn6.errors import UserError, first_line

OLD_KEYS = {"ground", "split"}  # of metadata written by sn6 0.1
OLD_FIELDS = ("threshold", "min_area", "simplify")  # of callbacks.polygon_f1 in checkpoints of sn6 0.2
PACKAGES = ("sn6", "torch", "lightning", "timm")
WRAPPERS = ("state_dict", "model", "model_state_dict")  # keys that other programs store a state dict under
PARALLEL = "module."  # prefix that DataParallel adds to every name


def find_weights(path: Path, key: str, candidates: Sequence[str]) -> Path:
    """Return the file of weights: `path` itself, or the first of the candidates in a run's folder.

    Args:
        path: a checkpoint of Lightning, a safetensors file, a run's folder, or an address of the Hugging Face hub
        key: the option that names it, for messages
        candidates: names of files relative to a run's folder

    Raises:
        UserError: there is no such file
    """
    if is_address(path):
        return download(path, key)
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
            f"{key}={path} does not exist; give weights.safetensors, a checkpoint, a run's folder or hf://owner/name",
            kind="not_found",
            key=key,
            value=str(path),
        )
    return path


def read_checkpoint(file: Path, key: str) -> tuple[dict[str, Tensor], CheckpointMetadata | ForeignMetadata]:
    """Read the network's tensors by our names, and their metadata.

    Args:
        file: a checkpoint or a safetensors file
        key: the option that names it, for messages

    Raises:
        UserError: the file cannot be read without unpickling code, contains no named tensors or values that are not
            finite, has wrong metadata or tensors of another network, or is of sn6 0.1
    """
    if file.suffix == SUFFIX:
        weights, values = read_weights(file)
        is_own = bool(values)
    else:
        checkpoint = load_tensors(file, key)
        weights, is_own = network_state(checkpoint) if "state_dict" in checkpoint else {}, is_of_run(checkpoint)
        values = checkpoint_values(checkpoint, file, key) if weights and is_own else {}
        weights = weights or unwrap_state_dict(checkpoint, file, key)
    check_tensors(weights, file, key)
    if not (values and is_own):
        renamed, about = rename_published(weights, file, key)
        return renamed, ForeignMetadata(**about)
    metadata = parse_metadata(current(values, file, key), file, key)
    check_own_network(metadata, weights, file, key)
    return weights, metadata


def is_of_run(checkpoint: dict[str, Any]) -> bool:
    """Return whether a checkpoint of Lightning is of a run of sn6, whose datamodule or config it contains."""
    parameters = checkpoint.get("hyper_parameters")
    return "TileDataModule" in checkpoint or (isinstance(parameters, dict) and "config" in parameters)


def check_tensors(weights: dict[str, Tensor], file: Path, key: str) -> None:
    """Raise a UserError for a tensor that is larger than what the file contains of it, or that is not finite."""
    for name, tensor in weights.items():
        if tensor.layout is not torch.strided or tensor.device.type != "cpu":
            reason = f"is a tensor of {tensor.layout} on {tensor.device}"
        elif tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            reason = f"has {tensor.numel()} numbers, but the file contains fewer"
        elif (tensor.is_floating_point() or tensor.is_complex()) and not torch.isfinite(tensor).all():
            reason = "contains NaN or infinite values"
        else:
            continue
        raise UserError(
            f"{key}={file}: {name} {reason}; give another checkpoint", kind="wrong_data", key=key, value=str(file)
        )


def check_own_network(metadata: CheckpointMetadata, weights: dict[str, Tensor], file: Path, key: str) -> None:
    """Raise a UserError unless the network of the metadata, if it is one of sn6, has the tensors of the file."""
    options = metadata.network
    if not all(map(is_own_network, targets_in(options))):
        return
    given = {name: value for name, value in options.items() if name != "_target_" and value is not None}
    target = import_target(options["_target_"], "network")
    _, errors = check_arguments(target, constructor_arguments(target, given), "network.", strict=True)
    if errors:
        raise unusable_metadata(file, key, str(errors[0]))
    try:
        declared = build_on_meta(options)
    except Exception as error:  # such as a size that no tensor can have
        raise unusable_metadata(file, key, first_line(error.__cause__ or error)) from None
    check_fits(declared, weights, file, key)


def build_on_meta(options: dict[str, Any]) -> nn.Module:
    """Build a network without memory for its tensors: a file may declare any size."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return build_network(options, fetch_pretrained=False)


def check_fits(network: nn.Module, weights: dict[str, Tensor], file: Path, key: str) -> None:
    """Raise a UserError unless the tensors of a file are those of the network in its metadata."""
    if mismatch := describe_mismatch(network, weights):
        raise UserError(
            f"{key}={file} does not fit the network in its metadata: {mismatch}; give another checkpoint",
            kind="mismatch",
            key=key,
            value=str(file),
        )


def current(metadata: Any, file: Path, key: str) -> Any:
    """Return the metadata of a file as they are.

    Raises:
        UserError: sn6 0.1 wrote it, whose threshold is a logit and whose training area has another name
    """
    if isinstance(metadata, dict) and OLD_KEYS & set(metadata):
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


def checkpoint_values(checkpoint: dict[str, Any], file: Path, key: str) -> dict[str, Any]:
    """Return the metadata of the network in a checkpoint of a run, as plain values that are not checked.

    Raises:
        UserError: a part of it is no table of values
    """
    try:
        config = checkpoint["hyper_parameters"]["config"] if "hyper_parameters" in checkpoint else {}
        model, trainer = config.get("model", {}), config.get("trainer", {})
        callbacks, state = config.get("callbacks", {}), checkpoint.get("callbacks", {}).get("PolygonF1", {})
        polygons = state.get("polygons") or config.get("polygons")  # that calibrated for the checkpoint comes first
        if polygons is None:
            options = callbacks.get("polygon_f1", {}) | state
            polygons = {name: options[name] for name in OLD_FIELDS if options.get(name) is not None}
        return {
            "network": network_arguments(model),
            **({"heads": target_nodes(config["heads"])} if "heads" in config else {}),
            "multiple": model.get("multiple"),
            "building_class": model.get("building_class"),
            **checkpoint.get("TileDataModule", {}),
            "window": config.get("window"),
            "window_overlap": config.get("window_overlap"),
            "flips": config.get("flips", False),
            "precision": trainer.get("precision"),
            "footprints": polygons,
            "epoch": checkpoint.get("epoch"),
            "score": state.get("scores", {}),
            "selected_by": callbacks.get("checkpoint", {}).get("monitor"),
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise unusable_metadata(file, key, first_line(error)) from None


def installed_versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that write a file of weights."""
    return {name: installed_version(name) for name in PACKAGES} | {"python": platform.python_version()}


def installed_version(package: str) -> str | None:
    """Return the version of a package; None if it runs from a folder that is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
