"""How the values of an image product spread, gathered tile by tile in constant memory."""

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped

STEPS = 1 << 14


class Histogram:
    """A histogram of each band over valid pixels.

    Args:
        bands: names
        top: values lie from 0 to below it, and are told apart by top / 16384
    """

    def __init__(self, bands: tuple[str, ...], top: float) -> None:
        self.bands = bands
        self.step = top / STEPS
        self.counts: Int64[np.ndarray, "bands steps"] = np.zeros((len(bands), STEPS), np.int64)
        self.pixels = 0

    def add(self, image: Shaped[np.ndarray, "bands h w"], valid: Bool[np.ndarray, "h w"]) -> None:
        """Counts the valid pixels of a tile."""
        for counts, band in zip(self.counts, image[:, valid], strict=True):
            counts += np.bincount((band / self.step).astype(np.int64).clip(0, STEPS - 1), minlength=STEPS)
        self.pixels += valid.size

    @property
    def valid_pixels(self) -> int:
        return int(self.counts[0].sum())

    @property
    def nodata_share(self) -> float:
        return 1 - self.valid_pixels / self.pixels

    @property
    def values(self) -> Float64[np.ndarray, " steps"]:
        """The middle of each step of the histograms."""
        return (np.arange(STEPS) + 0.5) * self.step

    def percentile(self, percent: float) -> Float64[np.ndarray, " bands"]:
        """The value that `percent` of the valid pixels of each band do not pass."""
        share = self.counts.cumsum(axis=1) / self.valid_pixels
        return self.values[(share >= percent / 100).argmax(axis=1)]

    @property
    def mean(self) -> Float64[np.ndarray, " bands"]:
        return self.counts @ self.values / self.valid_pixels

    @property
    def deviation(self) -> Float64[np.ndarray, " bands"]:
        return np.sqrt(self.counts @ self.values**2 / self.valid_pixels - self.mean**2)

    @property
    def largest(self) -> float:
        """Of all bands."""
        return float(self.values[np.flatnonzero(self.counts.sum(axis=0))[-1]])
