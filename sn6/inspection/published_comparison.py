"""Compare an archive with the published SpaceNet 6: values, nodata and labels of the training tiles."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from sn6.inspection.archive import Inspection
from sn6.inspection.coarse import RadarHistogram
from sn6.inspection.histograms import Histogram
from sn6.inspection.reference import (
    COARSE_CORRELATION,
    COARSE_LOWER_TAIL,
    COARSE_RESIDUAL,
    COARSE_SKEWNESS,
    COARSE_UPPER_TAIL,
    LABEL_ROWS,
    NODATA_FRACTION,
    OPTICAL_MEANS,
    OPTICAL_STDS,
    PERCENTS,
    SAR_MAXIMUM,
    SAR_MEANS,
    SAR_PERCENTILES,
    SAR_STDS,
)

OPTICAL = "PS-RGBNIR"
PERCENTILE_TOLERANCE = 2.5  # dB
NODATA_RANGE = (0.10, 0.18)


class Row(NamedTuple):
    """A value of the archive and the published one.

    Attributes:
        name: name of the value, with its unit
        value: value of this archive
        published: published value
        minimum, maximum: range of `value` that is within tolerance; None where the two are only compared
    """

    name: str
    value: float
    published: float
    minimum: float | None = None
    maximum: float | None = None

    @property
    def within_tolerance(self) -> bool | None:
        """Return whether the value is within tolerance, None where there is none."""
        if self.minimum is None or self.maximum is None:
            return None
        return bool(self.minimum <= self.value <= self.maximum)


def compare(inspection: Inspection) -> list[Row]:
    """Compare the training tiles of an archive with the published values; nothing without valid radar pixels."""
    sar = inspection.histograms.get(inspection.data_set.radar or "")
    if sar is None or not sar.valid_pixels:
        return []
    rows = [
        Row(f"{band} percentile {percent}, dB", value, published[k], *around(published[k]))
        for k, percent in enumerate(PERCENTS)
        for value, (band, published) in zip(sar.percentile(percent), SAR_PERCENTILES.items(), strict=True)
    ]
    rows += rows_by_band("mean, dB", sar.mean, SAR_MEANS)
    rows += rows_by_band("standard deviation, dB", sar.std, SAR_STDS)
    rows.append(Row("largest value, dB", sar.maximum, SAR_MAXIMUM))
    rows.append(Row("fraction of nodata", sar.nodata_fraction, NODATA_FRACTION, *NODATA_RANGE))
    rows.append(Row("label rows per tile", label_rows(inspection), LABEL_ROWS))
    rows += coarse_rows(sar)
    optical = inspection.histograms.get(OPTICAL)
    if optical is not None and optical.valid_pixels:
        rows += rows_by_band(f"mean, {OPTICAL}", optical.mean, OPTICAL_MEANS)
        rows += rows_by_band(f"standard deviation, {OPTICAL}", optical.std, OPTICAL_STDS)
    return rows


def coarse_rows(sar: Histogram) -> list[Row]:
    """Compare the radar at 4.5 m with the crop of real radar: tails, bands, residuals; nothing without a cell."""
    if not isinstance(sar, RadarHistogram) or not sar.cells.valid_pixels:
        return []
    lower, median, upper = (sar.cells.percentile(percent) for percent in PERCENTS)
    rows = rows_by_band("skewness at 4.5 m", sar.cells.skewness, COARSE_SKEWNESS)
    rows += rows_by_band("percentile 99 − 50 at 4.5 m, dB", upper - median, COARSE_UPPER_TAIL)
    rows += rows_by_band("percentile 50 − 1 at 4.5 m, dB", median - lower, COARSE_LOWER_TAIL)
    if sar.blocks:
        rows += rows_by_band("variance in blocks of 72 m at 4.5 m, dB²", sar.residual_variance, COARSE_RESIDUAL)
    correlation, number = sar.correlation, {band: i for i, band in enumerate(sar.bands)}
    return rows + [
        Row(f"correlation of {one} and {other} at 4.5 m", correlation[number[one], number[other]], real)
        for (one, other), real in COARSE_CORRELATION.items()
    ]


def around(published: float) -> tuple[float, float]:
    """Return the range of percentiles that are within tolerance."""
    return published - PERCENTILE_TOLERANCE, published + PERCENTILE_TOLERANCE


def rows_by_band(name: str, values: Float64[np.ndarray, " bands"], published: Mapping[str, float]) -> list[Row]:
    """Return a row for each band, in the order of `published`."""
    return [Row(f"{band} {name}", value, known) for value, (band, known) in zip(values, published.items(), strict=True)]


def label_rows(inspection: Inspection) -> float:
    """Return the mean number of rows in the table of labels per training tile; one for a tile without buildings."""
    tiles = [tile for tile in inspection.tiles if tile.split == "train" and inspection.data_set.radar in tile.images]
    return float(np.mean([0 if tile.buildings is None else max(tile.buildings, 1) for tile in tiles]))
