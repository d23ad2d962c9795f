"""An archive held against the published one: its values, nodata and labels in a table, and a picture."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table

from sn6.datasets.archive import Archive, Tile
from sn6.datasets.layout import PRODUCTS
from sn6.footprints import Labels
from sn6.inspection.histograms import Histogram
from sn6.inspection.reference import (
    LABEL_ROWS,
    NODATA_SHARE,
    OPTICAL_DEVIATIONS,
    OPTICAL_MEANS,
    PERCENTS,
    SAR_DEVIATIONS,
    SAR_LARGEST,
    SAR_MEANS,
    SAR_PERCENTILES,
)
from sn6.plots.tiles import LAYOUT, TRUTH, draw_picture, outline

SAR, OPTICAL, PICTURE = "SAR-Intensity", "PS-RGBNIR", "PS-RGB"
SAR_TOP, OPTICAL_TOP = 128.0, 2048.0  # over the largest values
SAR_BINS = 256  # of the figure's histograms
NEAR = 2.5  # dB: by which a percentile may differ
NODATA_RANGE = (0.10, 0.18)


class Row(NamedTuple):
    """A line of the table.

    Attributes:
        name: what it is, with its unit
        here: in the archive
        published: in the published one
        low, high: between which `here` agrees; None where nothing is asked
    """

    name: str
    here: float
    published: float
    low: float | None = None
    high: float | None = None

    @property
    def agrees(self) -> bool | None:
        return None if self.low is None or self.high is None else bool(self.low <= self.here <= self.high)


class Measured(NamedTuple):
    """What was gathered over tiles.

    Attributes:
        sar: levels of the radar images
        optical: levels of PS-RGBNIR, None where no tile has it
        label_rows: rows of the labels' table a tile, a tile without buildings having one
    """

    sar: Histogram
    optical: Histogram | None
    label_rows: float


def measure_tiles(archive: Archive, tiles: Iterable[Tile]) -> Measured:
    """Reads the radar and the optical images of `tiles` one by one."""
    sar = Histogram(PRODUCTS[SAR].bands, SAR_TOP)
    optical = Histogram(PRODUCTS[OPTICAL].bands, OPTICAL_TOP)
    rows = []
    for tile in tiles:
        sar.add(*archive.read(tile, SAR, range(1, 5)))
        if OPTICAL in tile.products:
            optical.add(*archive.read(tile, OPTICAL, range(1, 5)))
        labels = archive.labels(tile)
        rows.append(max(len(labels), 1) if labels is not None else 0)
    return Measured(sar, optical if optical.pixels else None, float(np.mean(rows)))


def compare(measured: Measured) -> list[Row]:
    """The archive's figures beside the published ones."""
    sar = measured.sar
    rows = [
        Row(f"{band} percentile {percent}, dB", here, published[k], published[k] - NEAR, published[k] + NEAR)
        for k, percent in enumerate(PERCENTS)
        for here, (band, published) in zip(sar.percentile(percent), SAR_PERCENTILES.items(), strict=True)
    ]
    rows += rows_of("mean, dB", sar.mean, SAR_MEANS) + rows_of("deviation, dB", sar.deviation, SAR_DEVIATIONS)
    rows.append(Row("largest value, dB", sar.largest, SAR_LARGEST))
    rows.append(Row("nodata, share of pixels", sar.nodata_share, NODATA_SHARE, *NODATA_RANGE))
    rows.append(Row("label rows a tile", measured.label_rows, LABEL_ROWS))
    if measured.optical is not None:
        rows += rows_of(f"mean, {OPTICAL}", measured.optical.mean, OPTICAL_MEANS)
        rows += rows_of(f"deviation, {OPTICAL}", measured.optical.deviation, OPTICAL_DEVIATIONS)
    return rows


def rows_of(name: str, here: Float64[np.ndarray, " bands"], published: Mapping[str, float]) -> list[Row]:
    """A row for each band, in the order of `published`."""
    return [Row(f"{band} {name}", x, known) for x, (band, known) in zip(here, published.items(), strict=True)]


def table_of(rows: Sequence[Row]) -> Table:
    """The rows for a terminal."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("", "here", "published", "difference", "agrees"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for row in rows:
        style = ".3f" if row.published < 1 else ".1f"
        cells = (format(x, style) for x in (row.here, row.published))
        verdict = {None: "", True: "yes", False: "[bold red]no"}[row.agrees]
        table.add_row(row.name, *cells, format(row.here - row.published, "+" + style), verdict)
    return table


def comparison_figure(archive: Archive, tile: Tile, sar: Histogram, labels: Labels | None) -> Figure:
    """A tile as the published pictures show tiles: each polarisation in grey from 0 to its largest value, below it
    the values of all tiles; beside them the optical image, with and without its footprints.

    Args:
        archive: that holds the tile
        tile: to show
        sar: the levels of all tiles
        labels: of the tile
    """
    decibels, _ = archive.read(tile, SAR, range(1, 5))
    figure = Figure(figsize=(24, 10), layout=LAYOUT)
    axes = figure.subplots(2, 5)
    for number, band in enumerate(sar.bands):
        grey = decibels[number] / decibels[number].max(initial=1.0)
        draw_picture(axes[0, number], grey, f"{band}, from 0 dB to the largest")
        draw_histogram(axes[1, number], sar, number)
    picture = natural_colours(archive, tile)
    for axis, name in zip(axes[:, 4], (PICTURE, "footprints"), strict=True):
        draw_picture(axis, picture, name)
    if labels is not None:
        style = {"facecolors": "#ff000066", "edgecolors": TRUTH, "linewidths": 0.8}
        axes[1, 4].add_collection(outline(labels.polygons, **style))
    figure.suptitle(tile.image_id)
    return figure


def draw_histogram(axis: Axes, sar: Histogram, number: int) -> None:
    """The values of a band over all tiles, and where the published percentiles lie."""
    edges = np.linspace(0, SAR_TOP, SAR_BINS + 1)
    axis.stairs(sar.counts[number].reshape(SAR_BINS, -1).sum(axis=1), edges, fill=True)
    for percent, value in zip(PERCENTS, SAR_PERCENTILES[sar.bands[number]], strict=True):
        axis.axvline(value, color="black", linewidth=1, linestyle="--", label=f"published {percent}%: {value:g} dB")
    axis.set(xlim=(0, 80), xlabel="dB", yticks=[])
    axis.legend()


def natural_colours(archive: Archive, tile: Tile) -> Float32[np.ndarray, "h w *rgb"]:
    """PS-RGB as 0 to 1; HH in grey where there is none."""
    if PICTURE in tile.products:
        pixels, _ = archive.read(tile, PICTURE, range(1, 4))
        return np.moveaxis(pixels / np.float32(255), 0, -1)
    pixels, _ = archive.read(tile, SAR, [1])
    return pixels[0] / pixels.max(initial=1.0)
