"""Draw one place with its ground truth and with the outlines of each kind, from the outputs of `benchmarks.outlines`.

python -m benchmarks.outlines_picture checkpoint=RUN root=ARCHIVE          (--help lists its keys)
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import shapely
from jaxtyping import Shaped
from matplotlib.figure import Figure
from pydantic import NonNegativeInt, PositiveFloat

from benchmarks.looks import labels_of
from benchmarks.outlines import CLEANED, footprints_of, plan_of
from sn6.checkpoints.loading import find_weights
from sn6.checkpoints.run_files import FINAL_WEIGHTS
from sn6.cli import run_command
from sn6.plots.rendering import render_background
from sn6.plots.tiles import outline
from sn6.prediction.trained_network import load_network

KINDS = {
    "as they are": ({}, False),
    "fill_holes=20 opening=1.5 simplify=1": (CLEANED | {"simplify": 1.0}, False),
    "and regularize=true": (CLEANED | {"simplify": 1.0}, True),
}


def outlines_picture(
    checkpoint: Annotated[Path, "as of benchmarks.outlines, the first one"],
    root: Annotated[Path, "the archive"],
    outputs: Annotated[Path, "out= of benchmarks.outlines"] = Path("outputs/outlines"),
    out: Annotated[Path, "picture to write"] = Path("outputs/outlines.png"),
    tile: Annotated[NonNegativeInt, "number of the test tile"] = 0,
    width: Annotated[PositiveFloat, "m, edge length of the place: the one with the most buildings"] = 110.0,
) -> None:
    """Draw the ground truth and the outlines of each kind over the radar image."""
    file = find_weights(checkpoint, "checkpoint", FINAL_WEIGHTS)
    plan, heads = plan_of((file, ()), root, outputs / "0", "cpu")
    image, truth = replace(plan.images[tile], rotated=False), labels_of(plan.images[tile]).polygons
    pixels, valid = image.read(slice(0, image.height), slice(0, image.width))
    picture = render_background(np.ascontiguousarray(pixels), valid, load_network(file, ()).source.band_names)
    panels = {"ground truth": truth}
    for name, kind in KINDS.items():
        panels[name] = footprints_of(plan, heads, tile, *kind).polygons
    place = densest(truth, width / image.pixel_metres)
    draw(picture, panels, place).savefig(out, dpi=80, bbox_inches="tight")
    print(out)


def densest(polygons: Shaped[np.ndarray, " n"], width: float) -> shapely.Polygon:
    """Return the square of this width around a polygon that has the most of them."""
    centroids = shapely.centroid(polygons)
    squares = shapely.buffer(centroids, width / 2, cap_style="square")
    one, _ = shapely.STRtree(centroids).query(squares, predicate="contains")
    return squares[np.bincount(one).argmax()]


def draw(picture: np.ndarray, panels: dict[str, Shaped[np.ndarray, " _"]], place: shapely.Polygon) -> Figure:
    """Draw each panel at the place, in pixels of the picture."""
    left, top, right, bottom = place.bounds
    figure = Figure(figsize=(3 * len(panels), 3.4), layout="constrained")
    for axes, (name, polygons) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
        near = polygons[shapely.intersects(polygons, place)]
        colour = "lime" if name == "ground truth" else "cyan"
        axes.add_collection(outline(near, facecolors="none", edgecolors=colour, linewidths=1.3), autolim=False)
        vertices = shapely.get_num_coordinates(near) - shapely.get_num_interior_rings(near) - 1
        axes.set_title(f"{name}\nmedian {np.median(vertices):.0f} vertices", fontsize=8)
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)
        axes.set_axis_off()
    return figure


if __name__ == "__main__":
    run_command(outlines_picture, "benchmarks.outlines_picture")
