"""Draw tiles and their footprints, without a display.

Tiles are drawn in their own frame, north up. The colours of a figure can be distinguished with any colour blindness.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from jaxtyping import Float, Float32
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.path import Path as Outline
from matplotlib.patheffects import withStroke

from sn6.files import atomic_write
from sn6.footprints import Labels, Polygons

TRUTH, PROPOSAL = "#ffcc00", "#4cc9f0"
TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE = "#0d86ff", TRUTH, "#ff266f"
COLOUR_MAP = ListedColormap(colormaps["viridis"](np.linspace(0.2, 1, 256)))  # its darkest fifth is too dark to see
DIMMED = 0.55  # brightness of the background under filled footprints
LEGEND: dict[str, Any] = {  # below the panel, narrow enough for three entries with three digits
    "loc": "upper center",
    "bbox_to_anchor": (0.5, 0),
    "ncols": 3,
    "frameon": False,
    "handlelength": 1.2,
    "handletextpad": 0.5,
    "columnspacing": 1.0,
}
LAYOUT = ConstrainedLayoutEngine(h_pad=0.08)  # inches
PANELS_PER_ROW = 4
MARK: dict[str, Any] = {  # white with a black edge is visible on any background
    "color": "white",
    "path_effects": [withStroke(linewidth=2.5, foreground="black")],
}


@dataclass(frozen=True, eq=False)
class TileView:
    """What a tile looks like.

    Attributes:
        picture: background of the footprints, grey or RGB, 0 to 1, in the tile's own frame
        pixel_size: m
        title: of the figure
        orientation: 0 imaged from the north, 1 from the south, None where it is unknown or there is no radar
    """

    picture: Float32[np.ndarray, "h w *rgb"]
    pixel_size: float
    title: str
    orientation: int | None = None


def outline(polygons: Polygons, **style: Any) -> PathCollection:
    """Return polygons with their holes as one collection for matplotlib, drawn with `style`."""
    paths = [
        Outline.make_compound_path(*(Outline(np.asarray(ring.coords), closed=True) for ring in rings(polygon)))
        for polygon in polygons
        if not polygon.is_empty
    ]
    return PathCollection(paths, **style)


def rings(polygon: shapely.Geometry) -> list[shapely.LinearRing]:
    """Return the outer and inner rings of a (Multi)Polygon, in opposite directions, so that holes stay empty."""
    parts = [part for part in shapely.get_parts(shapely.orient_polygons(polygon)) if part.geom_type == "Polygon"]
    return [ring for part in parts for ring in (part.exterior, *part.interiors)]


def draw_picture(axis: Axes, picture: Float32[np.ndarray, "h w *rgb"], pixel_size: float | None, title: str) -> None:
    """Draw a picture of a tile with a scale bar.

    Args:
        axis: panel to draw on; its coordinates become pixels
        picture: grey or RGB, 0 to 1, in the tile's own frame
        pixel_size: m; None, where it is not known, draws no scale bar
        title: title of the panel
    """
    height, width = picture.shape[:2]
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    axis.autoscale(False)
    hide_axis(axis)
    axis.set_title(title)
    if pixel_size is None:
        return
    metres = round_length(width * pixel_size / 4)
    left, right, y = 0.03 * width, 0.03 * width + metres / pixel_size, 0.97 * height
    axis.plot([left, right], [y, y], linewidth=3, solid_capstyle="butt", **MARK)
    axis.text((left + right) / 2, y - 0.015 * height, f"{metres:g} m", ha="center", va="bottom", **MARK)


def hide_axis(axis: Axes) -> None:
    """Draw no frame and no ticks; matplotlib would place those of a hidden frame all the same, which takes long."""
    axis.set_axis_off()
    axis.set_xticks([])
    axis.set_yticks([])


def draw_compass(axis: Axes, orientation: int | None) -> None:
    """Mark north, and the side of the radar: 0 north, 1 south, None where it is unknown or there is no radar."""
    arrow = {"arrowstyle": "-|>,head_width=0.35,head_length=0.7", "linewidth": 1.8, **MARK}
    style: dict[str, Any] = {"xycoords": "axes fraction", "ha": "center", "size": "large", "arrowprops": arrow, **MARK}
    axis.annotate("N", (0.04, 0.99), (0.04, 0.89), **style)
    if orientation == 0:
        axis.annotate("radar", (0.5, 0.88), (0.5, 0.98), va="top", **style)
    elif orientation == 1:
        axis.annotate("radar", (0.5, 0.12), (0.5, 0.02), va="bottom", **style)


def round_length(longest: float) -> float:
    """Return the largest of ..., 1, 2, 5, 10, 20, 50, ... that is at most `longest`."""
    power = 10 ** np.floor(np.log10(longest))
    return float(max(step * power for step in (1, 2, 5) if step * power <= longest))


def draw_values(axis: Axes, polygons: Polygons, values: Float[np.ndarray, "_"], label: str, top: float | None) -> None:
    """Draw polygons coloured by their values, with a colour bar from 0; those with the value NaN are white and hatched.

    Args:
        axis: panel with a picture of the tile
        polygons: polygons in pixels
        values: value of each polygon
        label: label of the colour bar
        top: end of the colour bar; None for the 98th percentile of the values
    """
    shapes = np.asarray(polygons, dtype=object)
    drawn = ~shapely.is_empty(shapes)
    shapes, values = shapes[drawn], values[drawn]
    known = np.isfinite(values)
    if known.any():
        end = top if top is not None else max(float(np.percentile(values[known], 98)), 1.0)
        filled = outline(shapes[known], cmap=COLOUR_MAP, norm=Normalize(0, end), edgecolors="white", linewidths=0.4)
        filled.set_array(values[known])
        axis.add_collection(filled)
        extend = "max" if values[known].max() > end else "neither"
        axis.figure.colorbar(filled, ax=axis, label=label, extend=extend, shrink=0.85, pad=0.02)
    if not known.all():
        style = {"facecolors": "none", "edgecolors": "white", "hatch": "//////", "linewidths": 0.6}
        axis.add_collection(outline(shapes[~known], **style))
        hatched = Patch(facecolor="0.3", edgecolor="white", hatch="//////", label=f"height unknown: {(~known).sum()}")
        axis.legend(handles=[hatched], **LEGEND)


def overview_figure(
    pictures: Mapping[str, Float32[np.ndarray, "_ _ *_"]], view: TileView, labels: Labels | None
) -> Figure:
    """Draw the images of a tile side by side, and its footprints coloured by height.

    Args:
        pictures: title → picture, grey or RGB, 0 to 1, in the tile's own frame
        view: the tile, on whose picture the footprints are drawn
        labels: ground truth; None where it is unknown
    """
    count = len(pictures) + (labels is not None)
    columns = min(count, PANELS_PER_ROW)
    rows = -(-count // columns)
    size = (max(4.9 * columns + 0.7, 8.0), 5.05 * rows + 1.1)  # inches; narrower figures cut the title
    figure = Figure(figsize=size, layout=LAYOUT)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        hide_axis(axis)
    for axis, (name, picture) in zip(axes, pictures.items(), strict=False):
        draw_picture(axis, picture, view.pixel_size, name)
    draw_compass(axes[0], view.orientation)
    if labels is not None:
        draw_picture(axes[-1], view.picture * DIMMED, view.pixel_size, f"footprints: {len(labels)}")
        draw_compass(axes[-1], view.orientation)
        draw_values(axes[-1], labels.polygons, labels.heights, "mean height in m", top=None)
    figure.suptitle(view.title)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG atomically, and create its folder.

    Raises:
        OSError: it cannot be written
    """
    layout = figure.get_layout_engine()
    if layout is not None:  # here, since `savefig` draws a figure with a layout twice
        layout.execute(figure)
        figure.set_layout_engine(None)
    with atomic_write(path) as part:
        # Speckle hardly compresses: matplotlib's default level 6 takes twice the time and saves nothing.
        figure.savefig(part, dpi=100, pil_kwargs={"compress_level": 3})
