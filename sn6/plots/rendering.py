"""Render the pixels of an image as a picture: arrays in, arrays out."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32

POLARISATIONS = ("HH", "HV", "VH", "VV")
COMPOSITE = ("HH", "VV", "VH")  # as red, green and blue, the usual order for SpaceNet 6
COMPOSITE_RANGE = (10.0, 60.0)  # dB


def span(decibels: Float32[np.ndarray, "c h w"]) -> Float32[np.ndarray, "h w"]:
    """Return the total power of the polarisations in decibels: 10·log10 Σ 10^(dB/10)."""
    return 10 * np.log10((10 ** (decibels / 10)).sum(axis=0, dtype=np.float32))


def composite(
    decibels: Float32[np.ndarray, "c h w"], valid: Bool[np.ndarray, "h w"], names: Sequence[str]
) -> Float32[np.ndarray, "h w 3"]:
    """Return HH as red, VV as green and VH as blue, each scaled from 10..60 dB to 0..1; nodata is black.

    The range is fixed, so that the colours of different tiles are comparable.

    Args:
        decibels: HH, VV and VH are among them
        valid: false on nodata
        names: of the bands
    """
    low, high = COMPOSITE_RANGE
    channels = decibels[[list(names).index(band) for band in COMPOSITE]]
    return np.moveaxis(np.where(valid, np.clip((channels - low) / (high - low), 0, 1), 0), 0, -1).astype(np.float32)


def contrast(image: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]) -> tuple[float, float]:
    """Return the values that `grey` maps to black and to white: percentiles 1 and 99.5 over valid pixels."""
    if not valid.any():
        return 0.0, 1.0
    low, high = np.percentile(image[valid], [1, 99.5])
    return float(low), float(high)


def grey(image: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Return an image scaled from the limits of its `contrast` to 0..1; nodata is 0."""
    low, high = contrast(image, valid)
    return np.where(valid, np.clip((image - low) / max(high - low, 1e-6), 0, 1), 0).astype(np.float32)


def render_background(
    image: Float32[np.ndarray, "c h w"], valid: Bool[np.ndarray, "h w"], names: Sequence[str]
) -> Float32[np.ndarray, "h w *rgb"]:
    """Return the background for footprints, 0 to 1: the span of a radar image, the colours of an optical one.

    Args:
        image: pixels as on disk, not normalised
        valid: false on nodata
        names: names of the bands, such as `["HH", "HV", "VH", "VV"]` or `["B", "R", "R", "G"]`
    """
    if set("RGB") <= set(names):
        return np.stack([grey(image[list(names).index(colour)], valid) for colour in "RGB"], axis=-1)
    if set(names) & set(POLARISATIONS):
        return grey(span(image), valid)
    return grey(image.mean(axis=0), valid)
