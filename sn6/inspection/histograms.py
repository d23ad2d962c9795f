"""Count the values of an image product over many tiles, in constant memory."""

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped

from sn6.datasets.declaration import Product

BINS = 1 << 14


class Histogram:
    """A histogram of each band of a product over valid pixels, from 0 to a limit; histograms of tiles can be merged.

    Args:
        product: whose values are counted; it has a limit
    """

    def __init__(self, product: Product) -> None:
        assert product.limit is not None
        self.bands, self.limit = product.bands, product.limit
        self.bin_width = self.limit / BINS
        self.counts: Int64[np.ndarray, "bands bins"] = np.zeros((len(self.bands), BINS), np.int64)
        self.pixels = 0

    def add(self, image: Shaped[np.ndarray, "bands h w"], valid: Bool[np.ndarray, "h w"]) -> None:
        """Count the valid pixels of a tile; values outside of 0 to the limit are counted in the first or last bin."""
        for counts, band in zip(self.counts, image, strict=True):
            bins = (band[valid] / self.bin_width).clip(0, BINS - 1)
            counts += np.bincount(bins.astype(np.intp), minlength=BINS)
        self.pixels += valid.size

    def merge(self, other: "Histogram") -> None:
        """Add the counts of another histogram of the same product."""
        self.counts += other.counts
        self.pixels += other.pixels

    @property
    def valid_pixels(self) -> int:
        """Return the number of valid pixels."""
        return int(self.counts[0].sum())

    @property
    def nodata_fraction(self) -> float:
        """Return the fraction of pixels that are nodata."""
        return 1 - self.valid_pixels / self.pixels

    @property
    def values(self) -> Float64[np.ndarray, " bins"]:
        """Return the centre of each bin."""
        return (np.arange(BINS) + 0.5) * self.bin_width

    def percentile(self, percent: float) -> Float64[np.ndarray, " bands"]:
        """Return the percentile of the valid pixels of each band."""
        cumulative = self.counts.cumsum(axis=1) / self.valid_pixels
        return self.values[(cumulative >= percent / 100).argmax(axis=1)]

    @property
    def mean(self) -> Float64[np.ndarray, " bands"]:
        """Return the mean of each band."""
        return self.counts @ self.values / self.valid_pixels

    @property
    def std(self) -> Float64[np.ndarray, " bands"]:
        """Return the standard deviation of each band."""
        return np.sqrt(self.counts @ self.values**2 / self.valid_pixels - self.mean**2)

    @property
    def skewness(self) -> Float64[np.ndarray, " bands"]:
        """Return the skewness of each band: the third central moment over the cube of the standard deviation."""
        moment = (self.counts * (self.values - self.mean[:, None]) ** 3).sum(axis=1) / self.valid_pixels
        return moment / self.std**3

    @property
    def maximum(self) -> float:
        """Return the largest value of all bands."""
        return float(self.values[np.flatnonzero(self.counts.sum(axis=0))[-1]])
