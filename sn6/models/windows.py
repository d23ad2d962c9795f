"""Prediction of a whole tile in overlapping windows, where memory does not hold it at once."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sn6.errors import UserError


def predict_windows(
    network: Callable[[Tensor], Tensor], image: Float[Tensor, "b c h w"], window: int, overlap: int
) -> Float[Tensor, "b k h w"]:
    """Logits of `image`, one window at a time, blended by weights that fall linearly to a window's border.

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
    if not 0 <= overlap < window:
        raise UserError(f"overlap={overlap} does not go with window={window}; it is at least 0 and under the window")
    height, width = image.shape[-2:]
    if height <= window and width <= window:
        return network(image)
    total, weights = None, image.new_zeros((height, width), dtype=torch.float32)
    for top in window_starts(height, window, overlap):
        for left in window_starts(width, window, overlap):
            place = (..., slice(top, top + window), slice(left, left + window))
            logits = network(image[place]).to(image.device, torch.float32)
            weight = torch.outer(tent(logits.shape[-2]), tent(logits.shape[-1])).to(image.device)
            if total is None:
                total = logits.new_zeros((*logits.shape[:2], height, width))
            total[place] += logits * weight
            weights[place] += weight
    assert total is not None  # there is a window at least
    return total / weights


def window_starts(size: int, window: int, overlap: int) -> list[int]:
    """First pixels of the windows along one side; the last one is drawn back to end with the side.

    >>> window_starts(10, window=4, overlap=1)
    [0, 3, 6]
    >>> window_starts(9, window=4, overlap=1)
    [0, 3, 5]
    """
    last = max(size - window, 0)
    return [*range(0, last, window - overlap), last]


def tent(size: int) -> Float[Tensor, " size"]:
    """Distance in pixels from the centre of each of `size` pixels to the nearer end: 0.5, 1.5, ..., 0.5."""
    centres = torch.arange(size) + 0.5
    return torch.minimum(centres, size - centres)
