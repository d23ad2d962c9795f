"""Draw several tiles with their true positives, false negatives and false positives in one figure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sn6.footprints import Polygons
from sn6.metrics.matching import Match
from sn6.plots.tiles import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    LAYOUT,
    TRUE_POSITIVE,
    draw_compass,
    draw_picture,
    hide_axis,
    outline,
)

COLUMNS = 3
BRIGHTNESS = 0.8  # of the image, so that the outlines stand out
LEGEND = {
    "TP: true positive, a proposal that matches a building": TRUE_POSITIVE,
    "FN: false negative, a building that is missed": FALSE_NEGATIVE,
    "FP: false positive, a proposal without a match": FALSE_POSITIVE,
}


@dataclass(frozen=True, eq=False)
class Panel:
    """A tile of a contact sheet, in its own frame.

    Attributes:
        name: of the tile, and why it is drawn
        picture: grey or RGB, 0 to 1
        pixel_size: m
        truth: ground truth in pixels
        proposals: proposals in pixels
        match: of the proposals with the ground truth
        orientation: 0 imaged from the north, 1 from the south, None where it is unknown or there is no radar
    """

    name: str
    picture: Float32[np.ndarray, "h w *rgb"]
    pixel_size: float
    truth: Polygons
    proposals: Polygons
    match: Match
    orientation: int | None = None


def contact_sheet(panels: Sequence[Panel], title: str) -> Figure:
    """Draw the panels in rows of three, with one legend."""
    columns = max(min(len(panels), COLUMNS), 1)
    rows = max(-(-len(panels) // columns), 1)
    figure = Figure(figsize=(max(5.0 * columns, 11.0), 5.3 * rows + 1.0), layout=LAYOUT)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        hide_axis(axis)
    for axis, panel in zip(axes, panels, strict=False):
        counts = panel.match.counts
        heading = f"{panel.name}: F1 {counts.f1:.2f} ({counts.tp} TP, {counts.fn} FN, {counts.fp} FP)"
        draw_picture(axis, panel.picture * BRIGHTNESS, panel.pixel_size, heading)
        draw_compass(axis, panel.orientation)
        for polygons, selected, colour in (
            (panel.truth, panel.match.false_negatives, FALSE_NEGATIVE),
            (panel.proposals, panel.match.false_positives, FALSE_POSITIVE),
            (panel.proposals, panel.match.true_positives, TRUE_POSITIVE),
        ):
            drawn = [polygon for polygon, is_drawn in zip(polygons, selected, strict=True) if is_drawn]
            axis.add_collection(outline(drawn, edgecolors=colour, facecolors=colour + "33", linewidths=1.1))
    handles = [Patch(edgecolor=colour, facecolor=colour + "33", label=label) for label, colour in LEGEND.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.suptitle(title)
    return figure
