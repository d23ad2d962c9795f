"""Load trained networks from their checkpoints, with the options of their runs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

from sn6.checkpoints.architecture import build_network, foreign_targets, is_own_network, targets_in
from sn6.checkpoints.folds_file import Folds, read_folds
from sn6.checkpoints.heads import foreign_heads
from sn6.checkpoints.loading import build_on_meta, check_fits, find_weights, read_checkpoint
from sn6.checkpoints.metadata import CheckpointMetadata, ForeignMetadata, Precision, unusable_metadata
from sn6.checkpoints.polygonizer import is_own_polygonizer, target_of
from sn6.checkpoints.run_files import FINAL_WEIGHTS
from sn6.checkpoints.weights_file import digest
from sn6.data.ground import Ground
from sn6.data.normalization import Nodata, Statistics
from sn6.data.source import Source
from sn6.errors import UserError, first_line
from sn6.footprints.polygonizer import Polygonizer
from sn6.heads import Heads
from sn6.models.sliding_window import check_overlap
from sn6.precision import computes_in_bfloat16

# Default window and overlap in pixels. A pixel changes the logits of a U-Net up to 107 pixels away, of a TernausNet
# 184 (with VGG-16: 215), of an FCN or a ResUNet 245; encoders with attention see the whole window.
WINDOW, OVERLAP = 1024, 256


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network and how to use it.

    Attributes:
        network: see `sn6.models.logits.compute_outputs`
        heads: maps in its channels
        multiple: pixels; images are padded to multiples of it
        building_class: channel of building among several classes, None for one class
        source: product and bands of its input
        statistics: mean and standard deviation of its normalisation
        nodata: value of nodata pixels after normalisation
        polygonizer: from maps to footprints
        window: edge length and overlap of the windows of its run in pixels; None if it predicted whole tiles
        flips: whether its run averaged the outputs with those of flipped tiles
        precision: precision of its run
        training_area: squares of its training tiles; None or no squares where they are not known
    """

    network: nn.Module
    heads: Heads
    multiple: int
    building_class: int | None
    source: Source
    statistics: Statistics
    nodata: Nodata
    polygonizer: Polygonizer
    window: tuple[int, int] | None
    flips: bool
    precision: Precision
    training_area: Ground | None = None


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
    check_allowed(metadata, path, allow)
    if foreign_targets(metadata.network):  # those of sn6 were compared when the file was read
        check_declared_size(metadata.network, weights, path)
    heads = load_heads(metadata, path)
    network = load_architecture(metadata.network, path)
    check_fits(network, weights, path, "checkpoint")
    network.load_state_dict(weights)
    return TrainedNetwork(
        network.eval(),
        heads,
        metadata.multiple or 1,  # networks of older files pad by themselves
        metadata.building_class,
        metadata.to_source(),
        metadata.to_statistics(),
        metadata.nodata,
        load_polygonizer(metadata, path),
        (metadata.window, metadata.window_overlap or 0) if metadata.window else None,
        metadata.flips,
        metadata.precision or "32-true",
        metadata.to_training_area(),
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


def check_allowed(metadata: CheckpointMetadata, path: Path, allow: Sequence[str]) -> None:
    """Raise a UserError unless a checkpoint names only networks, heads and polygonizers of sn6 and allowed classes."""
    options, polygons = metadata.network, metadata.footprints
    foreign = [*foreign_targets(options), *foreign_heads(metadata.heads)]
    foreign += [] if is_own_polygonizer(polygons) else [target_of(polygons)]
    if unknown := [
        target for target in targets_in(options) if target.startswith("sn6.") and not is_own_network(target)
    ]:
        raise unusable_metadata(path, "checkpoint", f"sn6 has no network {unknown[0]}")
    if refused := [target for target in foreign if target not in allow]:
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


def find_checkpoints(paths: Sequence[Path]) -> tuple[tuple[Path, ...], Folds | None]:
    """Return the files of weights, and the folds where the path is the folder of runs that sn6.score runs= has scored.

    Args:
        paths: of runs or weights, at least one

    Raises:
        UserError: there are no weights, and errors of `read_folds`
    """
    folds = read_folds(paths[0]) if len(paths) == 1 else None
    return folds.checkpoints if folds else tuple(
        find_weights(path, "checkpoint", FINAL_WEIGHTS) for path in paths
    ), folds


def load_networks(paths: Sequence[Path], allow: Sequence[str]) -> list[TrainedNetwork]:
    """Load networks of the same bands and heads.

    Raises:
        UserError: their bands or heads differ, and errors of `load_network`
    """
    networks = [load_network(path, allow) for path in paths]
    first = networks[0].source
    for path, trained in zip(paths, networks, strict=True):
        source = trained.source
        if (source.product, source.bands, source.orient) != (first.product, first.bands, first.orient):
            raise UserError(
                f"checkpoint={path} was trained on bands {list(source.bands)} of {source.product.name} "
                f"(orient={source.orient}), but {paths[0]} on bands {list(first.bands)} of {first.product.name} "
                f"(orient={first.orient}); average networks of the same bands only",
                kind="conflict",
                key="checkpoint",
                value=str(path),
            )
        if trained.heads != networks[0].heads:
            raise UserError(
                f"checkpoint={path} has the heads {', '.join(trained.heads)}, but {paths[0]} has "
                f"{', '.join(networks[0].heads)}, or other fields of their targets; average networks of the same heads "
                "only",
                kind="conflict",
                key="checkpoint",
                value=str(path),
            )
    return networks


def model_id(networks: Sequence[TrainedNetwork]) -> str:
    """Return 12 hexadecimal digits that identify the weights of networks, whatever file they were loaded from."""
    digests = [digest(dict(trained.network.state_dict()), "") for trained in networks]
    return sha256(" ".join(digests).encode()).hexdigest()[:12]


def load_heads(metadata: CheckpointMetadata, path: Path) -> Heads:
    """Return the heads of a checkpoint.

    Raises:
        UserError: a target is of another package and cannot be imported or built
    """
    try:
        return metadata.to_heads()
    except ValueError as error:
        raise unusable_metadata(path, "checkpoint", str(error)) from None


def load_polygonizer(metadata: CheckpointMetadata, path: Path) -> Polygonizer:
    """Return the polygonizer of a checkpoint.

    Raises:
        UserError: it is of another package and cannot be imported or built
    """
    try:
        return metadata.to_polygonizer()
    except Exception as error:  # of another package's own code; those of sn6 were built when the file was read
        target = target_of(metadata.footprints)
        raise UserError(
            f"checkpoint={path}: cannot build {target} ({first_line(error)}); install its package, or run the command "
            "in the folder of its file",
            kind="unavailable",
            key="allow",
            value=target,
        ) from None


def common_polygonizer(networks: Sequence[TrainedNetwork], **given: float | None) -> Polygonizer:
    """Return the polygonizer of all networks, with the fields that are given.

    A calibrated field, such as the threshold, is otherwise the mean over the networks: each run chose its own.

    Raises:
        UserError: the networks have different polygonizers, or differ in a field that no calibration changes
    """
    first, *others = [trained.polygonizer for trained in networks]
    options = {name: value for name, value in given.items() if value is not None}
    for other in others:
        if type(other) is not type(first):
            names = f"{type(first).__name__} and {type(other).__name__}"
            raise UserError(
                f"the checkpoints have different polygonizers: {names}; average networks that share one",
                kind="conflict",
                key="checkpoint",
            )
    for name in (name for name in asdict(first) if name not in options):
        values = [getattr(trained.polygonizer, name) for trained in networks]
        if len(set(values)) == 1:
            continue
        if name not in {**first.candidates, **first.refinements}:
            advice = f"give {name}=..." if name in given else "average networks that share it"
            raise UserError(
                f"the checkpoints have different values of {name}: {', '.join(map(str, values))}; {advice}",
                kind="conflict",
                key=name,
            )
        options[name] = mean(values)
    return replace(first, **options)


def averaged_point(networks: Sequence[TrainedNetwork], polygonizer: Polygonizer) -> str | None:
    """Return a line about the operating point of networks whose calibrations chose different ones; None for others."""
    points = list(dict.fromkeys(str(trained.polygonizer) for trained in networks))
    if len(points) == 1:
        return None
    return f"operating point: {polygonizer}; the checkpoints have {' and '.join(points)}"


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
    """Return the precision of the network's run if the device computes in it, else 32-true."""
    native = {"32-true": True, "16-mixed": device != "cpu", "bf16-mixed": computes_in_bfloat16(device)}
    return network.precision if native[network.precision] else "32-true"
