"""Losses of one class. Each gives one value a sample; the mean over samples is the caller's.

That keeps the loss equal on one device and on many: a mean over samples of a mean over each one's valid pixels
does not depend on which samples meet in a batch.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from sn6.errors import UserError
from sn6.targets.boundary import PixelWeights


class Loss(nn.Module):
    """`forward(logits (b, 1, h, w), sample)` → `(b,)` float32, over the valid pixels of each sample.

    The sample holds `mask` (b, 1, h, w) float, 0 or 1, `valid` (b, 1, h, w) bool, and `weight` (b, 1, h, w)
    float where `pixel_weights` is there to make it. Whatever stands at nodata pixels, NaN included, touches
    neither value nor gradient. A sample without a valid pixel has loss 0 and gradient 0.

    Attributes:
        pixel_weights: makes `weight`; None where the loss wants none
    """

    pixel_weights: PixelWeights | None = None


class BCE(Loss):
    """Binary cross entropy, the mean over valid pixels.

    Args:
        positive_weight: factor on the building pixels
    """

    positive_weight: Tensor

    def __init__(self, positive_weight: PositiveFloat = 1.0) -> None:
        super().__init__()
        self.register_buffer("positive_weight", torch.tensor(positive_weight), persistent=False)

    def forward(self, logits: Float[Tensor, "b k h w"], sample: Mapping[str, Any]) -> Float[Tensor, " b"]:
        logits, mask, valid = valid_pixels(logits, sample)
        losses = F.binary_cross_entropy_with_logits(logits, mask, pos_weight=self.positive_weight, reduction="none")
        return valid_mean(losses, valid)


class WeightedBoundary(Loss):
    """Binary cross entropy weighted by the nearness of neighbours: U-Net paper, equations 1 and 2.

    w_c balances the classes by the share of building pixels in the training tiles of the fold.

    Equation 1 is a sum over pixels. Here it is divided by the number of valid pixels, not by the sum of the
    weights, so that a tile of dense buildings weighs more than an empty one, as it does in the paper.

    Args:
        w0: height of the boundary term
        sigma: its width, pixels
    """

    def __init__(self, w0: NonNegativeFloat = 10.0, sigma: PositiveFloat = 5.0) -> None:
        super().__init__()
        self.pixel_weights = PixelWeights(float(w0), float(sigma))

    def forward(self, logits: Float[Tensor, "b k h w"], sample: Mapping[str, Any]) -> Float[Tensor, " b"]:
        logits, mask, valid = valid_pixels(logits, sample)
        losses = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
        return valid_mean(sample["weight"].float() * losses, valid)


class FocalDice(Loss):
    """The baseline's `dice`·dice + `focal`·focal.

    The focal loss (Lin et al. 2017, equation 4, no α) is the mean of -(1 - p_t)^γ log p_t over valid pixels.
    The dice loss is 1 - (2·Σpy + s) / (Σp + Σy + s) on probabilities p and truth y, with s = `smooth`. It is
    taken over each sample; the baseline's is taken over the whole batch, and so depends on what meets in it.

    Args:
        dice: factor of the dice loss
        focal: factor of the focal loss
        gamma: how much pixels that are right already are played down
        smooth: keeps the dice loss of a sample without buildings defined
    """

    def __init__(
        self,
        dice: NonNegativeFloat = 1.0,
        focal: NonNegativeFloat = 10.0,
        gamma: NonNegativeFloat = 2.0,
        smooth: PositiveFloat = 1e-5,
    ) -> None:
        super().__init__()
        self.dice = dice
        self.focal = focal
        self.gamma = gamma
        self.smooth = smooth

    def forward(self, logits: Float[Tensor, "b k h w"], sample: Mapping[str, Any]) -> Float[Tensor, " b"]:
        logits, mask, valid = valid_pixels(logits, sample)
        # p_t = sigmoid(margin) and 1 - p_t = sigmoid(-margin): in logarithms nothing over- or underflows.
        margin = torch.where(mask > 0.5, logits, -logits)
        focal = -torch.exp(self.gamma * F.logsigmoid(-margin)) * F.logsigmoid(margin)

        probability = torch.where(valid, torch.sigmoid(logits), 0.0)
        both = pixel_sum(probability * mask)
        either = pixel_sum(probability) + pixel_sum(mask)
        dice = 1 - (2 * both + self.smooth) / (either + self.smooth)
        return self.dice * dice + self.focal * valid_mean(focal, valid)


def valid_pixels(
    logits: Float[Tensor, "b k h w"], sample: Mapping[str, Any]
) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b 1 h w"], Bool[Tensor, "b 1 h w"]]:
    """Logits and mask in float32, 0 where they are not valid, and which are.

    Zeros go in before the loss and not only after it: the gradient of a NaN stays NaN even times 0.

    Raises:
        UserError: logits of more than one class
    """
    if logits.shape[1] != 1:
        raise UserError(f"the losses train one class, the network gives {logits.shape[1]}; set model.classes=1")
    valid = sample["valid"]
    return torch.where(valid, logits.float(), 0.0), torch.where(valid, sample["mask"].float(), 0.0), valid


def valid_mean(values: Float[Tensor, "b 1 h w"], valid: Bool[Tensor, "b 1 h w"]) -> Float[Tensor, " b"]:
    """Mean of each sample's values over its valid pixels; 0 where it has none."""
    return pixel_sum(torch.where(valid, values, 0.0)) / pixel_sum(valid).clamp(min=1)


def pixel_sum(values: Float[Tensor, "b 1 h w"] | Bool[Tensor, "b 1 h w"]) -> Tensor:
    """Sum of each sample."""
    return values.sum(dim=(1, 2, 3))
