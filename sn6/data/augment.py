"""Crop and augment a sample; each function depends only on the sample and a random generator."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Integer, Shaped
from torch import Tensor

from sn6.data.normalization import Nodata
from sn6.data.warp import Warp
from sn6.errors import UserError
from sn6.targets.target import Position

MAX_DRAWS = 10  # windows drawn before the best one is used
MIN_VALID_FRACTION = 0.25  # of valid pixels, from which on a window is used at once

Sample = dict[str, Any]  # arrays (..., h, w) and the image_id of the tile
Window = tuple[slice, slice]  # rows and columns


class Augmentation:
    """Change training crops: their geometry, then their decibels and their pixels; this one changes nothing.

    A subclass overrides some of the methods, which are called once for each crop, in this order. Every random number
    comes from `rng`, which is made for each crop from (seed, epoch, index of the crop): a resumed run, other workers
    and a store therefore give the same crops.

    The frame of a crop is the sensor's, flipped and rotated by `position`: a SAR tile imaged from the south is rotated
    by 180° before (`data.orient`).
    """

    def warp(self, rng: np.random.Generator) -> Warp:
        """Draw scale and rotation; the window that the crop is made from is drawn next, so large that it fills it."""
        return Warp()

    def position(self, rng: np.random.Generator) -> Position:
        """Draw whether to flip left-right, and the number of rotations by 90° after it, 0 to 3."""
        return False, 0

    def decibels(
        self, image: Float32[Tensor, "c h w"], mean: Float32[Tensor, "c 1 1"], rng: np.random.Generator
    ) -> Float32[Tensor, "c h w"]:
        """Return the image of a SAR crop with other values, before it is normalised.

        Args:
            image: in dB, in its position; it may be changed in place, and values on nodata are not used
            mean: in dB, that the images are normalised by
            rng: generator of the crop
        """
        return image

    def pixels(self, sample: dict[str, Tensor], rng: np.random.Generator) -> dict[str, Tensor]:
        """Return the sample with other pixels, of the same shapes.

        Args:
            sample: `image (c, h, w)` float32 normalised, `mask (1, h, w)` float32, `valid (1, h, w)` bool, and the maps
                `(1, h, w)` float32 that the loss needs, in their position; on the device that makes the crops
            rng: generator of the crop
        """
        return sample


class FlipLR(Augmentation):
    """Flip left-right, which keeps the geometry of a SAR image: the sensor is above the image."""

    def position(self, rng: np.random.Generator) -> Position:
        """Draw whether to flip."""
        return bool(rng.integers(2)), 0


class Dihedral(Augmentation):
    """Flip left-right and rotate by a multiple of 90°, all eight positions equally likely: for optical images."""

    def position(self, rng: np.random.Generator) -> Position:
        """Draw the flip, then the rotation."""
        return bool(rng.integers(2)), int(rng.integers(4))


def arrays(sample: Sample) -> dict[str, np.ndarray]:
    """Return the entries of a sample that are arrays of pixels."""
    return {key: value for key, value in sample.items() if isinstance(value, np.ndarray)}


def rotate_180(sample: Sample) -> Sample:
    """Rotate a sample by 180°, as is done with SAR tiles imaged from the south; it is its own inverse."""
    return sample | {key: value[..., ::-1, ::-1] for key, value in arrays(sample).items()}


def whole_tile(valid: Bool[np.ndarray, "h w"], instances: Integer[np.ndarray, "h w"]) -> Window:
    """Return the window of the whole tile."""
    return slice(0, valid.shape[0]), slice(0, valid.shape[1])


def crop_sample(sample: Sample, window: Window) -> Sample:
    """Return the pixels of a window."""
    return sample | {key: value[..., *window] for key, value in arrays(sample).items()}


def crop_window(
    valid: Bool[np.ndarray, "h w"],
    crop: int,
    rng: np.random.Generator,
    instances: Integer[np.ndarray, "h w"] | None = None,
) -> Window:
    """Draw windows and return the first one with a quarter of valid pixels, otherwise the best of ten.

    Its size is `crop` × `crop` pixels, or that of the tile where the tile is smaller.

    Args:
        valid: valid pixels of the tile
        crop: edge length in pixels
        rng: generator of the crop
        instances: number of the building at each pixel; each window contains a pixel of a building, drawn from all
            those of the tile, if there is one. None draws from all windows.
    """
    height, width = valid.shape
    buildings = np.flatnonzero(instances) if instances is not None else np.empty(0)
    best_fraction, best = -1.0, (slice(0, height), slice(0, width))
    for _ in range(MAX_DRAWS):
        row, column = divmod(int(rng.choice(buildings)), width) if len(buildings) else (None, None)
        top, left = draw_start(height, crop, rng, row), draw_start(width, crop, rng, column)
        window = slice(top, top + crop), slice(left, left + crop)
        fraction = np.count_nonzero(valid[window]) / valid[window].size
        if fraction > best_fraction:
            best_fraction, best = fraction, window
        if fraction >= MIN_VALID_FRACTION:
            break
    return best


def draw_start(length: int, crop: int, rng: np.random.Generator, contained: int | None) -> int:
    """Draw the first row (or column) of a window of a tile of `length` rows, which contains a row unless it is None."""
    last = max(length - crop, 0)
    if contained is None:
        return int(rng.integers(last + 1))
    return int(rng.integers(min(max(contained - crop + 1, 0), last), min(contained, last) + 1))


def pad(sample: Sample, size: int) -> Sample:
    """Pad a sample with zeros on the right and at the bottom to `size`: not valid, no building, 0 in the image."""
    padded = {}
    for key, value in arrays(sample).items():
        missing = [(0, max(size - length, 0)) for length in value.shape[-2:]]
        padded[key] = np.pad(value, [(0, 0)] * (value.ndim - 2) + missing)
    return sample | padded


def draw_position(augmentation: Augmentation, rng: np.random.Generator) -> Position:
    """Draw the position of a crop.

    Raises:
        UserError: the augmentation returns something else
    """
    position = augmentation.position(rng)
    try:
        flip, quarters = position
        if quarters not in range(4):
            raise ValueError
    except (TypeError, ValueError):
        raise wrong_augmentation(
            augmentation, f"position returned {position}; it must return (flip, number of rotations by 90°, 0 to 3)"
        ) from None
    return bool(flip), int(quarters)


def draw_warp(augmentation: Augmentation, rng: np.random.Generator) -> Warp:
    """Draw scale and rotation of a crop.

    Raises:
        UserError: the augmentation returns something else
    """
    warp = augmentation.warp(rng)
    if isinstance(warp, Warp) and np.isfinite([warp.scale, warp.rotation]).all() and warp.scale > 0:
        return warp
    raise wrong_augmentation(
        augmentation, f"warp returned {warp}; it must return a sn6.data.warp.Warp of a positive scale and finite angle"
    )


def change_decibels(
    image: Float32[Tensor, "c h w"],
    mean: Float32[Tensor, "c 1 1"],
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> Float32[Tensor, "c h w"]:
    """Return the image with the changes of an augmentation in dB, see `Augmentation.decibels`.

    Raises:
        UserError: the augmentation returns something other than a tensor of the same shape
    """
    shape = image.shape
    changed = augmentation.decibels(image, mean, rng)
    if isinstance(changed, Tensor) and changed.shape == shape:
        return changed.float()
    returned = tuple(changed.shape) if isinstance(changed, Tensor) else type(changed).__name__
    raise wrong_augmentation(augmentation, f"decibels returned {returned}; it must return a tensor of {tuple(shape)}")


def change_pixels(
    augmentation: Augmentation, sample: dict[str, Tensor], rng: np.random.Generator, nodata: Nodata
) -> dict[str, Tensor]:
    """Return the sample with the pixel changes of an augmentation; nodata pixels stay 0 where `nodata` is "zero".

    Raises:
        UserError: the augmentation returns something other than a sample of the same keys and shapes
    """
    if type(augmentation).pixels is Augmentation.pixels:
        return sample
    changed = augmentation.pixels(dict(sample), rng)
    if not isinstance(changed, Mapping):
        returned = type(changed).__name__
        raise wrong_augmentation(augmentation, f"pixels returned {returned}; it must return the sample, a dict")
    if different := sample.keys() ^ changed.keys():
        keys = ", ".join(sorted(map(str, different)))
        raise wrong_augmentation(augmentation, f"pixels dropped or added {keys}; it must return the keys that it got")
    for key, before in sample.items():
        after = changed[key]
        if not isinstance(after, Tensor) or after.shape != before.shape:
            returned = tuple(after.shape) if isinstance(after, Tensor) else type(after).__name__
            raise wrong_augmentation(
                augmentation, f"pixels returned {key} as {returned}; it must return a tensor of {tuple(before.shape)}"
            )
    result = {key: changed[key].to(before.dtype) for key, before in sample.items()}
    if nodata == "zero":
        result["image"] = torch.where(result["valid"], result["image"], 0)
    return result


def wrong_augmentation(augmentation: Augmentation, message: str) -> UserError:
    """Return the error of an augmentation that returns something wrong."""
    name = f"{type(augmentation).__module__}.{type(augmentation).__qualname__}"
    return UserError(
        f"augmentation._target_={name}: {message}", kind="invalid_value", key="augmentation._target_", value=name
    )


def apply_position(pixels: Shaped[Tensor, "*c h w"], position: Position) -> Shaped[Tensor, "*c _ _"]:
    """Flip and rotate the last two axes."""
    flip, quarters = position
    axes = {0: set(), 1: {-1}, 2: {-2, -1}, 3: {-2}}[quarters]  # a rotation by 90° is a flip, then a transposition
    axes = axes ^ {-1} if flip else axes
    flipped = pixels.flip(*axes) if axes else pixels
    return flipped.mT if quarters % 2 else flipped
