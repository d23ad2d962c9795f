"""Load trained networks from their checkpoints, with the options of their runs."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sn6.checkpoints.architecture import build_network, foreign_targets, is_own_network, targets_in
from sn6.checkpoints.loading import build_on_meta, check_fits, read_checkpoint
from sn6.checkpoints.metadata import ForeignMetadata, Precision, unusable_metadata
from sn6.data.normalization import Nodata, Statistics
from sn6.data.source import Source
from sn6.errors import UserError, first_line
from sn6.footprints import PolygonOptions
from sn6.models.sliding_window import check_overlap

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
    if isinstance(metadata, ForeignMetadata):
        raise foreign_weights(path, metadata)
    check_allowed(metadata.network, path, allow)
    if foreign_targets(metadata.network):  # those of sn6 were compared when the file was read
        check_declared_size(metadata.network, weights, path)
    network = load_architecture(metadata.network, path)
    check_fits(network, weights, path, "checkpoint")
    network.load_state_dict(weights)
    return TrainedNetwork(
        network.eval(),
        metadata.multiple or 1,  # networks of older files pad by themselves
        metadata.building_class,
        metadata.to_source(),
        metadata.to_statistics(),
        metadata.nodata,
        metadata.to_polygon_options(),
        (metadata.window, metadata.window_overlap or 0) if metadata.window else None,
        metadata.precision or "32-true",
    )


def foreign_weights(path: Path, metadata: ForeignMetadata) -> UserError:
    """Return the error of weights of another program."""
    if metadata.format is None:
        return unusable_metadata(path, "checkpoint", "it is of another program")
    return UserError(
        f"checkpoint={path} contains weights of {metadata.format} without bands, normalisation and threshold; "
        f"`python -m sn6.run experiment=baseline_weights model.weights={path} data.root=DIR name=NAME` scores them "
        "and writes outputs/NAME, which checkpoint= accepts",
        kind="wrong_data",
        key="checkpoint",
        value=str(path),
    )


def check_allowed(options: dict[str, Any], path: Path, allow: Sequence[str]) -> None:
    """Raise a UserError unless the options of a checkpoint's network name only networks of sn6 and allowed classes."""
    if unknown := [
        target for target in targets_in(options) if target.startswith("sn6.") and not is_own_network(target)
    ]:
        raise unusable_metadata(path, "checkpoint", f"sn6 has no network {unknown[0]}")
    if refused := [target for target in foreign_targets(options) if target not in allow]:
        listed = refused[0] if len(refused) == 1 else f"[{','.join([*allow, *refused])}]"
        raise UserError(
            f"checkpoint={path} needs code that is not part of sn6; if you trust it, add allow={listed}",
            kind="missing_value",
            key="allow",
            value=refused,
        )


def check_declared_size(options: dict[str, Any], weights: dict[str, Tensor], path: Path) -> None:
    """Compare a network of another package with the tensors of its file before it asks for memory, where that works."""
    try:
        declared = build_on_meta(options)
    except Exception:  # a class that cannot be made without memory, or not at all: that is reported when it is made
        return
    check_fits(declared, weights, path, "checkpoint")


def load_architecture(options: dict[str, Any], path: Path) -> nn.Module:
    """Build the network that a checkpoint describes, without the pretrained weights that it was initialised with.

    Raises:
        UserError: it cannot be imported or built
    """
    try:
        return build_network(options, fetch_pretrained=False).to(memory_format=torch.channels_last)
    except Exception as error:  # of the network's own code
        reason, foreign = first_line(error.__cause__ or error), foreign_targets(options)
        if not foreign:
            raise unusable_metadata(path, "checkpoint", reason) from None
        raise UserError(
            f"checkpoint={path}: cannot build {foreign[0]} ({reason}); install its package, or run the command in the "
            "folder of its file",
            kind="unavailable",
            key="allow",
            value=foreign[0],
        ) from None


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
