"""Crops and augmentation of a sample: functions of the sample and a random generator, of nothing else."""

from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Shaped
from torch import Tensor

Augmentation = Literal["none", "flip_lr", "dihedral"]
TRIES = 10  # places drawn before the best one is taken
MIN_VALID_FRACTION = 0.25  # share of valid pixels that makes a place good

Sample = dict[str, Any]  # of arrays (..., h, w) and of the tile's image_id
Window = tuple[slice, slice]  # rows and columns
Position = tuple[bool, int]  # flipped, quarters turned


def arrays(sample: Sample) -> dict[str, np.ndarray]:
    """The entries of a sample that have pixels."""
    return {key: value for key, value in sample.items() if isinstance(value, np.ndarray)}


def rotate_180(sample: Sample) -> Sample:
    """Turns by 180°, as the radar tiles of orientation 1 are; its own inverse."""
    return sample | {key: value[..., ::-1, ::-1] for key, value in arrays(sample).items()}


def whole_tile(valid: Bool[np.ndarray, "h w"]) -> Window:
    """All of it."""
    return slice(0, valid.shape[0]), slice(0, valid.shape[1])


def cut(sample: Sample, window: Window) -> Sample:
    """The pixels of a window."""
    return sample | {key: value[..., *window] for key, value in arrays(sample).items()}


def crop_window(valid: Bool[np.ndarray, "h w"], crop: int, rng: np.random.Generator) -> Window:
    """The first place drawn with a quarter of valid pixels, else the best of ten.

    It has `crop` × `crop` pixels, or those of them that a smaller tile has.
    """
    height, width = valid.shape
    best, window = -1.0, whole_tile(valid)
    for _ in range(TRIES):
        top = int(rng.integers(max(height - crop, 0) + 1))
        left = int(rng.integers(max(width - crop, 0) + 1))
        place = slice(top, top + crop), slice(left, left + crop)
        share = np.count_nonzero(valid[place]) / valid[place].size
        if share > best:
            best, window = share, place
        if share >= MIN_VALID_FRACTION:
            break
    return window


def pad(sample: Sample, size: int) -> Sample:
    """Extends a sample to the right and below by zeros to `size`: not valid, no building, 0 in the image."""
    padded = {}
    for key, value in arrays(sample).items():
        missing = [(0, max(size - side, 0)) for side in value.shape[-2:]]
        padded[key] = np.pad(value, [(0, 0)] * (value.ndim - 2) + missing)
    return sample | padded


def draw_position(augmentation: Augmentation, rng: np.random.Generator) -> Position:
    """Whether to flip left-right, and how often to turn by 90° after it.

    `flip_lr`: left-right, the one that keeps the look of a radar image, in which the sensor stands above the image.
    `dihedral`: left-right and a turn by a multiple of 90°, all eight positions alike: for optical images.
    """
    flip = augmentation != "none" and bool(rng.integers(2))
    return flip, int(rng.integers(4)) if augmentation == "dihedral" else 0


def apply_position(pixels: Shaped[Tensor, "*c h w"], position: Position) -> Shaped[Tensor, "*c _ _"]:
    """Flips and turns the last two axes."""
    flip, quarters = position
    axes = {0: set(), 1: {-1}, 2: {-2, -1}, 3: {-2}}[quarters]  # a quarter is a flip, then a transposition
    axes = axes ^ {-1} if flip else axes
    flipped = pixels.flip(*axes) if axes else pixels
    return flipped.mT if quarters % 2 else flipped
