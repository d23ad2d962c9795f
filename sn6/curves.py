"""The curves of a run: its losses and scores over its steps."""

import csv
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
