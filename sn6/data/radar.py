"""Augment radar crops: flip, scale and rotate them, and change their decibels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float32
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from scipy.special import gammaincinv
from torch import Tensor

from sn6.data.augment import Augmentation
from sn6.data.warp import Warp
from sn6.targets.target import Position

LEVELS = 2**16  # values of speckle: as many as 16 random bits choose from
MAX_ROTATION = 45.0  # degrees


def ascending(limits: Sequence[float]) -> Sequence[float]:
    """Return the limits.

    Raises:
        PydanticCustomError: the first one is larger than the second one
    """
    if limits[0] > limits[1]:
        raise PydanticCustomError("reversed", "the smaller factor must come first")
    return limits


Factor = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Factors = Annotated[Sequence[Factor], Field(min_length=2, max_length=2), AfterValidator(ascending)]
Degrees = Annotated[float, Field(ge=0, le=MAX_ROTATION)]
Probability = Annotated[float, Field(ge=0, le=1)]
Decibels = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Looks = Annotated[float, Field(ge=1, allow_inf_nan=False)]


@dataclass(frozen=True)
class Radar(Augmentation):
    """Flip, scale and rotate crops, and change their decibels as calibration, incidence and speckle do.

    The rotation is in the sensor's frame, where tiles imaged from the south are rotated by 180° already: small angles
    keep the sensor at the top. All draws are uniform. Optical tiles have no decibels: only their geometry changes.

    Attributes:
        flip: whether to flip left-right, half of the crops
        flip_vertical: whether to flip top-bottom, half of the crops: it moves the sensor to the other side
        scale: smallest and largest factor of lengths
        rotation: largest angle in degrees, to both sides
        warp_probability: fraction of the crops that are scaled and rotated. Resampling smooths the speckle: the others
            show the network images as they are
        gain: largest change of all bands together in dB, up and down
        band_offset: largest change of each band of its own in dB, up and down
        contrast: largest relative change of the distance in dB from the mean that the images are normalised by, up and
            down
        speckle: number of looks L of a multiplicative gamma noise of mean 1 and variance 1/L, drawn for each pixel and
            band; None adds none
    """

    flip: bool = True
    flip_vertical: bool = False
    scale: Factors = (0.8, 1.25)
    rotation: Degrees = 5.0
    warp_probability: Probability = 0.5
    gain: Decibels = 1.5
    band_offset: Decibels = 0.5
    contrast: Probability = 0.0
    speckle: Looks | None = 20.0

    def warp(self, rng: np.random.Generator) -> Warp:
        """Draw scale and rotation."""
        is_warped = rng.random() < self.warp_probability
        smallest, largest = self.scale
        warp = Warp(rng.uniform(smallest, largest), rng.uniform(-self.rotation, self.rotation))
        return warp if is_warped else Warp()

    def position(self, rng: np.random.Generator) -> Position:
        """Draw the flips; one from top to bottom is one from left to right, rotated by 180°."""
        horizontal, vertical = bool(rng.integers(2)) and self.flip, bool(rng.integers(2)) and self.flip_vertical
        return horizontal != vertical, 2 if vertical else 0

    def decibels(
        self, image: Float32[Tensor, "c h w"], mean: Float32[Tensor, "c 1 1"], rng: np.random.Generator
    ) -> Float32[Tensor, "c h w"]:
        """Change contrast, level and speckle, in this order."""
        factor = 1 + rng.uniform(-self.contrast, self.contrast)
        offsets = rng.uniform(-self.gain, self.gain) + rng.uniform(-self.band_offset, self.band_offset, len(image))
        # factor·(x - mean) + mean + offset, per band
        added = torch.from_numpy(offsets.astype(np.float32)).to(image)[:, None, None] + (1 - factor) * mean
        image.mul_(factor).add_(added)
        if self.speckle is not None:
            image.add_(draw_speckle(self.speckle, tuple(image.shape), rng, image.device))
        return image


def draw_speckle(
    looks: float, shape: tuple[int, ...], rng: np.random.Generator, device: torch.device
) -> Float32[Tensor, "..."]:
    """Draw 10·log10 of gamma noise of mean 1 and variance 1 / `looks`, from a table: ten times faster than the law."""
    numbers = np.frombuffer(bytearray(rng.bytes(2 * math.prod(shape))), dtype="<u2")
    levels = torch.from_numpy(speckle_levels(looks)).to(device)
    return levels.index_select(0, torch.from_numpy(numbers).to(device).int()).view(shape)


@cache
def speckle_levels(looks: float) -> Float32[np.ndarray, " levels"]:
    """Return equally likely values of speckle in dB: the middle quantiles of the gamma law, with a mean power of 1."""
    quantiles = gammaincinv(looks, (np.arange(LEVELS) + 0.5) / LEVELS)
    return (10 * np.log10(quantiles / quantiles.mean())).astype(np.float32)
