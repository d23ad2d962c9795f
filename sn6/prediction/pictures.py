"""Draw predicted footprints over their images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
import shapely
from matplotlib.figure import Figure
from rasterio.windows import Window

from sn6.data.source import Source
from sn6.errors import counted
from sn6.footprints import Footprints
from sn6.plots.instances import colours_of, draw_instances
from sn6.plots.maps import NO_MAPS, Maps, draw_colour_bar, draw_map, panels
from sn6.plots.rendering import render_background
from sn6.plots.tile_selection import evenly_spaced
from sn6.plots.tiles import outline, save_figure
from sn6.prediction.images import Image
from sn6.prediction.plan import Plan
from sn6.prediction.regular_results import read_footprints

MAX_LENGTH = 1800  # pixels; of a higher or wider image the middle is drawn


def draw_pictures(folder: Path, plan: Plan, source: Source, number: int) -> None:
    """Draw `number` of the images, evenly spaced, to `folder/<image id>.png`."""
    for i in evenly_spaced(range(len(plan.images)), number):
        image = replace(plan.images[i], rotated=False)  # north is up
        rows, columns = middle(image.height), middle(image.width)
        pixels, valid = image.read(rows, columns)
        picture = render_background(np.ascontiguousarray(pixels), valid, source.band_names)
        chunks = read_footprints(plan.part(i), image.pixel_metres, plan.regularize)
        footprints = [select_within(chunk, rows, columns) for chunk in chunks]
        maps = {} if plan.rasters is None else read_maps(plan.rasters / f"{image.image_id}.tif", rows, columns)
        figure = footprints_figure(picture, footprints, title_of(image, rows, columns), maps)
        save_figure(figure, folder / f"{image.image_id}.png")


def read_maps(path: Path, rows: slice, columns: slice) -> dict[str, np.ndarray]:
    """Read a rectangle of each band of a raster that the prediction wrote: name → (1, h, w), NaN on nodata."""
    with rasterio.open(path) as raster:
        window = Window.from_slices(rows, columns)
        values = raster.read(window=window, masked=True).astype(np.float32).filled(np.nan)
        scaled = values * np.array(raster.scales, dtype=np.float32)[:, None, None]
        return {name: band[None] for name, band in zip(raster.descriptions, scaled, strict=True)}


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


def footprints_figure(
    picture: np.ndarray, footprints: Sequence[Footprints], title: str, maps: Maps = NO_MAPS
) -> Figure:
    """Draw the image, beside it its footprints coloured by confidence, then each in a colour of its own, then the maps.

    Args:
        picture: (h, w) or (h, w, 3), from 0 to 1
        footprints: footprints in pixels of the picture
        title: title of the figure
        maps: name → map of the picture, after activation
    """
    drawn = list(panels(maps))
    count = 3 + len(drawn)
    columns = 4 if count == 4 or count > 6 else 3
    rows, aspect = -(-count // columns), picture.shape[0] / picture.shape[1]
    figure = Figure(figsize=(6.5 * columns, (6.4 * min(aspect, 1) + 0.6) * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis in axes[:3]:
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    polygons = np.concatenate([chunk.polygons for chunk in footprints])
    confidences = np.concatenate([chunk.confidences for chunk in footprints])
    outlines = outline(polygons, facecolors="none", linewidths=1.2, cmap="cool", clim=(0.5, 1.0))
    outlines.set_array(confidences)
    axes[1].add_collection(outlines, autolim=False)  # all panels keep the same extent
    axes[1].set_title(f"{counted(len(polygons), 'footprint')} by confidence")
    draw_colour_bar(axes[1], outlines, "min")
    axes[2].autoscale(False)
    axes[2].set_title("one by one")
    draw_instances(axes[2], polygons, colours_of(polygons))
    for axis, (name, values) in zip(axes[3:], drawn, strict=False):
        draw_map(axis, name, values)
    figure.suptitle(title)
    return figure
