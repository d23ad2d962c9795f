"""Draw the values of an archive with the published percentiles, and the tile with the most buildings."""

import numpy as np
from jaxtyping import Float32
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sn6.datasets.declaration import DataSet, Tile
from sn6.errors import UserError
from sn6.footprints import Labels
from sn6.inspection.archive import Inspection
from sn6.inspection.histograms import Histogram
from sn6.inspection.reference import PERCENTS, SAR_PERCENTILES
from sn6.plots.tiles import LAYOUT, TRUTH, draw_picture, outline

PICTURE = "PS-RGB"
BINS = 256
MAX_DECIBELS = 80  # end of the axis


def comparison_figure(inspection: Inspection) -> Figure | None:
    """Draw a training tile as the publication does, and the histograms of all training tiles.

    The upper row has each polarisation in grey from 0 to its largest value, the lower row the histograms; on the
    right is the optical image, without and with footprints.

    Returns:
        The figure; None where the values are not counted, or no training tile has a readable radar image with a valid
        pixel.
    """
    data_set, radar = inspection.data_set, inspection.data_set.radar
    tile = most_built_up(inspection)
    if tile is None or radar not in inspection.histograms:
        return None
    sar, (decibels, _) = inspection.histograms[radar], data_set.read(tile, radar, data_set.products[radar].numbers)
    figure = Figure(figsize=(24, 10), layout=LAYOUT)
    axes = figure.subplots(2, 5)
    for number, band in enumerate(sar.bands):
        maximum = decibels[number].max(initial=1.0)
        draw_picture(axes[0, number], decibels[number] / maximum, data_set.pixel_size, f"{band}, 0 to {maximum:.0f} dB")
        draw_histogram(axes[1, number], sar, number)
    picture = true_colours(data_set, tile)
    name = PICTURE if PICTURE in tile.products else sar.bands[0]
    labels = read_labels(data_set, tile)
    count = "unknown" if labels is None else len(labels)
    for axis, title in zip(axes[:, 4], (name, f"footprints: {count}"), strict=True):
        draw_picture(axis, picture, data_set.pixel_size, title)
    if labels is not None:
        style = {"facecolors": "#ff000066", "edgecolors": TRUTH, "linewidths": 0.8}
        axes[1, 4].add_collection(outline(labels.polygons, **style))
    figure.suptitle(f"{tile.image_id}, and the values of all training tiles")
    return figure


def most_built_up(inspection: Inspection) -> Tile | None:
    """Return the training tile with the most buildings whose radar image is finite and has a valid pixel."""
    radar = inspection.data_set.radar or ""
    usable = [
        tile
        for tile in inspection.tiles
        if tile.split == "train" and (image := tile.images.get(radar)) and image.valid and not image.not_finite
    ]
    most = max(usable, key=lambda tile: tile.buildings or 0, default=None)
    return None if most is None else inspection.as_tile(most, radar)


def read_labels(data_set: DataSet, tile: Tile) -> Labels | None:
    """Read the footprints of a tile; None where they are unknown or malformed, a fault of its own."""
    try:
        return data_set.labels(tile)
    except UserError:
        return None


def draw_histogram(axis: Axes, sar: Histogram, number: int) -> None:
    """Draw the histogram of a band over all training tiles, and the published percentiles."""
    edges = np.linspace(0, sar.limit, BINS + 1)
    axis.stairs(sar.counts[number].reshape(BINS, -1).sum(axis=1), edges, fill=True)
    published = SAR_PERCENTILES[sar.bands[number]]
    for value in published:
        axis.axvline(value, color="black", linewidth=1, linestyle="--")
    axis.set(xlim=(0, MAX_DECIBELS), xlabel=f"{sar.bands[number]}, dB", ylabel="valid pixels", yticks=[])
    percents, values = (", ".join(f"{x:g}" for x in numbers) for numbers in (PERCENTS, published))
    axis.set_title(f"dashed: published percentiles {percents} ({values} dB)", fontsize=10)


def true_colours(data_set: DataSet, tile: Tile) -> Float32[np.ndarray, "h w *rgb"]:
    """Read PS-RGB, 0 to 1; the first band of the radar in grey where there is none."""
    if PICTURE in tile.products:
        pixels, _ = data_set.read(tile, PICTURE, range(1, 4))
        return np.moveaxis(pixels / np.float32(255), 0, -1)
    assert data_set.radar is not None
    pixels, _ = data_set.read(tile, data_set.radar, [1])
    return pixels[0] / pixels.max(initial=1.0)
