"""TernausNet: U-Net on a VGG-11 encoder. Iglovikov, Shvets 2018, arXiv:1801.05746."""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from sn6.models.unet import pad_to_multiple
from sn6.models.weights import Pretrained, he_initialise, load_pretrained, vgg_features


class TernausNet(nn.Module):
    """VGG-11 as the contracting path, five concatenated skips: figure 1 of the paper, UNet11.

    An image whose sides are no multiples of 32 gets zeros (nodata) below and right.

    Args:
        in_channels: bands of the image
        classes: channels of the logits
        width: filters of VGG's first convolution; the last decoder stage has half as many
        pretrained: `imagenet` for the encoder's weights; null for He initialisation
        weights_file: `.safetensors` or `.pth` to read these weights from; null for the Hugging Face hub

    Raises:
        UserError: pretrained weights that do not fit or cannot be had
    """

    head_parts: ClassVar = ("head",)  # the modules whose shapes are of the classes

    def __init__(
        self,
        in_channels: PositiveInt = 4,
        classes: PositiveInt = 1,
        width: Annotated[int, Field(gt=0, multiple_of=2)] = 64,
        pretrained: Pretrained = None,
        weights_file: str | None = None,
    ) -> None:
        super().__init__()
        w = width
        self.encoder = vgg_features("vgg11", in_channels, width)
        self.center = decoder_block(8 * w, 8 * w, 4 * w)
        self.decoder = nn.ModuleList(
            [
                decoder_block(4 * w + 8 * w, 8 * w, 4 * w),  # dec5: center and conv5
                decoder_block(4 * w + 8 * w, 8 * w, 2 * w),  # dec4: dec5 and conv4
                decoder_block(2 * w + 4 * w, 4 * w, w),  # dec3: dec4 and conv3
                decoder_block(w + 2 * w, 2 * w, w // 2),  # dec2: dec3 and conv2
                convolution(w // 2 + w, w // 2),  # dec1: dec2 and conv1
            ]
        )
        self.head = nn.Conv2d(w // 2, classes, kernel_size=1)
        he_initialise(self)
        load_pretrained("vgg11", {"features": self.encoder}, width, pretrained, weights_file)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes h w"]:
        height, width = image.shape[-2:]
        x = pad_to_multiple(image, 32)
        skips = []
        for layer in self.encoder:
            if isinstance(layer, nn.MaxPool2d):
                skips.append(x)
            x = layer(x)
        x = self.center(x)
        for block in self.decoder:
            x = block(torch.cat([x, skips.pop()], dim=1))
        return self.head(x)[..., :height, :width]


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    """A 3×3 convolution and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel_size=3, padding=1), nn.ReLU(inplace=True))


def decoder_block(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    """A 3×3 convolution, then a transposed one that doubles height and width; ReLU after both."""
    doubling = nn.ConvTranspose2d(middle, outputs, kernel_size=3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(*convolution(inputs, middle), doubling, nn.ReLU(inplace=True))
