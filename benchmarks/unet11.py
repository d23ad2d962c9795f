"""Define the network and the loss of the challenge baseline in plain torch, the peer of sn6's networks."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers


class UNet11(nn.Module):
    """UNet11 (Iglovikov, Shvets 2018) on torchvision's VGG-11, with parameters in the order of sn6's
    TernausNet.

    Args:
        in_channels: bands of the image, whose height and width are multiples of 32
        width: filters of the first convolution; VGG has 64
    """

    def __init__(self, in_channels: int = 4, width: int = 64) -> None:
        super().__init__()
        encoder = make_layers(cfgs["A"])  # VGG-11
        for index, layer in enumerate(encoder):
            if isinstance(layer, nn.Conv2d):
                inputs = layer.in_channels * width // 64 if index else in_channels
                encoder[index] = nn.Conv2d(inputs, layer.out_channels * width // 64, kernel_size=3, padding=1)
        self.encoder = encoder
        w = width
        sizes = ((8, 8, 4), (12, 8, 4), (12, 8, 2), (6, 4, 1), (3, 2, 0.5))  # inputs, middle, outputs in widths
        self.decoder = nn.ModuleList(decoder_block(int(i * w), int(m * w), int(o * w)) for i, m, o in sizes)
        self.last = nn.Conv2d(w + w // 2, w // 2, kernel_size=3, padding=1)
        self.head = nn.Conv2d(w // 2, 1, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for layer in self.encoder:
            if isinstance(layer, nn.MaxPool2d):
                skips.append(x)
            x = layer(x)
        for block in self.decoder:
            x = torch.cat([block(x), skips.pop()], dim=1)
        return self.head(F.relu(self.last(x)))


def decoder_block(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    """Return a convolution and an upsampling by 2."""
    upsampling = nn.ConvTranspose2d(middle, outputs, kernel_size=3, stride=2, padding=1, output_padding=1)
    convolution = nn.Conv2d(inputs, middle, kernel_size=3, padding=1)
    return nn.Sequential(convolution, nn.ReLU(inplace=True), upsampling, nn.ReLU(inplace=True))


def with_weights_of(network: nn.Module, width: int) -> UNet11:
    """Return a UNet11 on the device and with the weights of a TernausNet of the same width and four bands."""
    copy = UNet11(4, width)
    with torch.no_grad():
        for target, source in zip(copy.parameters(), network.parameters(), strict=True):
            target.copy_(source)
    return copy.to(next(network.parameters()).device)


@contextmanager
def without_tf32() -> Iterator[None]:
    """Compute float32 convolutions on a GPU in float32: by default they are in TF32, which rounds to 1e-3."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def baseline_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Compute the Dice loss over the whole batch + 10 · the focal loss with γ = 2."""
    p = torch.sigmoid(logits)
    dice = 1 - (2 * (p * mask).sum() + 1e-5) / (p.sum() + mask.sum() + 1e-5)
    entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    return dice + 10 * ((1 - torch.exp(-entropy)) ** 2 * entropy).mean()
