"""Windows on which an exported file is compared with its network: of images, or of random values."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from sn6.data.normalization import Statistics
from sn6.data.source import Source
from sn6.prediction.full_window import read_full
from sn6.prediction.images import Image

COUNT = 10  # windows


@dataclass(frozen=True, eq=False)
class ComparedWindow:
    """A window, as it is read and as files have it.

    Attributes:
        pixels: bands in decibels, or in the units of an optical product; 0 on nodata
        valid: false on nodata
        values: bands in the units of the product; the product's nodata value on nodata, or NaN
    """

    pixels: Float32[np.ndarray, "c w w"]
    valid: Bool[np.ndarray, "w w"]
    values: Float32[np.ndarray, "c w w"]


def windows_of_images(images: Sequence[Image], source: Source, window: int) -> Iterator[ComparedWindow]:
    """Yield windows that are spread over images, one of each or several; smaller images end in nodata.

    Raises:
        UserError: an image cannot be read
    """
    for number in range(COUNT):
        image = images[number * len(images) // COUNT if len(images) >= COUNT else number % len(images)]
        place = (number // len(images) + 0.5) * min(1, len(images) / COUNT)  # along the diagonal of the image
        rows, columns = (
            slice(start := round(max(size - window, 0) * place), min(start + window, size))
            for size in (image.height, image.width)
        )
        yield as_in_files(*read_full(image, (rows, columns), window), source)


def random_windows(statistics: Statistics, source: Source, window: int) -> Iterator[ComparedWindow]:
    """Yield windows of normally distributed values of the statistics, with nodata in rows and in single pixels."""
    random = np.random.default_rng(0)
    mean, std = (np.array(values)[:, None, None] for values in (statistics.mean, statistics.std))
    for number in range(COUNT):
        pixels = (mean + std * random.standard_normal((len(mean), window, window))).astype(np.float32)
        valid = random.random((window, window)) > 0.01
        valid[: number * window // (2 * COUNT)] = False
        yield as_in_files(pixels, valid, source)


def as_in_files(pixels: Float32[np.ndarray, "c w w"], valid: Bool[np.ndarray, "w w"], source: Source) -> ComparedWindow:
    """Return a window with the values that files have."""
    nodata = source.product.nodata
    values = source.product.units.from_decibels(pixels, valid)
    values = values if nodata is None else np.where(valid, values, np.float32(nodata))
    return ComparedWindow(np.where(valid, pixels, np.float32(0)), valid, values)
