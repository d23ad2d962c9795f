"""Pixels to pictures: what is drawn under footprints. Arrays alone, no drawing."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32

from sn6.datasets.layout import PRODUCTS

SAR_BANDS = PRODUCTS["SAR-Intensity"].bands
COMPOSITE = ("HH", "VV", "VH")  # as red, green and blue: the usual order for these tiles
COMPOSITE_RANGE = (10.0, 60.0)  # dB


def span(decibels: Float32[np.ndarray, "c h w"]) -> Float32[np.ndarray, "h w"]:
    """The total power of the polarisations, in decibels: 10·log10 Σ 10^(dB/10)."""
    return 10 * np.log10((10 ** (decibels / 10)).sum(axis=0, dtype=np.float32))


def composite(decibels: Float32[np.ndarray, "4 h w"], valid: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w 3"]:
    """HH as red, VV as green and VH as blue, each from 10 to 60 dB as 0 to 1; nodata is black.

    The range is fixed, so that the colours of two tiles compare.

    Args:
        decibels: HH, HV, VH, VV
        valid: where there is data
    """
    low, high = COMPOSITE_RANGE
    channels = decibels[[SAR_BANDS.index(band) for band in COMPOSITE]]
    return np.moveaxis(np.where(valid, np.clip((channels - low) / (high - low), 0, 1), 0), 0, -1).astype(np.float32)


def contrast(image: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]) -> tuple[float, float]:
    """The values that `grey` shows as black and as white: percentiles 1 and 99.5 over valid pixels."""
    if not valid.any():
        return 0.0, 1.0
    low, high = np.percentile(image[valid], [1, 99.5])
    return float(low), float(high)


def grey(image: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """An image between the limits of its `contrast` as 0 to 1; nodata is 0."""
    low, high = contrast(image, valid)
    return np.where(valid, np.clip((image - low) / max(high - low, 1e-6), 0, 1), 0).astype(np.float32)


def render_background(
    image: Float32[np.ndarray, "c h w"], valid: Bool[np.ndarray, "h w"], names: Sequence[str]
) -> Float32[np.ndarray, "h w *rgb"]:
    """What is drawn under footprints: the span of a radar tile, the colours of an optical one.

    Args:
        image: as on disk, not normalised
        valid: where there is data
        names: of the bands, such as `["HH", "HV", "VH", "VV"]` or `["B", "R", "R", "G"]`
    """
    if set("RGB") <= set(names):
        return np.stack([grey(image[list(names).index(colour)], valid) for colour in "RGB"], axis=-1)
    if set(names) & set(SAR_BANDS):
        return grey(span(image), valid)
    return grey(image.mean(axis=0), valid)
