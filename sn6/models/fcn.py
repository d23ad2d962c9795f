"""Fully convolutional networks on VGG-16: Long, Shelhamer, Darrell, CVPR 2015."""

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from sn6.models.encoders import Pretrained, he_initialise, load_pretrained, vgg_features
from sn6.models.first_layer import BY_MEAN, FirstLayer

# Geometry of the published nets. The image is padded with 100 zeros on each side, 1 of them by conv1_1 itself,
# so that fc6, 7×7 without padding, has an output for images of any size. The remaining margin is cropped: at these
# offsets from pool4 and pool3, and at `FCN.offset` from the upsampled scores.
MARGIN = 99
SKIP_OFFSETS = (5, 9)


class FCN(nn.Module):
    """Compute the logits of FCN-32s, FCN-16s or FCN-8s: section 4 of the paper, figure 3.

    VGG-16 with fc6 and fc7 as convolutions; 1×1 convolutions compute scores from fc7 and from the skips. Each
    transposed convolution upsamples the scores to the next skip, where they are summed, and the last one to the size
    of the image. Upsampling is initialised to bilinear interpolation and learned; scores start at zero, as in the
    paper, so the first optimizer step changes the scores only and all layers have gradients after it.

    Args:
        in_channels: bands of the image
        classes: channels of the logits
        width: filters of the first convolution; all other layers scale with it as in VGG
        dropout: probability, after fc6 and after fc7
        pretrained: `imagenet` for VGG-16's weights, fc6 and fc7 included; null for He initialisation
        weights_file: `.safetensors` or `.pth` to read these weights from; null for the Hugging Face hub
        first_layer: how these weights are adapted to the bands

    Raises:
        UserError: pretrained weights that do not fit or could not be downloaded
    """

    head_parts: ClassVar = ("score", "skip_scores", "doublings", "upsampling")  # their shapes depend on the classes
    architecture_keys: ClassVar = ("classes", "width")  # options that fix the shapes of the weights
    skips: ClassVar[int]  # 0, 1 (pool4) or 2 (pool4, pool3)
    stride: ClassVar[int]  # pixels, of the last upsampling
    offset: ClassVar[int]  # pixels, of the image's corner in the upsampled scores

    def __init__(
        self,
        in_channels: PositiveInt = 4,
        classes: PositiveInt = 1,
        width: PositiveInt = 64,
        dropout: Annotated[float, Field(ge=0, le=1)] = 0.5,
        pretrained: Pretrained = None,
        weights_file: str | None = None,
        first_layer: FirstLayer = BY_MEAN,
    ) -> None:
        super().__init__()
        self.encoder = vgg_features("vgg16", in_channels, width)
        for layer in self.encoder:
            if isinstance(layer, nn.MaxPool2d):
                layer.ceil_mode = True
        self.fc6 = nn.Conv2d(8 * width, 64 * width, kernel_size=7)
        self.fc7 = nn.Conv2d(64 * width, 64 * width, kernel_size=1)
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Conv2d(64 * width, classes, kernel_size=1)
        skip_widths = (8 * width, 4 * width)[: self.skips]  # pool4, pool3
        self.skip_scores = nn.ModuleList(nn.Conv2d(w, classes, kernel_size=1) for w in skip_widths)
        self.doublings = nn.ModuleList(bilinear_upsampling(classes, 2) for _ in skip_widths)
        self.upsampling = bilinear_upsampling(classes, self.stride)

        for layer in (self.encoder, self.fc6, self.fc7):
            he_initialise(layer)
        for layer in (self.score, *self.skip_scores):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        vgg = {"features": self.encoder, "pre_logits.fc1": self.fc6, "pre_logits.fc2": self.fc7}
        load_pretrained("vgg16", vgg, width, pretrained, weights_file, first_layer)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes h w"]:
        x = F.pad(image, (MARGIN,) * 4)
        pools = []
        for layer in self.encoder:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                pools.append(x)
        x = self.dropout(F.relu(self.fc6(x)))
        x = self.dropout(F.relu(self.fc7(x)))
        scores = self.score(x)  # (b, classes, h/32, w/32) and a margin
        skips = zip(self.doublings, self.skip_scores, pools[3:1:-1], SKIP_OFFSETS, strict=False)
        for doubling, skip_score, pool, offset in skips:
            scores = doubling(scores)
            scores = scores + skip_score(crop(pool, offset, scores.shape))
        return crop(self.upsampling(scores), self.offset, image.shape)


class FCN32s(FCN):
    """Upsample the scores of fc7 32 times. Arguments, shapes and source: `FCN`."""

    skips, stride, offset = 0, 32, 19


class FCN16s(FCN):
    """Add the skip from pool4 and upsample 16 times. Arguments, shapes and source: `FCN`."""

    skips, stride, offset = 1, 16, 27


class FCN8s(FCN):
    """Add the skips from pool4 and pool3 and upsample 8 times. Arguments, shapes and source: `FCN`."""

    skips, stride, offset = 2, 8, 31


def bilinear_upsampling(classes: int, factor: int) -> nn.ConvTranspose2d:
    """Build a transposed convolution that is initialised to bilinear interpolation of each class (section 3.3)."""
    layer = nn.ConvTranspose2d(classes, classes, kernel_size=2 * factor, stride=factor, bias=False)
    tent = 1 - (torch.arange(2 * factor) - (factor - 0.5)).abs() / factor
    with torch.no_grad():
        layer.weight.zero_()
        for k in range(classes):
            layer.weight[k, k] = torch.outer(tent, tent)
    return layer


def crop(x: Float[Tensor, "b c h w"], offset: int, shape: torch.Size) -> Float[Tensor, "b c _ _"]:
    """Crop `x` to the height and width of `shape`, from `offset` on both axes."""
    height, width = shape[-2:]
    return x[..., offset : offset + height, offset : offset + width]
