"""Crops and augmentation of a sample: functions of the sample and a random generator, of nothing else."""

from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

Augmentation = Literal["none", "flip_lr", "dihedral"]
TRIES = 10  # places drawn before the best one is taken
ENOUGH = 0.25  # share of valid pixels that makes a place good

Sample = dict[str, Any]  # of arrays (..., h, w) and of the tile's image_id


def arrays(sample: Sample) -> dict[str, np.ndarray]:
    """The entries of a sample that have pixels."""
    return {key: value for key, value in sample.items() if isinstance(value, np.ndarray)}


def turn(sample: Sample) -> Sample:
    """Turns by 180°, as the radar tiles of orientation 1 are; its own inverse."""
    return sample | {key: value[..., ::-1, ::-1] for key, value in arrays(sample).items()}


def random_crop(sample: Sample, crop: int, rng: np.random.Generator) -> Sample:
    """Cuts `crop` × `crop` pixels at a random place that holds valid pixels where it can.

    A tile smaller than the crop is extended to the right and below by pixels that are not valid.
    """
    top, left = crop_place(sample["valid"][0], crop, rng)
    return sample | {
        key: pad_to(value[..., top : top + crop, left : left + crop], crop) for key, value in arrays(sample).items()
    }


def crop_place(valid: Bool[np.ndarray, "h w"], crop: int, rng: np.random.Generator) -> tuple[int, int]:
    """Top and left of the first place drawn with a quarter of valid pixels, else of the best of ten."""
    height, width = valid.shape
    best, place = -1.0, (0, 0)
    for _ in range(TRIES):
        top = int(rng.integers(max(height - crop, 0) + 1))
        left = int(rng.integers(max(width - crop, 0) + 1))
        share = float(valid[top : top + crop, left : left + crop].mean())
        if share > best:
            best, place = share, (top, left)
        if share >= ENOUGH:
            break
    return place


def pad_to(array: np.ndarray, size: int) -> np.ndarray:
    """Extends the last two axes by zeros to `size`: not valid, no building, 0 in the image."""
    height, width = array.shape[-2:]
    return np.pad(array, [(0, 0)] * (array.ndim - 2) + [(0, size - height), (0, size - width)])


def augment(sample: Sample, augmentation: Augmentation, rng: np.random.Generator) -> Sample:
    """Flips and turns a square sample.

    `flip_lr`: left-right, the one that keeps the look of a radar image, in which the sensor stands above the image.
    `dihedral`: left-right and a turn by a multiple of 90°, all eight positions alike: for optical images.
    """
    flip = augmentation != "none" and bool(rng.integers(2))
    quarters = int(rng.integers(4)) if augmentation == "dihedral" else 0

    def move(array: np.ndarray) -> np.ndarray:
        return np.rot90(array[..., ::-1] if flip else array, quarters, axes=(-2, -1))

    return sample | {key: move(value) for key, value in arrays(sample).items()}
