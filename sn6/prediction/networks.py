"""Load trained networks from their checkpoints, with the options of their runs."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from sn6.checkpoints.architecture import build_network, foreign_targets, targets_in
from sn6.checkpoints.loading import read_checkpoint
from sn6.checkpoints.state_dict import describe_mismatch
from sn6.data.normalization import Nodata, Statistics
from sn6.data.source import Source
from sn6.errors import UserError, first_line
from sn6.footprints import PolygonOptions
from sn6.models.sliding_window import check_overlap

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
# Default window and overlap in pixels. A pixel changes the logits of a U-Net up to 107 pixels away, of a TernausNet
# 184 (with VGG-16: 215), of an FCN 245.
WINDOW, OVERLAP = 1024, 256


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network and how to use it.

    Attributes:
        network: see `sn6.models.logits.compute_logits`
        multiple: pixels; images are padded to multiples of it
        building_class: channel of building among several classes, None for one class
        source: product and bands of its input
        statistics: mean and standard deviation of its normalisation
        nodata: value of nodata pixels after normalisation
        polygon_options: from logits to footprints
        window: edge length and overlap of the windows of its run in pixels; None if it predicted whole tiles
        precision: precision of its run
    """

    network: nn.Module
    multiple: int
    building_class: int | None
    source: Source
    statistics: Statistics
    nodata: Nodata
    polygon_options: PolygonOptions
    window: tuple[int, int] | None
    precision: Precision


def load_network(path: Path, allow: Sequence[str] = ()) -> TrainedNetwork:
    """Load a trained network from a checkpoint or `weights.safetensors`, without running code from the file.

    Args:
        path: the file
        allow: classes of other packages that it may name, such as "segmentation_models_pytorch.Unet"

    Raises:
        UserError: the file cannot be read, has no metadata about its network and data, or needs a class that is not
            allowed
    """
    weights, metadata = read_checkpoint(path, "checkpoint")
    if "format" in metadata:
        raise UserError(
            f"checkpoint={path} contains weights of {metadata['format']} without bands, normalisation and threshold; "
            f"`python -m sn6.run experiment=baseline_weights model.weights={path} data.root=DIR name=NAME` scores them "
            "and writes outputs/NAME, which checkpoint= accepts",
            kind="wrong_data",
            key="checkpoint",
            value=str(path),
        )
    try:
        options = dict(metadata["network"])
        if "_target_" not in options:
            raise KeyError("_target_")
        data = metadata["source"]
        source = Source(data["product"], tuple(data["bands"]), data["orient"], data["min_area"])
        statistics = Statistics(tuple(metadata["mean"]), tuple(metadata["std"]), None)
        nodata = metadata["nodata"]
        polygon_options = PolygonOptions(**metadata.get("footprints", {}))
    except (KeyError, TypeError, ValueError, UserError) as error:
        raise unusable_metadata(path, first_line(error)) from None
    network = load_architecture(options, path, allow)
    if mismatch := describe_mismatch(network, weights):
        raise UserError(
            f"checkpoint={path} does not fit the network in its metadata: {mismatch}; give another checkpoint",
            kind="mismatch",
            key="checkpoint",
            value=str(path),
        )
    network.load_state_dict(weights)
    return TrainedNetwork(
        network.eval(),
        metadata.get("multiple") or 1,  # networks of older files pad by themselves
        metadata.get("building_class"),
        source,
        statistics,
        nodata,
        polygon_options,
        (metadata["window"], metadata["window_overlap"]) if metadata.get("window") else None,
        metadata.get("precision") or "32-true",
    )


def load_architecture(options: dict[str, Any], path: Path, allow: Sequence[str]) -> nn.Module:
    """Build the network that a checkpoint describes, without the pretrained weights that it was initialised with.

    Args:
        options: `_target_` and arguments, nested ones included
        path: the checkpoint, for messages
        allow: classes of other packages that may be imported and called

    Raises:
        UserError: the network is of another package and not allowed, or cannot be imported or built
    """
    if unknown := [
        target for target in targets_in(options) if target.startswith("sn6.") and not is_own_network(target)
    ]:
        raise unusable_metadata(path, f"sn6 has no network {unknown[0]}")
    foreign = foreign_targets(options)
    if refused := [target for target in foreign if target not in allow]:
        listed = refused[0] if len(refused) == 1 else f"[{','.join([*allow, *refused])}]"
        raise UserError(
            f"checkpoint={path} needs code that is not part of sn6; if you trust it, add allow={listed}",
            kind="missing_value",
            key="allow",
            value=refused,
        )
    try:
        return build_network(options, fetch_pretrained=False).to(memory_format=torch.channels_last)
    except Exception as error:  # of the network's own code
        reason = first_line(error.__cause__ or error)
        if not foreign:
            raise unusable_metadata(path, reason) from None
        raise UserError(
            f"checkpoint={path}: cannot build {foreign[0]} ({reason}); install its package, or run the command in the "
            "folder of its file",
            kind="unavailable",
            key="allow",
            value=foreign[0],
        ) from None


def unusable_metadata(path: Path, reason: str) -> UserError:
    """Return the error of a checkpoint without usable metadata."""
    return UserError(
        f"checkpoint={path} has no usable metadata about its network, bands and normalisation ({reason}); give a "
        "checkpoint of sn6.run",
        kind="wrong_data",
        key="checkpoint",
        value=str(path),
    )


def is_own_network(target: str) -> bool:
    """Return whether a `_target_` is the class of a network of sn6; nothing else of sn6 may be called from a file."""
    module, _, name = target.rpartition(".")
    if not module.startswith("sn6.models."):
        return False
    try:
        network = getattr(import_module(module), name, None)
    except ImportError:
        return False
    return isinstance(network, type) and issubclass(network, nn.Module)


def load_networks(paths: Sequence[Path], allow: Sequence[str]) -> list[TrainedNetwork]:
    """Load networks of the same bands.

    Raises:
        UserError: their bands differ, and errors of `load_network`
    """
    networks = [load_network(path, allow) for path in paths]
    first = networks[0].source
    for path, trained in zip(paths, networks, strict=True):
        source = trained.source
        if (source.product, source.bands, source.orient) != (first.product, first.bands, first.orient):
            raise UserError(
                f"checkpoint={path} was trained on bands {list(source.bands)} of {source.product} "
                f"(orient={source.orient}), but {paths[0]} on bands {list(first.bands)} of {first.product} "
                f"(orient={first.orient}); average networks of the same bands only",
                kind="conflict",
                key="checkpoint",
                value=str(path),
            )
    return networks


def common_options(networks: Sequence[TrainedNetwork], **given: float | None) -> PolygonOptions:
    """Return the given options, and for those that are None the value that all networks share.

    Raises:
        UserError: the networks differ in an option that is not given
    """
    options: dict[str, float] = {}
    for name in (field.name for field in fields(PolygonOptions)):
        value = given[name]
        values = [getattr(trained.polygon_options, name) for trained in networks] if value is None else [value]
        if len(set(values)) > 1:
            raise UserError(
                f"the checkpoints have different values of {name}: {', '.join(map(str, values))}; give {name}=...",
                kind="conflict",
                key=name,
            )
        options[name] = values[0]
    return PolygonOptions(**options)


def window_and_overlap(window: int | None, overlap: int | None, network: TrainedNetwork) -> tuple[int, int]:
    """Return window and overlap in pixels: as given, else of the network's run, else the defaults.

    The default overlap of a given window is a quarter of it.

    Raises:
        UserError: the overlap is not less than the window
    """
    if window is None:
        window, default_overlap = network.window or (WINDOW, OVERLAP)
    else:
        default_overlap = window // 4
    overlap = default_overlap if overlap is None else overlap
    check_overlap(window, overlap)
    return window, overlap


def default_precision(device: str, network: TrainedNetwork) -> Precision:
    """Return the precision of the network's run if the device supports it, else 32-true."""
    return "32-true" if device == "cpu" and network.precision == "16-mixed" else network.precision
