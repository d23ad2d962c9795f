"""Build the encoders of timm: networks that return feature maps of falling size."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sn6.errors import UserError, first_line

# How timm's families say that images may have another size than in their training.
ANY_SIZE: tuple[dict[str, bool], ...] = ({}, {"strict_img_size": False}, {"dynamic_img_size": True})
PROBE = 256  # pixels: least edge length of the image that an encoder is tried on, without memory or arithmetic
LIST = "list"  # in place of an encoder's name: print what there is


@dataclass(frozen=True)
class EncoderShape:
    """What an encoder returns.

    Attributes:
        options: arguments of `timm.create_model` with which it takes images of any size
        strides: pixels of the image in one of each feature map, growing
        channels: of each feature map
        channels_last: whether its maps are (b, h, w, c)
        multiple: pixels; images have to be padded to multiples of it
        parameters: number of its parameters
    """

    options: dict[str, bool]
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    channels_last: bool
    multiple: int
    parameters: int


class TimmEncoder(nn.Module):
    """Compute the feature maps of an encoder of timm, one for each stride: the deepest where there are several.

    Args:
        name: of timm, without a tag of weights
        in_channels: bands of the image

    Raises:
        UserError: there is no such encoder, or it has no feature maps for images of any size
    """

    def __init__(self, name: str, in_channels: int) -> None:
        super().__init__()
        check_name(name)
        self.shape = encoder_shape(name, in_channels)
        self.network = create(name, in_channels, self.shape.options)
        self.reductions = reductions_of(self.network)

    def forward(self, image: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return the maps by growing stride; the sides of `image` are multiples of `self.shape.multiple`."""
        maps = self.network(image)
        if self.shape.channels_last:
            maps = [features.permute(0, 3, 1, 2) for features in maps]
        by_stride = dict(zip(self.reductions, maps, strict=True))
        return [by_stride[stride] for stride in self.shape.strides]


def joined_name(key: str) -> str:
    """Return the name of a tensor without its dots and the parts that an encoder adds.

    timm writes the modules of an encoder as `stages_0` where the whole network has `stages.0`.
    """
    return key.removeprefix("network.").removeprefix("model.").replace(".", "_")


def first_layers(encoder: nn.Module, name: str) -> list[str]:
    """Return the names of the encoder's weights that are applied to the image: of one layer, or of parallel ones."""
    from timm.models import get_pretrained_cfg

    layers: Any = getattr(get_pretrained_cfg(name), "first_conv", None) or ()
    joined = {joined_name(f"{layer}.weight") for layer in ((layers,) if isinstance(layers, str) else layers)}
    return [key for key in encoder.state_dict() if joined_name(key) in joined]


def create(name: str, in_channels: int, options: dict[str, bool]) -> nn.Module:
    """Make the network of timm that returns a list of feature maps, initialised at random."""
    import timm  # takes seconds; other networks do not need it

    arguments: dict[str, Any] = {"features_only": True, "in_chans": in_channels, **options}
    try:
        return timm.create_model(name, **arguments)
    except NotImplementedError:  # timm before 1.0.30 computes with values while it builds some networks
        if torch.get_default_device().type != "meta":
            raise
        with torch.device("cpu"):
            return timm.create_model(name, **arguments).to("meta")


@cache
def encoder_shape(name: str, in_channels: int) -> EncoderShape:
    """Return what an encoder returns, tried on an image without memory or arithmetic.

    Raises:
        UserError: it has no feature maps, or takes images of one size only
    """
    reasons = []
    with torch.device("meta"), torch.random.fork_rng(devices=[]), torch.inference_mode():
        for options in ANY_SIZE:
            try:
                network = create(name, in_channels, options).eval()
            except Exception as error:  # each family of timm refuses arguments in its own way
                reasons.append(first_line(error))
                continue
            try:
                return shape_of(network, in_channels, options, side_of(name))
            except Exception as error:
                reasons.append(first_line(error))
    raise UserError(
        f"model.encoder={name} has no feature maps for images of any size ({reasons[0]}); "
        f"model.encoder={LIST}:PATTERN lists encoders that have",
        kind="conflict",
        key="model.encoder",
        value=name,
    )


def shape_of(network: nn.Module, in_channels: int, options: dict[str, bool], side: int) -> EncoderShape:
    """Try a network on the meta device, with images whose sides are multiples of its last stride or of `side`.

    Raises:
        Exception: it takes neither
    """
    info: Any = network.feature_info
    reductions, channels = reductions_of(network), list(info.channels())
    deepest = max(reductions)
    for multiple in dict.fromkeys((deepest, side)):
        number = max(1, PROBE // multiple)
        height, width = number * multiple, (number + 1) * multiple
        try:
            sizes = [tuple(features.shape[1:]) for features in network(torch.empty(1, in_channels, height, width))]
        except Exception:
            if multiple == side:
                raise
            continue
        exact = [(height // stride, width // stride) for stride in reductions]
        for channels_last in (False, True):
            if sizes == [(*size, c) if channels_last else (c, *size) for size, c in zip(exact, channels, strict=True)]:
                by_stride = dict(sorted(dict(zip(reductions, channels, strict=True)).items()))
                count = sum(parameter.numel() for parameter in network.parameters())
                return EncoderShape(
                    options, tuple(by_stride), tuple(by_stride.values()), channels_last, multiple, count
                )
    raise ValueError(f"its maps of an image of {height}×{width} pixels have other sizes than {exact}")


def reductions_of(network: Any) -> list[int]:
    """Return the strides of the maps in the order in which a network of timm returns them."""
    return [int(stride) for stride in network.feature_info.reduction()]


def side_of(name: str) -> int:
    """Return the edge length in pixels of the images that an encoder was made for."""
    from timm.models import get_pretrained_cfg

    cfg = get_pretrained_cfg(name)
    return cfg.input_size[-1] if cfg is not None else 224


def check_name(name: str) -> None:
    """Raise a UserError if timm has no such encoder, or if the name says which weights it starts from."""
    import timm
    from timm.models import get_deprecated_models

    current = get_deprecated_models().get(name) or name
    encoder, _, tag = current.partition(".")
    if encoder == name and timm.is_model(name):
        return
    if timm.is_model(encoder):
        raise UserError(
            f"model.encoder={name} names the weights too; set model.encoder={encoder} model.pretrained={tag}",
            kind="unknown_value",
            key="model.encoder",
            value=name,
        )
    near = difflib.get_close_matches(name, timm.list_models(), n=3)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    raise UserError(
        f"timm has no model.encoder={name}; {meant}model.encoder={LIST}:PATTERN lists what there is",
        kind="unknown_value",
        key="model.encoder",
        value=name,
    )


def matching_encoders(pattern: str) -> list[str]:
    """Return the names of timm's networks that fit `pattern`: with `*` and `?`, or without them a part of the name.

    Raises:
        UserError: no name fits
    """
    import timm

    names = timm.list_models(pattern if set(pattern) & set("*?") else f"*{pattern}*")
    if not names:
        raise UserError(
            f"model.encoder={LIST}:{pattern} fits no encoder of timm; try a part of a name, such as {LIST}:resnet",
            kind="unknown_value",
            key="model.encoder",
            value=f"{LIST}:{pattern}",
        )
    return names


def encoder_lines(names: Iterable[str]) -> Iterator[str]:
    """Yield a line for each of these that has feature maps: name, parameters, sizes of the maps, tags of weights."""
    import timm

    for name in names:
        try:
            shape = encoder_shape(name, 3)
        except UserError:
            continue
        tags = ", ".join(full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*"))
        sizes = " ".join(f"1/{stride}" for stride in shape.strides)
        yield f"{name:<40} {shape.parameters:>12,}  {sizes:<18} {tags}".rstrip()
