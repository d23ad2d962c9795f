"""Average what several images show of the same ground, before the activation of the heads."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped
from scipy import ndimage

LEAST = 1e-3  # of a weight: at a border the only look at a pixel has to count


@dataclass(frozen=True)
class Fusion:
    """How the looks at a pixel are weighted.

    Attributes:
        fade: m; the weight of a look falls to 0 over this distance from the border of its image and from larger
            nodata; 0 gives all of its pixels the same weight
        balance: the looks from the north and those from the south count equally together, whatever their numbers
    """

    fade: float
    balance: bool


class LookMean:
    """The weighted mean of looks at a rectangle, which are added one by one.

    The sums are of float64, so that the mean of equal values is that value to the last bit of float32.

    Args:
        channels: of the outputs
        height: of the rectangle
        width: of the rectangle
        balance: see `Fusion`
    """

    def __init__(self, channels: int, height: int, width: int, balance: bool) -> None:
        sides = 2 if balance else 1
        self.sums = np.zeros((sides, channels, height, width))
        self.weights = np.zeros((sides, height, width))
        self.greatest = np.zeros((sides, height, width), dtype=np.float32)
        self.looks = np.zeros((height, width), dtype=np.uint16)

    def add(
        self,
        place: tuple[slice, slice],
        outputs: Float32[np.ndarray, "k h w"],
        weights: Float32[np.ndarray, "h w"],
        from_south: bool,
    ) -> None:
        """Add a look.

        Args:
            place: its rows and columns in the rectangle
            outputs: of the network, in the frame of the map; NaN where the look has no data
            weights: 0 where it has no data
            from_south: whether it was imaged from the south
        """
        side = int(from_south) % len(self.sums)
        seen = weights > 0
        values = np.where(seen, outputs, np.float32(0))
        self.sums[side, :, *place] += np.multiply(values, weights, dtype=np.float64)
        self.weights[side, *place] += weights
        greatest = self.greatest[side, *place]
        np.maximum(greatest, weights, out=greatest)
        self.looks[place] += seen

    def result(self) -> tuple[Float32[np.ndarray, "k h w"], Int64[np.ndarray, "h w"]]:
        """Return the mean, NaN where there is no look, and the number of looks at each pixel.

        A balanced mean is that of the means of both sides, each with the greatest weight of its looks: one side alone
        where the other has none, and no step where the last look of a side fades out.
        """
        means = np.divide(self.sums, self.weights[:, None], out=self.sums, where=self.weights[:, None] > 0)
        total = self.greatest.sum(axis=0, dtype=np.float64)
        mean = np.full(means.shape[1:], np.nan)
        np.divide((means * self.greatest[:, None]).sum(axis=0), total, out=mean, where=total > 0)
        return mean.astype(np.float32), self.looks.astype(np.int64)


def look_weights(valid: Bool[np.ndarray, "h w"], reach: int) -> Float32[np.ndarray, "h w"]:
    """Return the weight of each pixel of a look: 2·s - 1, where s is the share of valid pixels around it.

    Around are the (2·reach + 1)² pixels of the square that it is the middle of; beyond the array there are none. So the
    weight is 1 at `reach` pixels from a straight border, and about 0 at it; single pixels of nodata hardly change it.
    It is at least `LEAST` on valid pixels, and 0 on others.
    """
    width = 2 * reach + 1
    columns = window_counts(valid, reach).astype(np.float32)
    columns /= width  # as the mean of the filter along the other axis
    weights = ndimage.uniform_filter1d(columns, width, axis=1, mode="constant")
    weights *= 2
    weights -= 1
    np.clip(weights, LEAST, 1, out=weights)
    weights *= valid
    return weights


def window_counts(valid: Bool[np.ndarray, "h w"], reach: int) -> Shaped[np.ndarray, "h w"]:
    """Count the valid pixels in the 2·reach + 1 rows around each pixel, in its column; beyond the array there are none.

    The sum of 2n rows is that of two sums of n, so that the steps grow with the logarithm of the reach.
    """
    width = 2 * reach + 1
    rows = np.pad(valid.astype(np.min_scalar_type(width)), ((reach, reach), (0, 0)))
    counts, covered = rows, 1
    for digit in f"{width:b}"[1:]:
        counts, covered = counts[:-covered] + counts[covered:], 2 * covered
        if digit == "1":
            counts, covered = counts[:-1] + rows[covered:], covered + 1
    return counts


def interpolate(values: Float32[np.ndarray, "k h w"], down: float, right: float) -> Float32[np.ndarray, "k _ _"]:
    """Move values by a fraction of a pixel, down and to the right, by bilinear interpolation.

    Args:
        values: with one more row at the top where `down` is above 0, and one more column on the left for `right`
        down: from 0 to less than 1
        right: from 0 to less than 1

    Returns:
        The values without the additional row and column; NaN where one of the pixels that they are made from is NaN.
    """
    if down:
        upper, values = np.float32(down) * values[:, :-1], np.float32(1 - down) * values[:, 1:]
        values += upper
    if right:
        left, values = np.float32(right) * values[:, :, :-1], np.float32(1 - right) * values[:, :, 1:]
        values += left
    return values
