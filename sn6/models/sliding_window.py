"""Predict a large image in overlapping windows and blend their logits."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from sn6.errors import UserError

STRIDE = 32  # of the deepest networks: windows that start at its multiples are pooled as in a single pass


@dataclass(frozen=True, eq=False)
class Window1D:
    """Extent and blend weights of one window along one axis of an image.

    Attributes:
        start: first pixel
        blend_weight: weight of each pixel of the window; the weights of all windows sum to 1 at every pixel
    """

    start: int
    blend_weight: Float32[np.ndarray, "size"]

    @property
    def stop(self) -> int:
        """Return the end, one past the last pixel."""
        return self.start + len(self.blend_weight)


def predict_windows(
    network: Callable[[Tensor], Tensor], image: Float[Tensor, "b c h w"], window: int, overlap: int
) -> Float[Tensor, "b k h w"]:
    """Predict `image` one window at a time and blend the logits by weights that change smoothly between windows.

    An image no larger than the window is passed to `network` in one piece. The blend is accumulated in float32 on the
    device of the image: if that is the CPU and `network` moves its input to another device, that device holds one
    window at a time.

    Args:
        network: (b, c, h, w) → (b, k, h, w)
        image: an image of any height and width
        window: edge length of a window in pixels
        overlap: minimum overlap of neighbouring windows in pixels, less than `window`

    Raises:
        UserError: the overlap is negative or not less than `window`
    """
    height, width = image.shape[-2:]
    rows, columns = windows_1d(height, window, overlap), windows_1d(width, window, overlap)
    if len(rows) == len(columns) == 1:
        return network(image)
    total = None
    for row in rows:
        for column in columns:
            region = (..., slice(row.start, row.stop), slice(column.start, column.stop))
            logits = network(image[region]).to(image.device, torch.float32)
            if total is None:
                total = logits.new_zeros((*logits.shape[:2], height, width))
            weight = np.outer(row.blend_weight, column.blend_weight)
            total[region] += logits * torch.from_numpy(weight).to(image.device)
    assert total is not None  # there is at least one window
    return total


@lru_cache(maxsize=64)  # a large image is read in many rectangles, each from the same windows
def windows_1d(size: int, window: int, overlap: int) -> tuple[Window1D, ...]:
    """Return the windows along an axis of `size` pixels, with their blend weights.

    If `window - overlap` is larger than `STRIDE`, windows start at its multiples and the overlap may be larger than
    given. The last window ends at the end of the axis and may be shorter.

    >>> [(one.start, one.stop) for one in windows_1d(2000, window=1024, overlap=256)]
    [(0, 1024), (768, 1792), (1536, 2000)]

    Raises:
        UserError: the overlap is negative or not less than `window`
    """
    check_overlap(window, overlap)
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
    return tuple(
        Window1D(start, (weight / total[start:stop]).astype(np.float32))
        for start, stop, weight in zip(starts, stops, weights, strict=True)
    )


def check_overlap(window: int, overlap: int) -> None:
    """Raise a UserError if the overlap is negative or not less than the window."""
    if not 0 <= overlap < window:
        raise UserError(
            f"invalid overlap={overlap}: must be at least 0 and less than window={window}",
            kind="invalid_value",
            key="overlap",
            value=overlap,
        )


def taper(size: int, overlap: int) -> Float64[np.ndarray, "size"]:
    """Return weights over `size` pixels from a border inside the image: about 0 over 3/8 of `overlap`, then up to 1.

    Logits near such a border depend on the network's padding instead of the image. If the reach of a network (how far
    away a pixel changes logits) is less than 3/8 of the overlap, these logits get no weight.
    """
    if not overlap:
        return np.ones(size)
    inward = (np.arange(size) + 0.5) / overlap
    # not exactly 0: with overlaps of more than half a window, some pixels are near a border of all their windows
    return np.sin(np.pi / 2 * np.clip(4 * inward - 1.5, 1e-6 * (1 + inward), 1)) ** 2
