"""Pictures of tiles and their footprints. Drawn without a display.

Tiles stand in their own frame, north up. The colours of a figure are told apart by those who see red and green, or
blue and yellow, alike.
"""

from collections.abc import Mapping
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

from sn6.datasets.layout import PIXEL
from sn6.files import atomic_write
from sn6.footprints import Footprints, Labels, Polygons
from sn6.metrics.matching import Match

TRUTH, PROPOSAL = "#ffcc00", "#4cc9f0"
HIT, MISSED, INVENTED = "#0d86ff", TRUTH, "#ff266f"
SCALE = ListedColormap(colormaps["viridis"](np.linspace(0.2, 1, 256)))  # its darkest fifth is lost on a dark picture
DIM = 0.55  # the brightness of a picture under filled footprints
LEGEND: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "ncols": 3, "frameon": False}  # below
LAYOUT = ConstrainedLayoutEngine(h_pad=0.08)  # inches
PER_ROW = 4  # pictures
EDGED = [withStroke(linewidth=2.5, foreground="black")]
INK: dict[str, Any] = {"color": "white", "path_effects": EDGED}  # is seen on any picture


def outline(polygons: Polygons, **style: Any) -> PathCollection:
    """Polygons with their holes as one collection of matplotlib."""
    paths = [
        Outline.make_compound_path(*(Outline(np.asarray(ring.coords), closed=True) for ring in rings(polygon)))
        for polygon in polygons
        if not polygon.is_empty
    ]
    return PathCollection(paths, **style)


def rings(polygon: shapely.Geometry) -> list[shapely.LinearRing]:
    """The outer and inner rings of a polygon or of the parts of one, which run against each other: so holes stay."""
    parts = [part for part in shapely.get_parts(shapely.orient_polygons(polygon)) if part.geom_type == "Polygon"]
    return [ring for part in parts for ring in (part.exterior, *part.interiors)]


def draw_picture(axis: Axes, picture: Float32[np.ndarray, "h w *rgb"], title: str) -> None:
    """A picture of a tile with a scale bar.

    Args:
        axis: to draw on; its coordinates become pixels of 0.5 m
        picture: grey or coloured, 0 to 1, in the tile's own frame
        title: stands above
    """
    height, width = picture.shape[:2]
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    axis.autoscale(False)
    axis.set_axis_off()
    axis.set_title(title)
    metres = round_length(width * PIXEL / 4)
    left, right, y = 0.03 * width, 0.03 * width + metres / PIXEL, 0.97 * height
    axis.plot([left, right], [y, y], linewidth=3, solid_capstyle="butt", **INK)
    axis.text((left + right) / 2, y - 0.015 * height, f"{metres:g} m", ha="center", va="bottom", **INK)


def draw_compass(axis: Axes, orientation: int | None) -> None:
    """Marks the north, and where the radar stands: 0 in the north, 1 in the south, None not known or no radar."""
    arrow = {"arrowstyle": "-|>,head_width=0.35,head_length=0.7", "linewidth": 1.8, **INK}
    style: dict[str, Any] = {"xycoords": "axes fraction", "ha": "center", "size": "large", "arrowprops": arrow, **INK}
    axis.annotate("N", (0.04, 0.99), (0.04, 0.89), **style)
    if orientation == 0:
        axis.annotate("radar", (0.5, 0.88), (0.5, 0.98), va="top", **style)
    elif orientation == 1:
        axis.annotate("radar", (0.5, 0.12), (0.5, 0.02), va="bottom", **style)


def round_length(longest: float) -> float:
    """The largest of ..., 1, 2, 5, 10, 20, 50, ... that is not over `longest`."""
    power = 10 ** np.floor(np.log10(longest))
    return float(max(step * power for step in (1, 2, 5) if step * power <= longest))


def draw_values(axis: Axes, polygons: Polygons, values: Float[np.ndarray, "_"], label: str, top: float | None) -> None:
    """Polygons filled by a value each, with a colour bar from 0; where the value is NaN, white and hatched.

    Args:
        axis: with a picture of the tile
        polygons: in pixels
        values: of the polygons
        label: of the colour bar
        top: the end of the colour bar; None for one that 98% of the values do not pass
    """
    shapes = np.asarray(polygons, dtype=object)
    drawn = ~shapely.is_empty(shapes)
    shapes, values = shapes[drawn], values[drawn]
    known = np.isfinite(values)
    if known.any():
        end = top if top is not None else max(float(np.percentile(values[known], 98)), 1.0)
        filled = outline(shapes[known], cmap=SCALE, norm=Normalize(0, end), edgecolors="white", linewidths=0.4)
        filled.set_array(values[known])
        axis.add_collection(filled)
        extend = "max" if values[known].max() > end else "neither"
        axis.figure.colorbar(filled, ax=axis, label=label, extend=extend, shrink=0.85, pad=0.02)
    if not known.all():
        style = {"facecolors": "none", "edgecolors": "white", "hatch": "//////", "linewidths": 0.6}
        axis.add_collection(outline(shapes[~known], **style))
        mark = Patch(facecolor="0.3", edgecolor="white", hatch="//////", label=f"height not known: {(~known).sum()}")
        axis.legend(handles=[mark], **LEGEND)


def overview_figure(
    pictures: Mapping[str, Float32[np.ndarray, "_ _ *_"]],
    under: Float32[np.ndarray, "h w *rgb"],
    labels: Labels | None,
    title: str,
    orientation: int | None,
) -> Figure:
    """All that there is of a tile side by side, and its footprints coloured by height.

    Args:
        pictures: by their titles, each grey or coloured, 0 to 1, in the tile's own frame
        under: the picture that the footprints are drawn on
        labels: None where they are not known
        title: stands above
        orientation: 0 imaged from the north, 1 from the south, None where it is not known
    """
    count = len(pictures) + (labels is not None)
    columns = min(count, PER_ROW)
    rows = -(-count // columns)
    size = (max(4.9 * columns + 0.7, 8.0), 5.05 * rows + 1.1)  # a narrower one cuts the title
    figure = Figure(figsize=size, layout=LAYOUT)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (name, picture) in zip(axes, pictures.items(), strict=False):
        draw_picture(axis, picture, name)
    draw_compass(axes[0], orientation)
    if labels is not None:
        draw_picture(axes[-1], under * DIM, f"footprints: {len(labels)}")
        draw_compass(axes[-1], orientation)
        draw_values(axes[-1], labels.polygons, labels.heights, "mean height in m", top=None)
    figure.suptitle(title)
    return figure


def proposals_figure(
    picture: Float32[np.ndarray, "h w *rgb"], proposals: Footprints, title: str, orientation: int | None
) -> Figure:
    """A tile whose truth is not known: alone, and with its proposals coloured by confidence.

    Args:
        picture: grey or coloured, 0 to 1, in the tile's own frame
        proposals: in pixels
        title: stands above
        orientation: 0 imaged from the north, 1 from the south, None where it is not told
    """
    figure = Figure(figsize=(12, 6.4), layout=LAYOUT)
    left, right = figure.subplots(1, 2)
    draw_picture(left, picture, "the tile")
    draw_compass(left, orientation)
    draw_picture(right, picture * DIM, f"proposals: {len(proposals)}, truth not known")
    draw_values(right, proposals.polygons, proposals.confidences, "confidence", top=1.0)
    figure.suptitle(title)
    return figure


def tile_figure(
    picture: Float32[np.ndarray, "h w *rgb"],
    truth: Polygons,
    proposals: Polygons,
    match: Match,
    title: str,
    orientation: int | None = None,
) -> Figure:
    """A tile three times: with the truth, with the proposals, and with its F1: what was hit, missed and invented.

    Args:
        picture: grey or coloured, 0 to 1, in the tile's own frame
        truth: in pixels
        proposals: in pixels
        match: which of them met
        title: stands above
        orientation: 0 imaged from the north, 1 from the south, None where it is not told
    """
    figure = Figure(figsize=(16.5, 6.8), layout=LAYOUT)
    axes = figure.subplots(1, 3)
    sides = (
        (f"ground truth: {len(truth)} buildings", truth, TRUTH),
        (f"proposals: {len(proposals)}", proposals, PROPOSAL),
    )
    for axis, (name, polygons, colour) in zip(axes, sides, strict=False):
        draw_picture(axis, picture, name)
        axis.add_collection(outline(polygons, edgecolors=colour, facecolors="none", linewidths=1.2))
    draw_compass(axes[0], orientation)
    draw_picture(axes[2], picture * DIM, f"F1 {match.counts.f1:.2f}")
    groups = (
        (proposals, match.hits, HIT, "hit"),
        (truth, match.missed, MISSED, "missed"),
        (proposals, match.invented, INVENTED, "invented"),
    )
    for polygons, chosen, colour, _ in groups:
        shown = [polygon for polygon, is_chosen in zip(polygons, chosen, strict=True) if is_chosen]
        axes[2].add_collection(outline(shown, edgecolors=colour, facecolors=colour + "66", linewidths=1.2))
    names = [Patch(color=colour, label=f"{name} {chosen.sum()}") for _, chosen, colour, name in groups]
    axes[2].legend(handles=names, **LEGEND)
    figure.suptitle(title)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG, whole or not at all, and makes its folder."""
    with atomic_write(path) as part:
        figure.savefig(part, dpi=100, pil_kwargs={"compress_level": 3})  # speckle: 6 takes twice the time for nothing
