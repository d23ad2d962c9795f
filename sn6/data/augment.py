"""Crop and augment a sample; each function depends only on the sample and a random generator."""

from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Shaped
from torch import Tensor

Augmentation = Literal["none", "flip_lr", "dihedral"]
MAX_DRAWS = 10  # windows drawn before the best one is used
MIN_VALID_FRACTION = 0.25  # of valid pixels, from which on a window is used at once

Sample = dict[str, Any]  # arrays (..., h, w) and the image_id of the tile
Window = tuple[slice, slice]  # rows and columns
Position = tuple[bool, int]  # whether it is flipped left-right, then number of rotations by 90°


def arrays(sample: Sample) -> dict[str, np.ndarray]:
    """Return the entries of a sample that are arrays of pixels."""
    return {key: value for key, value in sample.items() if isinstance(value, np.ndarray)}


def rotate_180(sample: Sample) -> Sample:
    """Rotate a sample by 180°, as is done with SAR tiles imaged from the south; it is its own inverse."""
    return sample | {key: value[..., ::-1, ::-1] for key, value in arrays(sample).items()}


def whole_tile(valid: Bool[np.ndarray, "h w"]) -> Window:
    """Return the window of the whole tile."""
    return slice(0, valid.shape[0]), slice(0, valid.shape[1])


def crop_sample(sample: Sample, window: Window) -> Sample:
    """Return the pixels of a window."""
    return sample | {key: value[..., *window] for key, value in arrays(sample).items()}


def crop_window(valid: Bool[np.ndarray, "h w"], crop: int, rng: np.random.Generator) -> Window:
    """Draw windows and return the first one with a quarter of valid pixels, otherwise the best of ten.

    Its size is `crop` × `crop` pixels, or that of the tile where the tile is smaller.
    """
    height, width = valid.shape
    best_fraction, best = -1.0, whole_tile(valid)
    for _ in range(MAX_DRAWS):
        top = int(rng.integers(max(height - crop, 0) + 1))
        left = int(rng.integers(max(width - crop, 0) + 1))
        window = slice(top, top + crop), slice(left, left + crop)
        fraction = np.count_nonzero(valid[window]) / valid[window].size
        if fraction > best_fraction:
            best_fraction, best = fraction, window
        if fraction >= MIN_VALID_FRACTION:
            break
    return best


def pad(sample: Sample, size: int) -> Sample:
    """Pad a sample with zeros on the right and at the bottom to `size`: not valid, no building, 0 in the image."""
    padded = {}
    for key, value in arrays(sample).items():
        missing = [(0, max(size - length, 0)) for length in value.shape[-2:]]
        padded[key] = np.pad(value, [(0, 0)] * (value.ndim - 2) + missing)
    return sample | padded


def draw_position(augmentation: Augmentation, rng: np.random.Generator) -> Position:
    """Draw whether to flip left-right, and the number of rotations by 90° after it.

    `flip_lr` flips left-right, which keeps the geometry of a SAR image: the sensor is above the image. `dihedral`
    flips left-right and rotates by a multiple of 90°, all eight positions equally likely: for optical images.
    """
    flip = augmentation != "none" and bool(rng.integers(2))
    return flip, int(rng.integers(4)) if augmentation == "dihedral" else 0


def apply_position(pixels: Shaped[Tensor, "*c h w"], position: Position) -> Shaped[Tensor, "*c _ _"]:
    """Flip and rotate the last two axes."""
    flip, quarters = position
    axes = {0: set(), 1: {-1}, 2: {-2, -1}, 3: {-2}}[quarters]  # a rotation by 90° is a flip, then a transposition
    axes = axes ^ {-1} if flip else axes
    flipped = pixels.flip(*axes) if axes else pixels
    return flipped.mT if quarters % 2 else flipped
