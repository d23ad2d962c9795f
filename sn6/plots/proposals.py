"""Draw the proposals of a tile: beside its ground truth with the maps that they come from, or alone."""

import numpy as np
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sn6.footprints import Footprints
from sn6.metrics.instances import compare_instances
from sn6.metrics.matching import Match
from sn6.plots.instances import colours_of, colours_of_tile, draw_instances
from sn6.plots.maps import NO_MAPS, Maps, draw_map, panels
from sn6.plots.tiles import (
    DIMMED,
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    LAYOUT,
    LEGEND,
    PROPOSAL,
    TRUE_POSITIVE,
    TRUTH,
    TileView,
    draw_compass,
    draw_picture,
    draw_values,
    hide_axis,
    outline,
)

TILE_PANELS = 5  # of ground truth and proposals


def tile_figure(
    view: TileView,
    truth: Shaped[np.ndarray, "truths"],
    proposals: Shaped[np.ndarray, "proposals"],
    match: Match,
    maps: Maps = NO_MAPS,
) -> Figure:
    """Draw a tile with its ground truth and its proposals, their matches, the buildings one by one, and the maps.

    Args:
        view: the tile
        truth: ground truth in pixels
        proposals: proposals in pixels
        match: result of matching the proposals with the ground truth
        maps: name → map after activation, in the tile's own frame
    """
    drawn = list(panels(maps))
    count = TILE_PANELS + len(drawn)
    columns = 3 if count <= 6 else 4
    rows = -(-count // columns)
    figure = Figure(figsize=(5.5 * columns, 6.1 * rows + 0.7), layout=LAYOUT)
    axes = figure.subplots(rows, columns)
    named = ((f"ground truth: {len(truth)}", truth, TRUTH), (f"proposals: {len(proposals)}", proposals, PROPOSAL))
    for axis, (name, polygons, colour) in zip(axes[0], named, strict=False):
        draw_picture(axis, view.picture, view.pixel_size, name)
        axis.add_collection(outline(polygons, edgecolors=colour, facecolors="none", linewidths=1.2))
    draw_compass(axes[0, 0], view.orientation)
    draw_picture(axes[0, 2], view.picture * DIMMED, view.pixel_size, f"F1 {match.counts.f1:.2f}")
    draw_outcomes(axes[0, 2], truth, proposals, match)
    draw_one_by_one(axes[1, :2], view, truth, proposals, match)
    others = [*axes[0, 3:], *axes[1, 2:], *axes[2:].ravel()]
    for axis in others[len(drawn) :]:
        hide_axis(axis)
    for axis, (name, values) in zip(others, drawn, strict=False):
        draw_map(axis, name, values)
    figure.suptitle(view.title)
    return figure


def draw_one_by_one(
    axes: Shaped[np.ndarray, "2"],
    view: TileView,
    truth: Shaped[np.ndarray, "truths"],
    proposals: Shaped[np.ndarray, "proposals"],
    match: Match,
) -> None:
    """Draw each building in a colour, and beside them the proposals; split and merged ones are hatched."""
    instances = compare_instances(truth, proposals, match, view.pixel_size)
    of_truth, of_proposals = colours_of_tile(truth, proposals, match)
    picture = view.picture * DIMMED
    draw_picture(axes[0], picture, view.pixel_size, "ground truth one by one")
    draw_instances(axes[0], truth, of_truth, instances.split, "split in two or more proposals")
    draw_picture(axes[1], picture, view.pixel_size, "proposals in the colours of their buildings")
    draw_instances(axes[1], proposals, of_proposals, instances.merged, "merging two or more buildings")


def draw_outcomes(
    axis: Axes, truth: Shaped[np.ndarray, "truths"], proposals: Shaped[np.ndarray, "proposals"], match: Match
) -> None:
    """Draw the true positives, false negatives and false positives, with their numbers."""
    outcomes = (
        ("true positive", proposals, match.true_positives, TRUE_POSITIVE),
        ("false negative", truth, match.false_negatives, FALSE_NEGATIVE),
        ("false positive", proposals, match.false_positives, FALSE_POSITIVE),
    )
    for _, polygons, selected, colour in outcomes:
        shown = [polygon for polygon, is_selected in zip(polygons, selected, strict=True) if is_selected]
        axis.add_collection(outline(shown, edgecolors=colour, facecolors=colour + "66", linewidths=1.2))
    patches = [Patch(color=colour, label=f"{name}: {selected.sum()}") for name, _, selected, colour in outcomes]
    axis.legend(handles=patches, **LEGEND)


def proposals_figure(view: TileView, proposals: Footprints) -> Figure:
    """Draw a tile whose ground truth is unknown: the image, its proposals by confidence and one by one.

    Args:
        view: the tile
        proposals: footprints in pixels
    """
    figure = Figure(figsize=(17.5, 6.4), layout=LAYOUT)
    left, middle, right = figure.subplots(1, 3)
    draw_picture(left, view.picture, view.pixel_size, "image")
    draw_compass(left, view.orientation)
    draw_picture(middle, view.picture * DIMMED, view.pixel_size, f"proposals: {len(proposals)}; ground truth unknown")
    draw_values(middle, proposals.polygons, proposals.confidences, "confidence", top=1.0)
    draw_picture(right, view.picture * DIMMED, view.pixel_size, "one by one")
    draw_instances(right, proposals.polygons, colours_of(proposals.polygons))
    figure.suptitle(view.title)
    return figure
