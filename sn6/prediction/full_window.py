"""Read windows at the full size that an exported network takes.

The last windows of an image are shorter than the others: they are enlarged backwards, into the image, so that a border
of the image stays a border of what the network sees. Only an image that is smaller than the window is padded.
"""

import numpy as np
from jaxtyping import Bool, Float32

from sn6.prediction.images import Image
from sn6.prediction.mosaic import Region


def enlarged(region: Region, height: int, width: int, window: int) -> Region:
    """Return the rectangle of `window` pixels that contains a region of an image; less where the image is smaller."""
    rows, columns = (
        slice(start := max(0, min(side.start, size - window)), min(start + window, size))
        for side, size in zip(region, (height, width), strict=True)
    )
    return rows, columns


def read_full(
    image: Image, region: Region, window: int
) -> tuple[Float32[np.ndarray, "c w w"], Bool[np.ndarray, "w w"]]:
    """Read the enlarged region of an image, with nodata below and right of an image that is smaller.

    Returns:
        The bands, 0 on nodata, and which pixels are valid.

    Raises:
        UserError: as of `Image.read`
    """
    pixels, valid = image.read(*enlarged(region, image.height, image.width, window))
    grow = [(0, window - size) for size in valid.shape]
    return np.pad(pixels, [(0, 0), *grow]), np.pad(valid, grow)


def crop(
    outputs: Float32[np.ndarray, "k w w"], region: Region, height: int, width: int
) -> Float32[np.ndarray, "k _ _"]:
    """Return the outputs of a region of an image from those of what `read_full` has read."""
    around = enlarged(region, height, width, outputs.shape[-1])
    rows, columns = (
        slice(side.start - outer.start, side.stop - outer.start) for side, outer in zip(region, around, strict=True)
    )
    return np.ascontiguousarray(outputs[:, rows, columns])
