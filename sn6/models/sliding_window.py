"""Prediction of a whole tile in overlapping windows, where memory does not hold it at once."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from sn6.errors import UserError

STRIDE = 32  # of the deepest networks: a window that starts at a multiple of it is pooled as the whole image is


@dataclass(frozen=True, eq=False)
class Window1D:
    """What one window covers of one side of an image.

    Attributes:
        start: its first pixel
        share: of the window in the blend, pixel by pixel; those of all windows sum to 1 everywhere
    """

    start: int
    share: Float32[np.ndarray, "size"]

    @property
    def stop(self) -> int:
        """One past its last pixel."""
        return self.start + len(self.share)


def predict_windows(
    network: Callable[[Tensor], Tensor], image: Float[Tensor, "b c h w"], window: int, overlap: int
) -> Float[Tensor, "b k h w"]:
    """Logits of `image`, one window at a time, blended by shares that go over smoothly from one to the next.

    An image no larger than the window goes through `network` as it is. The mean of the windows is kept in
    float32 on the image's device: where that is the CPU and `network` moves what it gets to another device,
    that device never holds more than one window.

    Args:
        network: (b, c, h, w) → (b, k, h, w)
        image: of any size
        window: side of a window, pixels
        overlap: pixels that neighbouring windows share at least, under `window`

    Raises:
        UserError: an overlap that is negative or not under `window`
    """
    height, width = image.shape[-2:]
    rows, columns = windows_1d(height, window, overlap), windows_1d(width, window, overlap)
    if len(rows) == len(columns) == 1:
        return network(image)
    total = None
    for row in rows:
        for column in columns:
            place = (..., slice(row.start, row.stop), slice(column.start, column.stop))
            logits = network(image[place]).to(image.device, torch.float32)
            if total is None:
                total = logits.new_zeros((*logits.shape[:2], height, width))
            total[place] += logits * torch.from_numpy(np.outer(row.share, column.share)).to(image.device)
    assert total is not None  # there is a window at least
    return total


def windows_1d(size: int, window: int, overlap: int) -> list[Window1D]:
    """The windows along one side of `size` pixels, and the share of each in the blend.

    Windows start at multiples of `STRIDE` where `window` leaves room for that, so the overlap may be a little more than
    asked for; the last one ends with the side, and may be shorter.

    >>> [(one.start, one.stop) for one in stretches(2000, window=1024, overlap=256)]
    [(0, 1024), (768, 1792), (1536, 2000)]

    Raises:
        UserError: an overlap that is negative or not under `window`
    """
    if not 0 <= overlap < window:
        raise UserError(f"overlap={overlap} does not go with window={window}; it is at least 0 and under the window")
    step = window - overlap
    step -= step % STRIDE if step > STRIDE else 0
    starts = range(0, max(size - (window - step), 1), step)
    stops = [min(start + window, size) for start in starts]
    weights = [
        taper(stop - start, window - step if start else 0)
        * taper(stop - start, window - step if stop < size else 0)[::-1]
        for start, stop in zip(starts, stops, strict=True)
    ]
    total = np.zeros(size)
    for start, stop, weight in zip(starts, stops, weights, strict=True):
        total[start:stop] += weight
    return [
        Window1D(start, (weight / total[start:stop]).astype(np.float32))
        for start, stop, weight in zip(starts, stops, weights, strict=True)
    ]


def taper(size: int, overlap: int) -> Float64[np.ndarray, "size"]:
    """Weights over `size` pixels from a border that cuts an image: as good as 0 over 3/8 of `overlap`, then up to 1.

    What lies near such a border is computed from the network's padding instead of the image. With the reach of a
    network (how far a pixel changes its logits) under 3/8 of the overlap, that never comes into the blend.
    """
    if not overlap:
        return np.ones(size)
    inward = (np.arange(size) + 0.5) / overlap
    # not quite 0, for the pixels that no window has in its inside, of overlaps of more than half a window
    return np.sin(np.pi / 2 * np.clip(4 * inward - 1.5, 1e-6 * (1 + inward), 1)) ** 2
