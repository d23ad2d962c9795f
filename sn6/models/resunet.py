"""ResUNet: a U-Net of residual blocks at half resolution."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from sn6.models.encoders import he_initialise
from sn6.models.padding import pad_to_multiple
from sn6.models.unet import double_convolution

WIDTHS = (1, 2, 4, 6, 8)  # filters of the levels, at 1/2 to 1/32 of the image's size, in units of `width`
BLOCKS = (1, 2, 2, 2, 1)  # residual blocks of the levels
DECODER = (4, 3, 2, 1)  # filters of the decoder's levels, at 1/16 to 1/2


class ResUNet(nn.Module):
    """Compute logits by a U-Net whose contracting path consists of residual blocks, all of it at half resolution.

    The contracting path is that of a residual network (He et al. 2016, arXiv:1512.03385, figures 2 and 3), the
    expanding path with its concatenated skips that of U-Net (Ronneberger, Fischer, Brox 2015), with nearest-neighbour
    upsampling. The image is halved by moving 2×2 pixels to channels, and the logits are doubled by moving channels to
    2×2 pixels (Shi et al. 2016, arXiv:1609.05158, equation 4), which takes a quarter of the time of a network at full
    resolution. An image whose height or width is not a multiple of 32 is padded with zeros (nodata) below and right.

    Args:
        in_channels: bands of the image
        classes: channels of the logits
        width: filters of the first level; the other levels have 2, 4, 6 and 8 times as many
        pretrained: always None, as no ImageNet weights exist for this network
    """

    head_parts: ClassVar = ("head",)  # their shapes depend on the classes
    architecture_keys: ClassVar = ("classes", "width")  # options that fix the shapes of the weights

    def __init__(
        self, in_channels: PositiveInt = 4, classes: PositiveInt = 1, width: PositiveInt = 32, pretrained: None = None
    ) -> None:
        super().__init__()
        widths = [width * factor for factor in WIDTHS]
        upward = [width * factor for factor in DECODER]
        levels = [nn.Sequential(pixels_to_channels(in_channels, width), residual_blocks(width, width, 1, BLOCKS[0]))]
        for inputs, outputs, blocks in zip(widths, widths[1:], BLOCKS[1:], strict=False):
            levels.append(residual_blocks(inputs, outputs, 2, blocks))
        self.encoder = nn.ModuleList(levels)
        joined = [below + skip for below, skip in zip([widths[-1], *upward], widths[-2::-1], strict=False)]
        self.decoder = nn.ModuleList(double_convolution(i, o, True, True) for i, o in zip(joined, upward, strict=True))
        self.head = nn.Conv2d(width, 4 * classes, 3, padding=1)
        he_initialise(self)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes h w"]:
        height, width = image.shape[-2:]
        x = pad_to_multiple(image, 32)
        skips = []
        for level in self.encoder:
            x = level(x)
            skips.append(x)
        x = skips.pop()  # (b, 8·width, h/32, w/32)
        for block in self.decoder:
            x = block(torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skips.pop()], dim=1))
        return F.pixel_shuffle(self.head(x), 2)[..., :height, :width]


class ResidualBlock(nn.Module):
    """Add two 3×3 convolutions with batch norm to their input: He et al. 2016, equation 1 and figure 2.

    Where the size or the number of channels changes, the input passes a 1×1 convolution (equation 2, option B).

    Args:
        inputs: channels of the input
        outputs: channels of the output
        stride: of the first convolution, 2 halves height and width
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.stride = stride
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Float[Tensor, "b inputs h w"]) -> Float[Tensor, "b outputs _ _"]:
        # The pixels are taken here and not by the stride of the 1×1 convolution, which is the same: the gradient of
        # that with 4 channels, channels last, crashes in torch 2.14 on CPUs without AVX-512.
        return F.relu(self.residual(x) + self.shortcut(x[..., :: self.stride, :: self.stride]))


def residual_blocks(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
    """Build the residual blocks of a level, of which the first one changes size and channels."""
    further = (ResidualBlock(outputs, outputs, 1) for _ in range(blocks - 1))
    return nn.Sequential(ResidualBlock(inputs, outputs, stride), *further)


def pixels_to_channels(bands: int, outputs: int) -> nn.Sequential:
    """Build a 3×3 convolution, with batch norm and ReLU, of the image whose 2×2 pixels are moved to channels.

    It is written as a 6×6 convolution of stride 2 of the image, which computes the same; so it has an input channel for
    each band, and can be adapted to other bands like the first layer of any network.
    """
    convolution = nn.Conv2d(bands, outputs, 6, stride=2, padding=2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
