"""TernausNet: U-Net on a VGG encoder. Iglovikov, Shvets 2018, arXiv:1801.05746."""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from sn6.models.encoders import Architecture, Pretrained, he_initialise, load_pretrained, vgg_features
from sn6.models.first_layer import BY_MEAN, FirstLayer
from sn6.models.padding import pad_to_multiple


class TernausNet(nn.Module):
    """Compute logits with VGG as the contracting path and five concatenated skips: figure 1 of the paper.

    With `vgg11` it is the paper's UNet11, whose decoder upsamples by transposed convolutions. With `vgg16` it is the
    authors' UNet16, whose decoder upsamples by bilinear interpolation. An image whose height or width is not a
    multiple of 32 is padded with zeros (nodata) below and right.

    Args:
        in_channels: bands of the image
        classes: channels of the logits
        width: filters of VGG's first convolution; the last decoder stage has half as many
        encoder: `vgg11` for UNet11, `vgg16` for UNet16
        pretrained: `imagenet` for the encoder's weights; null for He initialisation
        weights_file: `.safetensors` or `.pth` to read these weights from; null for the Hugging Face hub
        first_layer: how these weights are adapted to the bands

    Raises:
        UserError: pretrained weights that do not fit or could not be downloaded
    """

    head_parts: ClassVar = ("head",)  # their shapes depend on the classes
    architecture_keys: ClassVar = ("classes", "width", "encoder")  # options that fix the shapes of the weights

    def __init__(
        self,
        in_channels: PositiveInt = 4,
        classes: PositiveInt = 1,
        width: Annotated[int, Field(gt=0, multiple_of=2)] = 64,
        encoder: Architecture = "vgg11",
        pretrained: Pretrained = None,
        weights_file: str | None = None,
        first_layer: FirstLayer = BY_MEAN,
    ) -> None:
        super().__init__()
        w = width
        block, dec4 = (transposed_block, 2 * w) if encoder == "vgg11" else (interpolated_block, 4 * w)
        self.encoder = vgg_features(encoder, in_channels, width)
        self.center = block(8 * w, 8 * w, 4 * w)
        self.decoder = nn.ModuleList(
            [
                block(4 * w + 8 * w, 8 * w, 4 * w),  # dec5: center and conv5
                block(4 * w + 8 * w, 8 * w, dec4),  # dec4: dec5 and conv4
                block(dec4 + 4 * w, 4 * w, w),  # dec3: dec4 and conv3
                block(w + 2 * w, 2 * w, w // 2),  # dec2: dec3 and conv2
                convolution(w // 2 + w, w // 2),  # dec1: dec2 and conv1
            ]
        )
        self.head = nn.Conv2d(w // 2, classes, kernel_size=1)
        he_initialise(self)
        load_pretrained(encoder, {"features": self.encoder}, width, pretrained, weights_file, first_layer)

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
    """Build a 3×3 convolution and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel_size=3, padding=1), nn.ReLU(inplace=True))


def transposed_block(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    """Build a 3×3 convolution and a transposed one that doubles height and width, each followed by ReLU."""
    upsampling = nn.ConvTranspose2d(middle, outputs, kernel_size=3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(*convolution(inputs, middle), upsampling, nn.ReLU(inplace=True))


def interpolated_block(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    """Build a bilinear interpolation that doubles height and width, and two 3×3 convolutions, each followed by ReLU."""
    upsampling = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    return nn.Sequential(upsampling, *convolution(inputs, middle), *convolution(middle, outputs))
