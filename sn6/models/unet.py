"""U-Net: Ronneberger, Fischer, Brox, MICCAI 2015."""

from functools import partial
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from sn6.models.encoders import he_initialise
from sn6.models.padding import pad_to_multiple


class UNet(nn.Module):
    """Compute logits by a contracting and an expanding path with one concatenated skip per level: figure 1.

    Args:
        in_channels: bands of the image
        classes: channels of the logits
        width: filters of the first level, doubled at each level below
        depth: number of poolings and of skips
        batch_norm: add batch norm after each 3×3 convolution, unlike the paper
        padded: pad each 3×3 convolution with zeros, and the image with zeros (nodata) below and right to multiples of
            2^`depth`. If false, convolutions are unpadded as in the paper, and the image is extended by mirroring
            (section 2, overlap-tile strategy): no logit depends on padding zeros, but each side needs a margin of
            92 pixels (depth 4).
        dropout: probability after the last two levels of the contracting path (section 3.1)
        pretrained: always None, as no ImageNet weights exist for this network
    """

    head_parts: ClassVar = ("head",)  # their shapes depend on the classes
    # options that fix the shapes of the weights
    architecture_keys: ClassVar = ("classes", "width", "depth", "batch_norm", "padded")

    def __init__(
        self,
        in_channels: PositiveInt = 4,
        classes: PositiveInt = 1,
        width: PositiveInt = 64,
        depth: Annotated[int, Field(gt=0, le=10)] = 4,
        batch_norm: bool = False,
        padded: bool = True,
        dropout: Annotated[float, Field(ge=0, le=1)] = 0.0,
        pretrained: None = None,
    ) -> None:
        super().__init__()
        self.depth = depth
        self.padded = padded
        block = partial(double_convolution, batch_norm=batch_norm, padded=padded)
        widths = [width * 2**level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(map(block, [in_channels, *widths[:-1]], widths))  # the contracting path
        upward = widths[-2::-1]
        self.up_convolutions = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in upward)
        self.expanding = nn.ModuleList(block(2 * w, w) for w in upward)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Conv2d(width, classes, kernel_size=1)
        he_initialise(self)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes h w"]:
        height, width = image.shape[-2:]
        x = pad_to_multiple(image, 2**self.depth) if self.padded else mirror_for_valid(image, self.depth)
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            if level >= self.depth - 1:
                x = self.dropout(x)
            skips.append(x)
        x = skips.pop()
        for up, block in zip(self.up_convolutions, self.expanding, strict=True):
            x = up(x)
            x = block(torch.cat([centre_crop(skips.pop(), x.shape), x], dim=1))
        return self.head(x)[..., :height, :width]


def double_convolution(inputs: int, outputs: int, batch_norm: bool, padded: bool) -> nn.Sequential:
    """Build two 3×3 convolutions, each followed by ReLU, with batch norm in between if `batch_norm`."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers.append(nn.Conv2d(channels, outputs, 3, padding=int(padded), bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def mirror_for_valid(image: Float[Tensor, "b c h w"], depth: int) -> Float[Tensor, "b c _ _"]:
    """Extend `image` by mirroring, so that the logits of the unpadded network cover all of it, from its corner.

    An unpadded network of depth d, with every pooling on even sizes, returns heights and widths of 4 plus a multiple
    of 2^d and loses 6·2^d - 4 pixels on each side (92 for the paper's d = 4: 572 in, 388 out).
    """
    margin = 6 * 2**depth - 4
    rows, columns = (mirrored(size, margin, margin + (4 - size) % 2**depth, image.device) for size in image.shape[-2:])
    return image.index_select(2, rows).index_select(3, columns)


def mirrored(size: int, before: int, after: int, device: torch.device) -> Tensor:
    """Return the indices 0..size-1 with `before` and `after` mirrored ones around them, the border not repeated.

    >>> mirrored(3, 3, 4, torch.device("cpu")).tolist()
    [1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
    """
    period = max(2 * (size - 1), 1)
    phase = torch.arange(-before, size + after, device=device) % period
    return torch.minimum(phase, period - phase)


def centre_crop(x: Float[Tensor, "b c h w"], shape: torch.Size) -> Float[Tensor, "b c _ _"]:
    """Crop the centre of `x` to the height and width of `shape`."""
    height, width = shape[-2:]
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]
