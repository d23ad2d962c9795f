"""Losses of the heads. Each returns one value per sample; the caller takes the mean over samples.

A loss is a module of the form `loss(outputs (b, k, h, w), target (b, k, h, w), valid (b, 1, h, w) bool) → (b,)`, with
the outputs before their activation. It may have an attribute `targets`, a dict of `sn6.targets.target.Target`: their
maps are passed by name. Any other module, such as torch.nn.BCEWithLogitsLoss, is adapted, see `sn6.training.loss`.

The losses here are float32. Values at pixels that are not valid, NaN included, affect neither value nor gradient, and a
sample without a valid pixel has loss 0 and gradient 0. A mean over samples, each a mean over its own valid pixels, does
not depend on how the samples are divided into batches: the loss is equal on one device and on several.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from sn6.errors import UserError
from sn6.targets.boundary import BoundaryWeights

Maps = Float[Tensor, "b k h w"]
Mask = Bool[Tensor, "b 1 h w"]


class BCE(nn.Module):
    """Compute the binary cross entropy, mean over valid pixels.

    With a target between 0 and 1, such as a distance or a heat map, it is lowest where the map equals the target.

    Args:
        positive_weight: factor of the building pixels
    """

    positive_weight: Tensor

    def __init__(self, positive_weight: PositiveFloat = 1.0) -> None:
        super().__init__()
        self.register_buffer("positive_weight", torch.tensor(positive_weight), persistent=False)

    def forward(self, logits: Float[Tensor, "b _ h w"], target: Maps, valid: Mask) -> Float[Tensor, " b"]:
        logits, mask = valid_pixels(logits, target, valid)
        losses = F.binary_cross_entropy_with_logits(logits, mask, pos_weight=self.positive_weight, reduction="none")
        return valid_mean(losses, valid)


class WeightedBoundary(nn.Module):
    """Compute the binary cross entropy weighted by the distance to neighbouring buildings.

    Source: Ronneberger, Fischer, Brox (U-Net), MICCAI 2015, equations 1 and 2. w_c balances the classes by the fraction
    of building pixels in the training tiles of the fold.

    Equation 1 is a sum over pixels. This loss divides it by the number of valid pixels, not by the sum of the weights,
    so that a tile with dense buildings counts more than an empty one, as in the paper.

    Args:
        w0: height of the boundary term
        sigma: width of the boundary term in m; the paper's 5 px are 2.5 m
    """

    def __init__(self, w0: NonNegativeFloat = 10.0, sigma: PositiveFloat = 2.5) -> None:
        super().__init__()
        self.targets = {"weight": BoundaryWeights(float(w0), float(sigma))}

    def forward(self, logits: Float[Tensor, "b _ h w"], target: Maps, valid: Mask, weight: Maps) -> Float[Tensor, " b"]:
        logits, mask = valid_pixels(logits, target, valid)
        losses = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
        return valid_mean(weight.float() * losses, valid)


class FocalDice(nn.Module):
    """Compute `dice`·dice + `focal`·focal, the loss of the challenge's baseline.

    The focal loss (Lin et al. 2017, equation 4, no α) is the mean of -(1 - p_t)^γ log p_t over valid pixels.
    The dice loss is that of each sample, see `dice_loss`; the baseline computes it over the whole batch, so that it
    depends on the batch's samples.

    Args:
        dice: factor of the dice loss
        focal: factor of the focal loss
        gamma: exponent that reduces the weight of well classified pixels
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

    def forward(self, logits: Float[Tensor, "b _ h w"], target: Maps, valid: Mask) -> Float[Tensor, " b"]:
        logits, mask = valid_pixels(logits, target, valid)
        # p_t = sigmoid(margin) and 1 - p_t = sigmoid(-margin): logarithms neither over- nor underflow.
        margin = torch.where(mask > 0.5, logits, -logits)
        focal = -torch.exp(self.gamma * F.logsigmoid(-margin)) * F.logsigmoid(margin)

        return self.dice * dice_loss(logits, mask, valid, self.smooth) + self.focal * valid_mean(focal, valid)


class BCEDice(nn.Module):
    """Compute `bce`·cross entropy + `dice`·dice, see `BCE` and `dice_loss`.

    Args:
        bce: factor of the binary cross entropy
        dice: factor of the dice loss
        smooth: keeps the dice loss of a sample without buildings defined
    """

    def __init__(self, bce: NonNegativeFloat = 1.0, dice: NonNegativeFloat = 1.0, smooth: PositiveFloat = 1e-5) -> None:
        super().__init__()
        self.bce = bce
        self.dice = dice
        self.smooth = smooth

    def forward(self, logits: Float[Tensor, "b _ h w"], target: Maps, valid: Mask) -> Float[Tensor, " b"]:
        logits, mask = valid_pixels(logits, target, valid)
        bce = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
        return self.bce * valid_mean(bce, valid) + self.dice * dice_loss(logits, mask, valid, self.smooth)


class Lovasz(nn.Module):
    """Compute the Lovász hinge of each sample and channel, mean over channels: a convex bound of 1 - Jaccard index.

    Source: Berman, Triki, Blaschko, CVPR 2018, section 3.1 and algorithm 1. The hinge errors 1 - F_i·y_i, with y = ±1,
    are sorted from the largest; each counts by how much the Jaccard index falls when its pixel becomes wrong after
    those before it. A sample without buildings has its largest error as its loss.
    """

    def forward(self, logits: Float[Tensor, "b _ h w"], target: Maps, valid: Mask) -> Float[Tensor, " b"]:
        logits, mask = valid_pixels(logits, target, valid)
        building = (mask > 0.5).float()
        # of hinge errors that are 0 none counts, and they come after all that count: as if the pixels were not there
        errors = torch.where(valid, torch.relu(1 - logits * (2 * building - 1)), 0.0).flatten(2)
        errors, order = errors.sort(dim=2, descending=True, stable=True)
        building = building.flatten(2).gather(2, order)
        total, hits = building.sum(dim=2, keepdim=True), building.cumsum(dim=2)
        union = total + (1 - building).cumsum(dim=2)
        jaccard_loss = 1 - (total - hits) / union  # when the pixels up to this one are wrong
        steps = jaccard_loss.diff(dim=2, prepend=torch.zeros_like(total))
        return (errors * steps).sum(dim=2).mean(dim=1)


class SmoothL1(nn.Module):
    """Compute d² / 2β where |d| < β and |d| - β / 2 elsewhere, mean over valid pixels and channels; for linear heads.

    Source: Girshick, Fast R-CNN, ICCV 2015, equation 3, with β = 1.

    Args:
        beta: β, in the units of the target
    """

    def __init__(self, beta: PositiveFloat = 1.0) -> None:
        super().__init__()
        self.beta = float(beta)

    def forward(self, outputs: Float[Tensor, "b _ h w"], target: Maps, valid: Mask) -> Float[Tensor, " b"]:
        outputs, target = valid_pixels(outputs, target, valid)
        return valid_mean(F.smooth_l1_loss(outputs, target, reduction="none", beta=self.beta), valid)


class CrossEntropy(nn.Module):
    """Compute the cross entropy of the softmax over classes, mean over valid pixels.

    Args:
        class_weights: factors of the pixels of each class, the background first; None for 1

    Raises:
        UserError: (when it is called) another number of factors than of classes
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Sequence[PositiveFloat] | None = None) -> None:
        super().__init__()
        weights = None if class_weights is None else torch.tensor([*class_weights], dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Float[Tensor, "b k h w"], target: Float[Tensor, "b 1 h w"], valid: Mask) -> Tensor:
        weights, classes = self.class_weights, logits.shape[1]
        if weights is not None and len(weights) != classes:
            raise UserError(
                f"invalid class_weights of CrossEntropy: {len(weights)} numbers for {classes} classes, the background "
                "included; give one for each",
                kind="invalid_value",
                key="class_weights",
                value=weights.tolist(),
            )
        logits, numbers = torch.where(valid, logits.float(), 0.0), torch.where(valid, target, 0.0)[:, 0].long()
        return valid_mean(F.cross_entropy(logits, numbers, weights, reduction="none")[:, None], valid)


def valid_pixels(logits: Float[Tensor, "b _ h w"], target: Maps, valid: Mask) -> tuple[Maps, Maps]:
    """Return logits and target in float32, 0 at nodata pixels.

    The zeros are set before the loss, not only after it: the gradient of NaN is NaN even when multiplied by 0.

    Raises:
        UserError: logits of another number of classes
    """
    if logits.shape[1] != target.shape[1]:
        classes = logits.shape[1]
        raise UserError(
            f"invalid model.classes={classes}: the loss trains {target.shape[1]}; leave out model.classes",
            kind="invalid_value",
            key="model.classes",
            value=classes,
        )
    return torch.where(valid, logits.float(), 0.0), torch.where(valid, target.float(), 0.0)


def dice_loss(logits: Maps, mask: Maps, valid: Mask, smooth: float) -> Float[Tensor, " b"]:
    """Return 1 - (2·Σpy + s) / (Σp + Σy + s) of each sample, over probabilities p, ground truth y, and s = `smooth`.

    Args:
        logits: float32, 0 at nodata pixels like `mask`, see `valid_pixels`
        mask: ground truth
        valid: false on nodata
        smooth: keeps the loss of a sample without buildings defined
    """
    probability = torch.where(valid, torch.sigmoid(logits), 0.0)
    both = pixel_sum(probability * mask)
    either = pixel_sum(probability) + pixel_sum(mask)
    return 1 - (2 * both + smooth) / (either + smooth)


def valid_mean(values: Maps, valid: Mask) -> Float[Tensor, " b"]:
    """Return the mean of each sample over channels and valid pixels; 0 where it has none."""
    return pixel_sum(torch.where(valid, values, 0.0)) / (values.shape[1] * pixel_sum(valid)).clamp(min=1)


def pixel_sum(values: Maps | Mask) -> Tensor:
    """Return the sum of each sample."""
    return values.sum(dim=(1, 2, 3))
