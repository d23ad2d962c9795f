"""Draw predicted footprints over their images, north up."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
import shapely
from jaxtyping import Float
from matplotlib.figure import Figure
from rasterio.windows import Window

from sn6.data.source import Source
from sn6.errors import counted
from sn6.footprints import Footprints
from sn6.plots.instances import colours_of, draw_instances
from sn6.plots.maps import NO_MAPS, Maps, draw_colour_bar, draw_map, panels
from sn6.plots.rendering import render_background
from sn6.plots.tile_selection import evenly_spaced
from sn6.plots.tiles import TileView, draw_compass, draw_picture, hide_frame, outline, save_figure
from sn6.prediction.images import Image, TileImage
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
        view = TileView(picture, image.pixel_metres, title_of(image, rows, columns), orientation_of(image))
        figure = footprints_figure(view, footprints, image.crs is not None, maps)
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


def orientation_of(image: Image) -> int | None:
    """Return 0 for a radar tile imaged from the north, 1 for one from the south, None where that is not known."""
    return image.raster.tile.orientation if isinstance(image.raster, TileImage) else None


def footprints_figure(
    view: TileView, footprints: Sequence[Footprints], has_place: bool, maps: Maps = NO_MAPS
) -> Figure:
    """Draw the image, beside it its footprints coloured by confidence, then each in a colour of its own, then the maps.

    Args:
        view: the image, north up
        footprints: footprints in pixels of the picture
        has_place: whether the image has a CRS, so that its scale and north are known
        maps: name → map of the picture, after activation
    """
    drawn = list(panels(maps))
    count = 3 + len(drawn)
    columns = 4 if count == 4 or count > 6 else 3
    rows, aspect = -(-count // columns), view.picture.shape[0] / view.picture.shape[1]
    figure = Figure(figsize=(6.5 * columns, (6.4 * min(aspect, 1) + 0.6) * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        hide_frame(axis)
    polygons = np.concatenate([chunk.polygons for chunk in footprints])
    confidences = np.concatenate([chunk.confidences for chunk in footprints])
    titles = ("image", f"{counted(len(polygons), 'footprint')} by confidence", "one by one")
    for axis, title in zip(axes, titles, strict=False):
        draw_picture(axis, view.picture, view.pixel_size if has_place else None, title)
    if has_place:
        draw_compass(axes[0], view.orientation)
    outlines = outline(polygons, facecolors="none", linewidths=1.2, cmap="cool", clim=colour_range(confidences))
    outlines.set_array(confidences)
    axes[1].add_collection(outlines)
    draw_colour_bar(axes[1], outlines, "neither")
    draw_instances(axes[2], polygons, colours_of(polygons))
    for axis, (name, values) in zip(axes[3:], drawn, strict=False):
        draw_map(axis, name, values)
    figure.suptitle(view.title)
    return figure


def colour_range(confidences: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Return the ends of a colour bar: the multiples of 0.05 around all confidences; 0 and 1 where there are none."""
    if not len(confidences):
        return 0.0, 1.0
    low, high = np.floor(confidences.min() * 20 + 1e-6) / 20, np.ceil(confidences.max() * 20 - 1e-6) / 20
    return float(low), float(max(high, low + 0.05))
