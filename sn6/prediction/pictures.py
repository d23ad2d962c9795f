"""Draw predicted footprints over their images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import shapely
from matplotlib.figure import Figure

from sn6.data.source import Source
from sn6.footprints import Footprints
from sn6.plots.rendering import render_background
from sn6.plots.tile_selection import evenly_spaced
from sn6.plots.tiles import outline, save_figure
from sn6.prediction.band_selection import band_names
from sn6.prediction.images import Image
from sn6.prediction.partial_results import read_part
from sn6.prediction.plan import Plan

MAX_LENGTH = 1800  # pixels; of a higher or wider image the middle is drawn


def draw_pictures(folder: Path, plan: Plan, source: Source, number: int) -> None:
    """Draw `number` of the images, evenly spaced, to `folder/<image id>.png`."""
    for i in evenly_spaced(range(len(plan.images)), number):
        image = replace(plan.images[i], rotated=False)  # north is up
        rows, columns = middle(image.height), middle(image.width)
        pixels, valid = image.read(rows, columns)
        picture = render_background(np.ascontiguousarray(pixels), valid, band_names(source))
        footprints = [select_within(chunk, rows, columns) for chunk in read_part(plan.part(i))]
        figure = footprints_figure(picture, footprints, title_of(image, rows, columns))
        save_figure(figure, folder / f"{image.image_id}.png")


def middle(size: int) -> slice:
    """Return the pixels to draw of an axis of `size` pixels."""
    start = max(size - MAX_LENGTH, 0) // 2
    return slice(start, start + min(size, MAX_LENGTH))


def select_within(footprints: Footprints, rows: slice, columns: slice) -> Footprints:
    """Return the footprints that intersect a rectangle, in its pixels."""
    rectangle = shapely.box(columns.start, rows.start, columns.stop, rows.stop)
    near = shapely.intersects(footprints.polygons, rectangle)
    shifted = shapely.transform(footprints.polygons[near], lambda xy: xy - (columns.start, rows.start))
    return Footprints(shifted, footprints.confidences[near])


def title_of(image: Image, rows: slice, columns: slice) -> str:
    """Return the image id, with rows and columns if only a part is drawn."""
    if rows.stop - rows.start == image.height and columns.stop - columns.start == image.width:
        return image.image_id
    return f"{image.image_id}, rows {rows.start} to {rows.stop}, columns {columns.start} to {columns.stop}"


def footprints_figure(picture: np.ndarray, footprints: Sequence[Footprints], title: str) -> Figure:
    """Draw the image, and beside it the image with its footprints, coloured by confidence.

    Args:
        picture: (h, w) or (h, w, 3), from 0 to 1
        footprints: footprints in pixels of the picture
        title: title of the figure
    """
    figure = Figure(figsize=(15, 7.5), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis in axes:
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_axis_off()
    polygons = np.concatenate([chunk.polygons for chunk in footprints])
    confidences = np.concatenate([chunk.confidences for chunk in footprints])
    outlines = outline(polygons, facecolors="none", linewidths=1.2, cmap="cool", clim=(0.5, 1.0))
    outlines.set_array(confidences)
    axes[1].add_collection(outlines, autolim=False)  # both panels keep the same extent
    axes[1].set_title(f"{len(polygons)} {'footprint' if len(polygons) == 1 else 'footprints'}")
    figure.colorbar(outlines, ax=axes[1], shrink=0.8, label="confidence", extend="min")
    figure.suptitle(title)
    return figure
