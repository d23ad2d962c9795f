"""Compare the values of an image with those that a network was trained on, and guess their units.

Two things are compared per band, each by quantiles, which a few bright reflectors do not move: the median with the mean
of the training data, in standard deviations, and of radar the spread (the interquartile range, which is 1.349 standard
deviations of a normal distribution) with their standard deviation. The spread finds linear power: of an image from 0 to
1 with the median 0.1, where the network was trained on -10 ± 5 dB, the median is only 2 standard deviations off.

Measured: tiles of 450 m of the simulated city, water included, deviate by at most 1.6 standard deviations and have 0.3
to 1.3 times the spread, as have crops of 180 m of a real radar image of Rotterdam; in linear power those have less
than 0.08 times the spread.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from sn6.data.normalization import Statistics
from sn6.datasets.declaration import Product

WARN, REFUSE = 3.0, 6.0  # standard deviations from the mean to the median
NORMAL_RANGE = 1.349  # interquartile range of a normal distribution in standard deviations
MIN_SPREAD, MAX_SPREAD = 0.1, 3.0  # of radar, in the training data's; calm water is smooth in an optical image
SIMILAR_SPREAD = (0.2, 3.0)  # of values in the right units


@dataclass(frozen=True, eq=False)
class Sample:
    """Values of some valid pixels of an image.

    Attributes:
        values: pixels, in the units that the file declares
        dtype: of the file
        scaled: whether the file declares a scale or an offset
    """

    values: Float32[np.ndarray, "c n"]
    dtype: str
    scaled: bool


@dataclass(frozen=True)
class Mismatch:
    """How the values of an image differ from those that a network was trained on.

    Attributes:
        deviation: the most that the median of a band is off, in standard deviations
        units: what the values seem to be
        remedy: what to do
        evidence: numbers of the band that is the most off
    """

    deviation: float
    units: str
    remedy: str
    evidence: str

    @property
    def refused(self) -> bool:
        """Return whether the network cannot give anything useful."""
        return self.deviation > REFUSE


@dataclass(frozen=True, eq=False)
class Shape:
    """Quantiles of the values of each band.

    Attributes:
        low: 1st percentile
        first: 25th percentile
        median: 50th percentile
        third: 75th percentile
        high: 99th percentile
    """

    low: Float64[np.ndarray, "c"]
    first: Float64[np.ndarray, "c"]
    median: Float64[np.ndarray, "c"]
    third: Float64[np.ndarray, "c"]
    high: Float64[np.ndarray, "c"]

    @classmethod
    def of(cls, values: Float32[np.ndarray, "c n"]) -> "Shape":
        """Measure values."""
        return cls(*np.quantile(values.astype(np.float64), [0.01, 0.25, 0.5, 0.75, 0.99], axis=1))

    @property
    def spread(self) -> Float64[np.ndarray, "c"]:
        """Return the interquartile range as the standard deviation of a normal distribution."""
        return (self.third - self.first) / NORMAL_RANGE

    def decibels(self, factor: float) -> "Shape":
        """Return the quantiles of factor · log10(values), which are positive: a rising function maps quantiles."""
        quantiles = (self.low, self.first, self.median, self.third, self.high)
        return Shape(*(factor * np.log10(quantile) for quantile in quantiles))


def find_mismatch(sample: Sample, statistics: Statistics, product: Product, names: Sequence[str]) -> Mismatch | None:
    """Return how values differ from the training data; None where they are similar, or nothing is known of those.

    Args:
        sample: at least one pixel
        statistics: mean and standard deviation of the training data
        product: that the network was trained on
        names: of the bands
    """
    if is_constant(statistics):
        return None
    mean, std = np.array(statistics.mean), np.array(statistics.std)
    shape = Shape.of(sample.values)
    deviation, spread = (shape.median - mean) / std, shape.spread / std
    odd_spread = not product.optical and ((spread < MIN_SPREAD).all() or (spread > MAX_SPREAD).any())
    if np.abs(deviation).max() <= WARN and not odd_spread and not impossible(sample, shape, product, mean):
        return None
    units, remedy = (
        optical_units(sample, shape, product, mean) if product.optical else radar_units(sample, shape, mean, std)
    )
    worst = int(np.abs(deviation).argmax())
    evidence = (
        f"{names[worst]}: median {shape.median[worst]:.3g}, spread {shape.spread[worst]:.3g}; trained on "
        f"{mean[worst]:.3g} ± {std[worst]:.3g}"
    )
    return Mismatch(float(np.abs(deviation).max()), units, remedy, evidence)


def is_constant(statistics: Statistics) -> bool:
    """Return whether several bands have the same numbers: those of a recipe, such as (x − 127.5) / 31.875."""
    return len(statistics.mean) > 1 and len({*zip(statistics.mean, statistics.std, strict=True)}) == 1


def impossible(sample: Sample, shape: Shape, product: Product, mean: np.ndarray) -> bool:
    """Return whether values cannot be those of the product: whole decibels, counts of other bits, below 0 or 1."""
    if not product.optical:
        return not sample.scaled and is_whole(sample.values)
    too_few_bits = sample.dtype == "uint8" and not sample.scaled and product.dtype != "uint8"
    negative = bool((shape.low < 0).any())
    return too_few_bits or negative or has_more_bits(shape, product) or is_reflectance(shape, mean)


def has_more_bits(shape: Shape, product: Product) -> bool:
    """Return whether a product of 8 bits has larger values."""
    return product.dtype == "uint8" and bool((shape.high > 255).any())


def is_reflectance(shape: Shape, mean: np.ndarray) -> bool:
    """Return whether values are from 0 to about 1 where the training data were counts."""
    return bool(shape.high.max() <= 2 and mean.min() > 10)


def radar_units(sample: Sample, shape: Shape, mean: np.ndarray, std: np.ndarray) -> tuple[str, str]:
    """Return what values seem to be in place of the decibels of the training data, and what to do."""
    if (shape.low >= 0).all() and is_whole(sample.values):
        if shape.high.max() <= 255:
            return "8-bit numbers, such as those of a picture", "give radar in decibels"
        return "digital numbers", "calibrate them to decibels: units=dn with scale= and offset="
    if (shape.low > 0).all():
        misfits = {}
        for factor, units in ((10, "power"), (20, "amplitude")):
            converted = shape.decibels(factor)
            deviation, spread = np.abs(converted.median - mean) / std, converted.spread / std
            if (deviation <= WARN).all() and is_similar(spread):
                misfits[factor, units] = float((deviation + 4 * np.abs(np.log(spread))).mean())
        if misfits:
            factor, units = min(misfits, key=lambda key: misfits[key])
            return f"linear {units}", f"convert them to decibels, {factor}·log10(x): units={units}"
    if is_similar(shape.spread / std):
        return f"decibels with another offset, about {np.median(shape.median - mean):+.0f}", "calibrate them alike"
    if (shape.low >= 0).all():
        return "linear power, amplitude or a picture", "give radar in decibels as in training"
    return "in other units", "give radar in decibels as in training"


def optical_units(sample: Sample, shape: Shape, product: Product, mean: np.ndarray) -> tuple[str, str]:
    """Return what values seem to be in place of the counts of the training data, and what to do."""
    remedy = "give the same product as in training"
    if (shape.low < 0).any():
        return "no counts, as some are negative", remedy
    if is_reflectance(shape, mean):
        return "reflectance from 0 to 1", "scale them as in training"
    if has_more_bits(shape, product):
        return "counts of more than 8 bits", remedy
    if sample.dtype == "uint8" != product.dtype:
        return "8-bit counts", remedy
    ratio = float(np.median(shape.median / np.maximum(mean, 1e-6)))
    return f"counts on another scale, about {ratio:.2g} times", "scale them as in training"


def is_similar(spread: np.ndarray) -> bool:
    """Return whether spreads, relative to the training data's, are those of values in the right units."""
    return bool((spread >= SIMILAR_SPREAD[0]).all() and (spread <= SIMILAR_SPREAD[1]).all())


def is_whole(values: np.ndarray) -> bool:
    """Return whether nearly all values are whole numbers."""
    return bool((values == np.rint(values)).mean() > 0.99)
