"""Compare groups of runs on the same tiles: means over seeds, and differences with intervals over the ground."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from sn6.metrics.breakdown import central, resampled_f1
from sn6.metrics.scorecard import LEVEL

PARTS = {"all": "", "touching": "touching_", "alone": "alone_"}  # buildings → prefix of the keys in metrics.json
SCORES = {"precision": "precision", "recall": "recall", "recall touching": "touching_recall"} | {
    "recall alone": "alone_recall",
    "pixel IoU": "iou",
}  # column → key in metrics.json
RESAMPLES = 2000
BLOCK_SIZE = 450.0  # m, as in sn6.score
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    character: f"\\{character}" for character in "&%$#_{}"
}


@dataclass(frozen=True, eq=False)
class RunResult:
    """What a run reached on the test tiles.

    Attributes:
        test: scores, as in metrics.json
        counts: true positives, false positives, false negatives of each tile, for each of PARTS
    """

    test: Mapping[str, Any]
    counts: Int64[np.ndarray, "parts tiles 3"]


Groups = Mapping[str, Sequence[RunResult]]  # name → runs that differ in their seed only


def mean_f1(results: Sequence[RunResult], blocks: Int64[np.ndarray, " tiles"]) -> Float[np.ndarray, "parts resamples"]:
    """Return F1 of each of PARTS, mean over runs: of all tiles in the first column, then of resampled blocks."""
    counts = np.stack([result.counts for result in results])
    tp, fp, fn = np.moveaxis(counts.sum(axis=-2), -1, 0)
    whole = 2 * tp / np.maximum(2 * tp + fp + fn, 1)
    return np.concatenate([whole[..., None], resampled_f1(counts, blocks, RESAMPLES)], axis=-1).mean(axis=0)


def with_interval(values: Float[np.ndarray, " resamples"], sign: str = "") -> str:
    """Write the first value with the interval of the others."""
    low, high = central(values[1:], LEVEL)
    return f"{values[0]:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def with_deviation(values: Sequence[float]) -> str:
    """Write mean ± standard deviation (number); of a single value the mean alone."""
    spread = f" ± {stdev(values):.3f} ({len(values)})" if len(values) > 1 else ""
    return f"{mean(values):.3f}{spread}"


def comparison_table(groups: Groups, blocks: Int64[np.ndarray, " tiles"]) -> list[list[str]]:
    """Return the rows of a table, the header first: one for each group, with its difference to the first group.

    A difference is that of the means over seeds, on the same resampled blocks of ground: its interval says how it
    depends on the ground, the standard deviation of F1 how it depends on the seed.
    """
    differences = [f"difference, {part}" for part in PARTS]
    rows = [["", "F1 ± deviation (seeds)", f"F1, {LEVEL:.0%} interval", *differences, *SCORES]]
    reference = mean_f1(next(iter(groups.values())), blocks)
    for number, (name, runs) in enumerate(groups.items()):
        f1 = mean_f1(runs, blocks)
        gains = [with_interval(gain, "+") if number else "" for gain in f1 - reference]
        means = [
            f"{mean(run.test[key] for run in runs):.3f}" if all(key in run.test for run in runs) else ""
            for key in SCORES.values()
        ]
        rows.append([name, with_deviation([run.test["f1"] for run in runs]), with_interval(f1[0]), *gains, *means])
    return rows


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return the rows of a table, the header first, as a table in Markdown."""
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *body))


def as_latex(rows: Sequence[Sequence[str]]) -> str:
    """Return the rows of a table, the header first, as a tabular in LaTeX, which needs no package."""
    head, *body = [f"{' & '.join(map(as_latex_text, row))} \\\\" for row in rows]
    begin = f"\\begin{{tabular}}{{{'l' * len(rows[0])}}}"
    return "\n".join([begin, "\\hline", head, "\\hline", *body, "\\hline", "\\end{tabular}", ""])


def as_latex_text(text: str) -> str:
    """Return a text with the characters escaped that LaTeX takes as commands."""
    return "".join(LATEX.get(character, character) for character in text).replace("±", r"$\pm$")
