"""Draw the scores of groups of runs beside each other."""

import numpy as np
from jaxtyping import Int64
from matplotlib.figure import Figure

from sn6.metrics.breakdown import central
from sn6.metrics.comparison import PARTS, Groups, mean_f1
from sn6.metrics.scorecard import LEVEL


def run_comparison_figure(groups: Groups, blocks: Int64[np.ndarray, " tiles"]) -> Figure:
    """Draw F1 of each group for each of PARTS: a dot per run, and the interval of their mean as a bar."""
    figure = Figure(figsize=(12, 1.2 + 0.45 * len(groups)), layout="constrained")
    panels = figure.subplots(1, len(PARTS), sharey=True)
    for part, ((name, prefix), axes) in enumerate(zip(PARTS.items(), panels, strict=True)):
        for y, runs in enumerate(groups.values()):
            f1 = mean_f1(runs, blocks)[part]
            low, high = central(f1[1:], LEVEL)
            axes.plot([low, high], [y, y], color="tab:orange", linewidth=6, alpha=0.5, solid_capstyle="butt")
            axes.plot(f1[0], y, "|", color="black", markersize=14)
            axes.plot([run.test[f"{prefix}f1"] for run in runs], [y] * len(runs), "o", color="tab:blue")
        axes.set_title(f"{name} buildings")
        axes.set_xlabel(f"polygon F1, test tiles\nbars: {LEVEL:.0%} interval over ground")
        axes.set_xlim(left=0)
        axes.set_yticks(range(len(groups)), list(groups))
    panels[0].invert_yaxis()
    return figure
