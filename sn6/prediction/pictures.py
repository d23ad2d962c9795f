"""Pictures of what was predicted: an image as the network's users know it, and the footprints over it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import shapely
from matplotlib.figure import Figure

from sn6.data.dataset import Source
from sn6.datasets.layout import PRODUCTS
from sn6.footprints import Footprints
from sn6.plots.rendering import render_background
from sn6.plots.tiles import outline, save_figure
from sn6.prediction.images import Image
from sn6.prediction.partial_results import read_part
from sn6.prediction.workers import Plan

MAX_SIDE = 1800  # pixels of a side; of a larger image the middle is drawn


def draw_pictures(folder: Path, plan: Plan, source: Source, number: int) -> None:
    """Draws `number` of the images, evenly chosen, to `folder/<image id>.png`."""
    for i in np.unique(np.linspace(0, len(plan.images) - 1, min(number, len(plan.images))).astype(int)).tolist():
        image = replace(plan.images[i], turned=False)  # north is up
        rows, columns = (middle(size) for size in (image.height, image.width))
        pixels, valid = image.read(rows, columns, source.bands)
        names = [PRODUCTS[source.product].bands[band - 1] for band in source.bands]
        seen = [inside(piece, rows, columns) for piece in read_part(plan.part(i))]
        picture = render_background(np.ascontiguousarray(pixels), valid, names)
        save_figure(picture_figure(picture, seen, title(image, rows, columns)), folder / f"{image.image_id}.png")


def middle(size: int) -> slice:
    """The pixels of a side that are drawn."""
    start = max(size - MAX_SIDE, 0) // 2
    return slice(start, start + min(size, MAX_SIDE))


def inside(footprints: Footprints, rows: slice, columns: slice) -> Footprints:
    """The footprints that reach into a rectangle, in its pixels."""
    near = shapely.intersects(footprints.polygons, shapely.box(columns.start, rows.start, columns.stop, rows.stop))
    moved = shapely.transform(footprints.polygons[near], lambda xy: xy - (columns.start, rows.start))
    return Footprints(moved, footprints.confidences[near])


def title(image: Image, rows: slice, columns: slice) -> str:
    """The image, and which part of it where not all is drawn."""
    if rows.stop - rows.start == image.height and columns.stop - columns.start == image.width:
        return image.image_id
    return f"{image.image_id}, rows {rows.start} to {rows.stop}, columns {columns.start} to {columns.stop}"


def picture_figure(picture: np.ndarray, footprints: Sequence[Footprints], title: str) -> Figure:
    """The image alone, and with its footprints coloured by their confidence.

    Args:
        picture: (h, w) or (h, w, 3), from 0 to 1
        footprints: in pixels of the picture
        title: stands above
    """
    figure = Figure(figsize=(15, 7.5), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis in axes:
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_axis_off()
    polygons = np.concatenate([one.polygons for one in footprints])
    confidences = np.concatenate([one.confidences for one in footprints])
    drawn = outline(polygons, facecolors="none", linewidths=1.2, cmap="cool", clim=(0.5, 1.0))
    drawn.set_array(confidences)
    axes[1].add_collection(drawn, autolim=False)  # both panels show the same ground
    axes[1].set_title(f"{len(polygons)} footprints")
    figure.colorbar(drawn, ax=axes[1], shrink=0.8, label="confidence", extend="min")
    figure.suptitle(title)
    return figure
