"""Plot curves: of a run over its epochs, of the score over the threshold, of a sweep over its swept keys."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

MAX_LABEL = 24  # characters of a swept value, such as a path; longer labels would leave no room for the axes


@dataclass(frozen=True)
class Course:
    """What the curves of a training are drawn with, beside its metrics.csv.

    Attributes:
        steps_per_epoch: optimizer steps
        chosen_step: after which the network was scored that is tested; None where no epoch was chosen
        oracle_f1: F1 of the ground-truth mask of the test tiles
    """

    steps_per_epoch: float
    chosen_step: int | None
    oracle_f1: float


def curves_figure(metrics: Path, course: Course) -> Figure:
    """Plot the losses and the scores of a training over its epochs, from the metrics.csv of the CSVLogger.

    The training loss is the mean of each epoch, and in grey that of single batches where it was logged.
    """
    with metrics.open() as file:
        rows = list(csv.DictReader(file))

    def column(key: str) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        points = [(float(row["step"]), float(row[key])) for row in rows if row.get(key)]
        return np.array([x + 1 for x, _ in points]) / course.steps_per_epoch, np.array([y for _, y in points])

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(*column("train/loss"), label="train/loss of a batch", linewidth=0.8, color="0.75")
    losses = {key: column(key) for key in ("train/epoch_loss", "val/loss")}
    scores = ("val/f1", "val/precision", "val/recall", "val/iou", "val/touching_f1", "val/alone_f1")
    for axis, lines in ((left, losses), (right, {key: column(key) for key in scores})):
        for label, (epochs, values) in lines.items():
            if len(values):
                marker = "o" if len(values) < 40 else None
                axis.plot(epochs, values, label=label, linewidth=1.5, marker=marker, markersize=3)
    right.axhline(course.oracle_f1, label="test: F1 of the ground-truth mask", color="0.3", linestyle=":")
    for axis in (left, right):
        if course.chosen_step is not None:
            chosen = course.chosen_step / course.steps_per_epoch
            axis.axvline(chosen, label="chosen epoch", color="0.3", linestyle="--", linewidth=1)
        axis.set_xlabel("epochs")
        axis.set_xlim(left=0)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    left.set_ylabel("loss")
    right.set_ylabel("score")
    right.set_ylim(0, 1)
    return figure


def threshold_figure(curve: Sequence[Mapping[str, float]], scored_on: str) -> Figure:
    """Plot polygon F1, precision and recall over the probability threshold for building pixels.

    Args:
        curve: points with the keys `threshold`, `f1`, `precision` and `recall`
        scored_on: name of the scored tiles, for the title
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for key, style in (("f1", "o-"), ("precision", "s--"), ("recall", "^--")):
        axis.plot([point["threshold"] for point in curve], [point[key] for point in curve], style, label=key)
    axis.set_xlabel("probability threshold")
    axis.set_ylabel("polygon score")
    axis.set_ylim(0, 1)
    axis.set_title(f"{scored_on}\ndiagnostic only; not used for model selection", fontsize="medium")
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def calibration_figure(table: Sequence[Mapping[str, float]], fields: Sequence[str]) -> Figure:
    """Plot F1 over each field of the operating points that a calibration tried, and mark the chosen point.

    The line joins the best points at each value of the field.

    Args:
        table: of `sn6.callbacks.operating_point.Choice.table`
        fields: of the polygonizer
    """
    (chosen,) = (row for row in table if row["chosen"])
    figure = Figure(figsize=(4.5 * len(fields), 4), layout="constrained")
    for axis, name in zip(np.atleast_1d(figure.subplots(1, len(fields), sharey=True)), fields, strict=True):
        values = sorted({row[name] for row in table})
        best = [max(row["f1"] for row in table if row[name] == value) for value in values]
        axis.scatter([row[name] for row in table], [row["f1"] for row in table], s=10, color="0.7", label="tried")
        axis.plot(values, best, "o-", markersize=4, label="best at each value")
        axis.plot(chosen[name], chosen["f1"], "*", markersize=14, color="C3", label="chosen")
        axis.set_xlabel(name)
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("F1 of the validation tiles (IoU of pixels)")
    figure.axes[0].legend()
    return figure


def sweep_figure(jobs: Sequence[tuple[Mapping[str, str], float]], objective: str) -> Figure:
    """Plot the objective of the jobs of a sweep over each swept key.

    Args:
        jobs: values of the swept keys, and the objective, of each job
        objective: name of the objective
    """
    keys = list(jobs[0][0])
    figure = Figure(figsize=(4.5 * len(keys), 4), layout="constrained")
    for axis, key in zip(np.atleast_1d(figure.subplots(1, len(keys), sharey=True)), keys, strict=True):
        texts, scores = [values[key] for values, _ in jobs], [score for _, score in jobs]
        numbers = as_numbers(texts)
        if numbers is None:
            names = sorted(set(texts))
            axis.scatter([names.index(value) for value in texts], scores)
            labels = [name if len(name) <= MAX_LABEL else f"…{name[1 - MAX_LABEL :]}" for name in names]
            axis.set_xticks(range(len(names)), labels, rotation=20, ha="right")
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
    """Return the texts as numbers, None where one of them is not a number."""
    try:
        return np.array([float(text) for text in texts])
    except ValueError:
        return None
