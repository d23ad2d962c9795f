"""Pictures: tiles with footprints, and the curves of a run. Drawn without a display."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from jaxtyping import Bool, Float, Float32
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.path import Path as Outline

from sn6.footprints import Polygons
from sn6.footprints.matching import Match
from sn6.whole import whole

HIT, MISSED, INVENTED = "#21c46b", "#ffb000", "#ff3b6b"  # told apart by those who see red and green alike
TRUTH, PROPOSAL = "#4cc9f0", "#ffd60a"


def span(decibels: Float32[np.ndarray, "c h w"]) -> Float32[np.ndarray, "h w"]:
    """The total power of the polarisations, in decibels: 10·log10 Σ 10^(dB/10)."""
    return 10 * np.log10((10 ** (decibels / 10)).sum(axis=0, dtype=np.float32))


def grey(image: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """An image between its percentiles 1 and 99.5 over valid pixels as 0 to 1; nodata is 0."""
    if not valid.any():
        return np.zeros_like(image)
    low, high = np.percentile(image[valid], [1, 99.5])
    return np.where(valid, np.clip((image - low) / max(high - low, 1e-6), 0, 1), 0).astype(np.float32)


def backdrop(
    image: Float32[np.ndarray, "c h w"], valid: Bool[np.ndarray, "h w"], names: Sequence[str]
) -> Float32[np.ndarray, "h w *rgb"]:
    """What is drawn under footprints: the span of a radar tile, the colours of an optical one.

    Args:
        image: as on disk, not normalised
        valid: where there is data
        names: of the bands, such as `["HH", "HV", "VH", "VV"]` or `["B", "R", "R", "G"]`
    """
    if set("RGB") <= set(names):
        return np.stack([grey(image[list(names).index(colour)], valid) for colour in "RGB"], axis=-1)
    if set(names) & {"HH", "HV", "VH", "VV"}:
        return grey(span(image), valid)
    return grey(image.mean(axis=0), valid)


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


def tile_figure(
    picture: Float32[np.ndarray, "h w *rgb"],
    truth: Polygons,
    proposals: Polygons,
    match: Match,
    title: str,
) -> Figure:
    """A tile three times: with the truth, with the proposals, and with what was hit, missed and invented.

    Args:
        picture: grey or coloured, 0 to 1, in the tile's own frame
        truth: in pixels
        proposals: in pixels
        match: which of them met
        title: stands above
    """
    figure = Figure(figsize=(16.5, 6), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis in axes:
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_axis_off()
    axes[0].add_collection(outline(truth, edgecolors=TRUTH, facecolors="none", linewidths=1.2))
    axes[0].set_title(f"ground truth: {len(truth)} buildings")
    axes[1].add_collection(outline(proposals, edgecolors=PROPOSAL, facecolors="none", linewidths=1.2))
    axes[1].set_title(f"proposals: {len(proposals)}")
    groups = (
        (proposals, match.hits, HIT, "hit"),
        (truth, match.missed, MISSED, "missed"),
        (proposals, match.invented, INVENTED, "invented"),
    )
    for polygons, chosen, colour, _ in groups:
        shown = [polygon for polygon, is_chosen in zip(polygons, chosen, strict=True) if is_chosen]
        axes[2].add_collection(outline(shown, edgecolors=colour, facecolors=colour + "55", linewidths=1.0))
    names = [Patch(color=colour, label=f"{name} {chosen.sum()}") for _, chosen, colour, name in groups]
    axes[2].legend(handles=names, loc="lower right", framealpha=0.8)
    axes[2].set_title("hit, missed, invented")
    figure.suptitle(title)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG, whole or not at all, and makes its folder."""
    with whole(path) as part:
        figure.savefig(part, dpi=100)


def curves_figure(metrics: Path) -> Figure:
    """The losses and the scores of a run over its steps, from the metrics.csv of the CSVLogger."""
    with metrics.open() as file:
        rows = list(csv.DictReader(file))

    def column(key: str) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        points = [(float(row["step"]), float(row[key])) for row in rows if row.get(key)]
        return np.array([x for x, _ in points]), np.array([y for _, y in points])

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axis, keys in (
        (left, ("train/loss", "val/loss")),
        (right, ("val/f1", "val/precision", "val/recall", "val/iou")),
    ):
        for key in keys:
            steps, values = column(key)
            if len(values):
                axis.plot(
                    steps, values, label=key, linewidth=1.5, marker="o" if len(values) < 40 else None, markersize=3
                )
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    left.set_ylabel("loss")
    right.set_ylabel("score")
    right.set_ylim(0, 1)
    return figure


def threshold_figure(curve: Sequence[Mapping[str, float]], scored_on: str) -> Figure:
    """Polygon F1, precision and recall against the probability from which a pixel is building.

    Args:
        curve: points of `threshold`, `f1`, `precision`, `recall`
        scored_on: what the tiles are, for the title
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for key, style in (("f1", "o-"), ("precision", "s--"), ("recall", "^--")):
        axis.plot([point["threshold"] for point in curve], [point[key] for point in curve], style, label=key)
    axis.set_xlabel("probability threshold")
    axis.set_ylabel("score of polygons")
    axis.set_ylim(0, 1)
    axis.set_title(f"{scored_on}: to look at, not to choose by")
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def sweep_figure(jobs: Sequence[tuple[Mapping[str, str], float]], objective: str) -> Figure:
    """The objective of the jobs of a sweep against each key that was swept.

    Args:
        jobs: values of the swept keys, and the objective
        objective: its name
    """
    keys = list(jobs[0][0])
    figure = Figure(figsize=(4.5 * len(keys), 4), layout="constrained")
    for axis, key in zip(np.atleast_1d(figure.subplots(1, len(keys), sharey=True)), keys, strict=True):
        said, scores = [values[key] for values, _ in jobs], [score for _, score in jobs]
        numbers = as_numbers(said)
        if numbers is None:
            names = sorted(set(said))
            axis.scatter([names.index(value) for value in said], scores)
            axis.set_xticks(range(len(names)), names, rotation=20, ha="right")
            axis.set_xlim(-0.5, len(names) - 0.5)
        else:
            axis.scatter(numbers, scores)
            if numbers.min() > 0 and numbers.max() > 30 * numbers.min():
                axis.set_xscale("log")
        axis.set_xlabel(key)
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel(objective)
    return figure


def as_numbers(texts: Sequence[str]) -> Float[np.ndarray, " n"] | None:
    """The texts as numbers, None where one is not."""
    try:
        return np.array([float(text) for text in texts])
    except ValueError:
        return None
