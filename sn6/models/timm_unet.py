"""A U-Net decoder on any encoder of timm."""

import math
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from sn6.errors import UserError
from sn6.models.encoders import he_initialise
from sn6.models.first_layer import BY_MEAN, FirstLayer
from sn6.models.padding import pad_to_multiple
from sn6.models.timm_encoder import TimmEncoder, first_layers
from sn6.models.timm_weights import load_pretrained

Norm = Literal["none", "batch", "group"]
WIDTH, LEAST_WIDTH = 256, 16  # filters of the decoder's first and last levels, halved from level to level
GROUP = 16  # channels of a group


class TimmUNet(nn.Module):
    """Compute logits by an encoder of timm and the expanding path of U-Net (Ronneberger, Fischer, Brox 2015).

    Each level of the decoder doubles height and width by nearest-neighbour upsampling, concatenates the encoder's map
    of this size, if it has one, and applies two 3×3 convolutions, each followed by a norm and ReLU. An image is padded
    with zeros (nodata) below and right to the multiple that the encoder needs, mostly 32.

    Args:
        in_channels: bands of the image
        classes: channels of the logits
        encoder: timm's name of the encoder
        widths: filters of the decoder's levels, from the smallest map upwards; null is 256, halved at each level
        norm: after each 3×3 convolution of the decoder; `group` has 16 channels a group (Wu, He 2018)
        half_size_head: the decoder ends at half the image's size, and the head moves channels to 2×2 pixels
            (Shi et al. 2016, equation 4), which needs about half the memory of a decoder of full size
        pretrained: `imagenet` for the weights that timm takes by default, or a tag of timm's; null for random ones
        weights_file: `.safetensors` or `.pth` to read these weights from; null for the Hugging Face hub
        first_layer: how these weights are adapted to the bands

    Raises:
        UserError: an encoder that does not exist or has no feature maps, weights that do not fit or could not be
            downloaded, or a wrong number of widths
    """

    head_parts: ClassVar = ("head",)  # their shapes depend on the classes
    # options that fix the shapes of the weights
    architecture_keys: ClassVar = ("classes", "encoder", "widths", "norm", "half_size_head")

    def __init__(
        self,
        in_channels: PositiveInt = 4,
        classes: PositiveInt = 1,
        encoder: str = "resnet34",
        widths: Annotated[list[PositiveInt], Field(min_length=1, max_length=8)] | None = None,
        norm: Norm = "batch",
        half_size_head: bool = False,
        pretrained: str | None = None,
        weights_file: str | None = None,
        first_layer: FirstLayer = BY_MEAN,
    ) -> None:
        super().__init__()
        self.encoder = TimmEncoder(encoder, in_channels)
        shape, last = self.encoder.shape, 2 if half_size_head else 1
        self.half_size_head = half_size_head
        self.multiple = math.lcm(shape.multiple, last)
        self.strides = decoder_strides(shape.strides[-1], last)
        widths = list(widths or (max(WIDTH >> level, LEAST_WIDTH) for level in range(len(self.strides))))
        check_widths(widths, self.strides)
        skips = dict(zip(shape.strides[:-1], shape.channels, strict=False))
        below = [shape.channels[-1], *widths]
        self.decoder = nn.ModuleList(
            decoder_block(inputs + skips.get(stride, 0), outputs, norm)
            for (inputs, outputs), stride in zip(pairwise(below), self.strides, strict=True)
        )
        self.head = nn.Conv2d(widths[-1], classes * last**2, 3, padding=1)
        he_initialise(self.decoder)
        he_initialise(self.head)
        self.first_layers = [f"encoder.{key}" for key in first_layers(self.encoder, encoder)]
        load_pretrained(self.encoder, encoder, pretrained, weights_file, first_layer)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes h w"]:
        height, width = image.shape[-2:]
        image = pad_to_multiple(image, self.multiple)
        *maps, x = self.encoder(image)
        skips = dict(zip(self.encoder.shape.strides, maps, strict=False))
        for stride, block in zip(self.strides, self.decoder, strict=True):
            x = F.interpolate(x, size=[-(-side // stride) for side in image.shape[-2:]], mode="nearest")
            x = block(torch.cat([x, skips[stride]], dim=1) if stride in skips else x)
        logits = self.head(x)  # (b, classes, h, w), or (b, 4·classes, h/2, w/2)
        if self.half_size_head:
            logits = F.pixel_shuffle(logits, 2)
        return logits[..., :height, :width]


def decoder_strides(deepest: int, last: int) -> list[int]:
    """Return the strides of the decoder's levels: the powers of two below that of the smallest map, down to `last`.

    >>> decoder_strides(32, 1), decoder_strides(14, 2)
    ([16, 8, 4, 2, 1], [8, 4, 2])
    """
    strides = [1 << level for level in reversed(range(deepest.bit_length())) if last <= 1 << level < deepest]
    return strides or [last]


def check_widths(widths: list[int], strides: list[int]) -> None:
    """Raise a UserError unless there is a width for each level of the decoder."""
    if len(widths) != len(strides):
        levels = ", ".join(f"1/{stride}" for stride in strides)
        raise UserError(
            f"model.widths={widths} has {len(widths)} numbers, but the decoder has {len(strides)} levels, at {levels} "
            "of the image's size; give a number for each",
            kind="conflict",
            key="model.widths",
            value=widths,
        )


def decoder_block(inputs: int, outputs: int, norm: Norm) -> nn.Sequential:
    """Build two 3×3 convolutions, each followed by a norm and ReLU."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers.append(nn.Conv2d(channels, outputs, 3, padding=1, bias=norm == "none"))
        if norm == "batch":
            layers.append(nn.BatchNorm2d(outputs))
        if norm == "group":
            layers.append(nn.GroupNorm(outputs // GROUP if outputs % GROUP == 0 else 1, outputs))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
