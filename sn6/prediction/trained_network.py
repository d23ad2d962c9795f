"""Load a trained network from its checkpoint, with the options of its run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor, nn

from sn6.checkpoints.architecture import build_network, foreign_targets, is_own_network, targets_in
from sn6.checkpoints.heads import foreign_heads
from sn6.checkpoints.loading import build_on_meta, check_fits, read_checkpoint
from sn6.checkpoints.metadata import CheckpointMetadata, ForeignMetadata, Precision, unusable_metadata
from sn6.checkpoints.polygonizer import is_own_polygonizer, target_of
from sn6.checkpoints.weights_file import digest
from sn6.data.ground import Ground
from sn6.data.normalization import Nodata, Statistics, normalize
from sn6.data.source import Source
from sn6.errors import UserError, first_line
from sn6.footprints.polygonizer import Polygonizer
from sn6.heads import Heads
from sn6.models.logits import compute_outputs

HALF_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


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

    @property
    def digest(self) -> str:
        """Return the digest of the weights."""
        return digest(dict(self.network.state_dict()), "")

    def to(self, device: torch.device) -> None:
        """Move the network to a device."""
        self.network.to(device)

    def prepare(
        self, pixels: Sequence[Float32[np.ndarray, "c h w"]], valid: Sequence[Bool[np.ndarray, "h w"]]
    ) -> Float32[np.ndarray, "b c h w"]:
        """Return the input of `forward` for images of the same size.

        Args:
            pixels: bands of each image, in the units of the product
            valid: whether each pixel is valid
        """
        pairs = zip(pixels, valid, strict=True)
        images = [normalize(image, mask, self.statistics, self.nodata) for image, mask in pairs]
        return np.stack(images) if len(images) > 1 else images[0][None]

    def forward(self, image: Float32[Tensor, "b c h w"], precision: Precision) -> Float32[Tensor, "b k h w"]:
        """Return the outputs of all heads, before their activation, of what `prepare` has returned.

        Args:
            image: on the device of the network
            precision: of the forward pass
        """
        dtype = HALF_DTYPES.get(precision)
        with torch.autocast(image.device.type, dtype=dtype, enabled=dtype is not None):
            options = self.multiple, self.heads.channels, self.building_class
            return compute_outputs(self.network, image, *options).float()


def load_network(path: Path, allow: Sequence[str] = ()) -> TrainedNetwork:
    """Load a trained network from a checkpoint or `weights.safetensors`, without running code from the file.

    Args:
        path: the file
        allow: classes of other packages that it may name, such as "segmentation_models_pytorch.Unet"

    Raises:
        UserError: the file cannot be read, has no metadata about its network and data, or needs a class that is not
            allowed
    """
    return load_with_metadata(path, allow)[0]


def load_with_metadata(path: Path, allow: Sequence[str] = ()) -> tuple[TrainedNetwork, CheckpointMetadata]:
    """Load a trained network and the metadata of its file; arguments and errors of `load_network`."""
    weights, metadata = read_checkpoint(path, "checkpoint")
    if isinstance(metadata, ForeignMetadata):
        raise foreign_weights(path, metadata)
    check_networks_of_sn6(metadata, path)
    check_allowed([*foreign_targets(metadata.network), *foreign_classes(metadata)], path, allow)
    if foreign_targets(metadata.network):  # those of sn6 were compared when the file was read
        check_declared_size(metadata.network, weights, path)
    heads = load_heads(metadata, path)
    network = load_architecture(metadata.network, path)
    check_fits(network, weights, path, "checkpoint")
    network.load_state_dict(weights)
    trained = TrainedNetwork(
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
    return trained, metadata


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


def check_networks_of_sn6(metadata: CheckpointMetadata, path: Path) -> None:
    """Raise a UserError where a checkpoint names a network of sn6 that sn6 does not have."""
    targets = targets_in(metadata.network)
    if unknown := [one for one in targets if one.startswith("sn6.") and not is_own_network(one)]:
        raise unusable_metadata(path, "checkpoint", f"sn6 has no network {unknown[0]}")


def foreign_classes(metadata: CheckpointMetadata) -> list[str]:
    """Return the heads and the polygonizer of a checkpoint that are not part of sn6."""
    polygons = metadata.footprints
    return [*foreign_heads(metadata.heads), *([] if is_own_polygonizer(polygons) else [target_of(polygons)])]


def check_allowed(foreign: Sequence[str], path: Path, allow: Sequence[str]) -> None:
    """Raise a UserError unless the classes of other packages that a file names are allowed."""
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
