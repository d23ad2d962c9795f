"""Adapt the first layer of given weights to the bands of another image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sn6.errors import UserError

Adapt = Literal["mean", "repeat", "names"]
RGB = ("R", "G", "B")  # bands of the images of ImageNet


@dataclass(frozen=True)
class FirstLayer:
    """How the first layer of ImageNet weights is adapted to the image of a run.

    Attributes:
        adapt: the rule, see `adapt_first_layer`
        bands: names of the image's bands; needed for the rule `names` only
    """

    adapt: Adapt = "mean"
    bands: tuple[str, ...] = ()

    def of(self, weight: Float[Tensor, "filters rgb kh kw"], in_channels: int) -> Float[Tensor, "filters _ kh kw"]:
        """Return the weight of a first convolution for an image of `in_channels` bands; equal bands change nothing.

        Raises:
            UserError: with `names`, the image has no band R, G or B
        """
        if self.adapt == "names":
            check_common_band((RGB, self.bands), "ImageNet", "model")
        if not must_adapt(len(RGB), in_channels, (RGB, self.bands), self.adapt):
            return weight
        pixels = weight.shape[1] // len(RGB)
        return adapt_first_layer(weight, in_channels, (RGB, self.bands), self.adapt, pixels)


BY_MEAN = FirstLayer()


def must_adapt(old: int, new: int, bands: tuple[Sequence[str], Sequence[str]], adapt: Adapt | None) -> bool:
    """Return whether the first layer needs a rule: the bands differ in number, or with `adapt="names"` in name."""
    return old != new or (adapt == "names" and list(bands[0]) != list(bands[1]))


def check_common_band(bands: tuple[Sequence[str], Sequence[str]], where: str, node: str) -> None:
    """Raise a UserError if no band of the network has the name of an old band.

    Args:
        bands: names of the bands of the weights, and of the network
        where: the weights, for messages
        node: config node with the key `adapt`, for messages
    """
    before, after = bands
    if not set(before) & set(after):
        raise UserError(
            f"{node}.adapt=names needs a band of the same name: {where} has {', '.join(before) or 'no known bands'}, "
            f"the network {', '.join(after)}; choose mean or repeat",
            kind="conflict",
            key=f"{node}.adapt",
            value="names",
        )


def adapt_first_layer(
    weight: Float[Tensor, "filters inputs kh kw"],
    in_channels: int,
    bands: tuple[Sequence[str], Sequence[str]],
    adapt: Adapt,
    pixels: int = 1,
) -> Float[Tensor, "filters _ kh kw"]:
    """Adapt the weight of the first layer to `in_channels` other bands by a rule.

    mean: every band gets the mean of the old bands, times old/new, so that an image of equal bands gives the same
        response as before.
    repeat: the old bands are repeated in turn, times old/new; the sum is kept if new is a multiple of old.
    names: a band gets the weights of the old band of the same name (the sum of several), or 0 without one.

    Args:
        weight: with `pixels` times as many input channels as old bands
        in_channels: number of the new bands
        bands: names of the old bands, and of the new ones
        adapt: the rule
        pixels: of which a network moves the bands side by side to the channels before the first layer, such as 16 for
            4×4 pixels; those of each are adapted alike
    """
    if pixels > 1:
        parts = weight.unflatten(1, (pixels, -1)).unbind(1)
        return torch.cat([adapt_first_layer(part, in_channels, bands, adapt) for part in parts], dim=1)
    old = weight.shape[1]
    if adapt == "mean":
        return (weight.sum(dim=1, keepdim=True) / in_channels).repeat(1, in_channels, 1, 1)
    if adapt == "repeat":
        return weight[:, [band % old for band in range(in_channels)]] * (old / in_channels)
    before, after = bands
    zero = torch.zeros_like(weight[:, 0])
    layers = [sum((weight[:, i] for i, old_name in enumerate(before) if old_name == name), zero) for name in after]
    return torch.stack(layers, dim=1)
