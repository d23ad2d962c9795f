"""Curves: of a run over its steps, of a score over the threshold, of a sweep over what is swept."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure


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
