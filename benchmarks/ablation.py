"""Measure how polygon F1 changes with one factor of a recipe, three seeds each, on a simulated archive.

    python -m benchmarks.ablation            (--help lists its keys)

Each row is `python -m sn6.run experiment=ablation seed=...` with the overrides of ROWS. An interrupted benchmark
resumes.
"""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import PositiveInt
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sn6.cli import run_command
from sn6.simulation.archive import make_archive, settings_of

REFERENCE, SAR_ONLY = "reference", "SAR only"
ROWS = {  # row → overrides
    REFERENCE: (),  # TernausNet, optical first, focal + dice
    "U-Net": ("model=unet",),
    "FCN-8s": ("model=fcn8s", "model.width=8"),  # about as many parameters as the others with 16
    "binary cross entropy": ("loss=bce",),
    "weighted boundary": ("loss=weighted_boundary",),
    SAR_ONLY: ("~stages.eo", "stages.sar=['data=sar']"),
}
TITLE = "polygon F1, test tiles; the reference is TernausNet, optical first, focal + dice"


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
        f1: polygon F1 on the test tiles
        oracle_f1: the same of the ground-truth mask, an upper bound
        interval: 95% interval of f1, from a bootstrap over spatial blocks
        eo_val_f1, sar_val_f1: polygon F1 on the validation column at the selected epoch; NaN without such a stage
    """

    f1: float
    oracle_f1: float
    interval: tuple[float, float]
    eo_val_f1: float
    sar_val_f1: float


def ablation(
    root: Annotated[Path, "the archive; if it is missing, `medium` with seed 0 is simulated"] = Path(
        "outputs/medium_archive"
    ),
    out: Annotated[Path, "folder of the runs, the table and the figure"] = Path("outputs/ablation"),
    seeds: Annotated[PositiveInt, "runs per row"] = 3,
    parallel: Annotated[PositiveInt, "runs at a time, which share the cores of the CPU"] = 2,
) -> None:
    """Train every row of the table with every seed, and print polygon F1 with its standard deviation."""
    make_archive(root, settings_of(scale="medium", seed=0))
    jobs = [(row, seed) for seed in range(seeds) for row in ROWS]
    results: dict[tuple[str, int], Result] = {}
    with ThreadPoolExecutor(parallel) as pool:
        threads = max(1, (os.cpu_count() or 1) // parallel)
        running = {pool.submit(run, root, out, row, seed, threads): (row, seed) for row, seed in jobs}
        for done in track(as_completed(running), "runs", total=len(jobs), console=Console(stderr=True)):
            results[running[done]] = done.result()
    rows = {row: [results[row, seed] for seed in range(seeds)] for row in ROWS}
    Console(width=140).print(table_of(rows))
    Console(width=140).print(validation_table(rows))
    write_csv(rows, out / "ablation.csv")
    figure_of(rows).savefig(out / "ablation.png", dpi=120)
    print(f"all runs: {out / 'ablation.csv'}, {out / 'ablation.png'}")


def run(root: Path, out: Path, row: str, seed: int, threads: int) -> Result:
    """Train and score one run in other processes; a finished run is only read."""
    folder = out / row.replace(" ", "_") / f"seed_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    overrides = ["experiment=ablation", f"hydra.run.dir={folder}", f"data.root={root}", f"seed={seed}", *ROWS[row]]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with (folder / "log.txt").open("a") as log:
        subprocess.run(
            [sys.executable, "-m", "sn6.run", *overrides], check=True, env=environment, stdout=log, stderr=log
        )
        proposals, scored = folder / "sar" / "proposals.csv", folder / "score.json"
        overrides = [f"truth={root}", f"root={root}", f"proposals={proposals}", f"out={scored}"]
        subprocess.run([sys.executable, "-m", "sn6.score", *overrides], check=True, stdout=log, stderr=log)
    metrics = json.loads((folder / "metrics.json").read_text())
    low, high = json.loads(scored.read_text())["interval"]["f1"]
    test, stages = metrics["test"], metrics["stages"]
    eo_val_f1 = stages["eo"]["validation"]["f1"] if "eo" in stages else float("nan")
    return Result(test["f1"], test["oracle"]["f1"], (low, high), eo_val_f1, stages["sar"]["validation"]["f1"])


def table_of(rows: dict[str, list[Result]]) -> Table:
    """Return the table of polygon F1 on the test tiles."""
    seeds = [f"seed {seed}" for seed in range(len(rows[REFERENCE]))]
    comparison = ("difference to the reference", "fraction of the upper bound", "95% interval, seed 0")
    table = Table("", *seeds, "mean", "standard deviation", *comparison, title=TITLE, box=box.MARKDOWN)
    for row, results in rows.items():
        scores = [result.f1 for result in results]
        gains = [score - reference.f1 for score, reference in zip(scores, rows[REFERENCE], strict=True)]
        gain = "" if row == REFERENCE else f"{mean(gains):+.3f} ± {deviation(gains):.3f}"
        fraction = mean(result.f1 / result.oracle_f1 for result in results)
        low, high = results[0].interval
        table.add_row(row, *cells(scores), gain, f"{fraction:.0%}", f"{low:.3f} to {high:.3f}")
    return table


def validation_table(rows: dict[str, list[Result]]) -> Table:
    """Return the table of the optical and the radar networks after as many steps, on the validation column."""
    seeds = [f"seed {seed}" for seed in range(len(rows[REFERENCE]))]
    title = "polygon F1, validation column, which selected the epoch"
    table = Table("", *seeds, "mean", "standard deviation", title=title, box=box.MARKDOWN)
    for name, scores in validation_scores(rows).items():
        table.add_row(name, *cells(scores))
    return table


def validation_scores(rows: dict[str, list[Result]]) -> dict[str, list[float]]:
    """Return the scores of the runs on the validation column: those of each row of the table."""
    return {
        "EO only": [result.eo_val_f1 for result in rows[REFERENCE]],
        "SAR only": [result.sar_val_f1 for result in rows[SAR_ONLY]],
        "optical first, then SAR": [result.sar_val_f1 for result in rows[REFERENCE]],
    }


def cells(scores: Sequence[float]) -> list[str]:
    """Return the cells of the scores of a row, of their mean and of their standard deviation."""
    return [f"{value:.3f}" for value in (*scores, mean(scores), deviation(scores))]


def deviation(values: Sequence[float]) -> float:
    """Compute the standard deviation of a sample; NaN of a single value."""
    return stdev(values) if len(values) > 1 else float("nan")


def write_csv(rows: dict[str, list[Result]], path: Path) -> None:
    """Write a line for each run."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "seed", "f1", "low", "high", "oracle_f1", "eo_val_f1", "sar_val_f1"])
        for row, results in rows.items():
            for seed, result in enumerate(results):
                values = (result.f1, *result.interval, result.oracle_f1, result.eo_val_f1, result.sar_val_f1)
                writer.writerow([row, seed, *values])


def figure_of(rows: dict[str, list[Result]]) -> Figure:
    """Draw each run as a dot, each mean as a line, and the upper bound dashed."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    test, validation = figure.subplots(1, 2, width_ratios=(3, 2))
    draw_scores(test, {row: [result.f1 for result in results] for row, results in rows.items()})
    upper_bound = mean(result.oracle_f1 for results in rows.values() for result in results)
    test.axvline(upper_bound, color="black", linestyle="--", label="upper bound from the ground-truth mask")
    test.set_xlabel("polygon F1, test tiles")
    draw_scores(validation, validation_scores(rows))
    validation.set_xlabel("polygon F1, validation column")
    for axes in (test, validation):
        axes.set_xlim(0, 1.1 * upper_bound)
    figure.legend(loc="outside upper left")
    return figure


def draw_scores(axes: Axes, groups: dict[str, list[float]]) -> None:
    """Draw a line of dots for each group."""
    for y, scores in enumerate(groups.values()):
        axes.plot(scores, [y] * len(scores), "o", color="tab:blue")
        axes.plot([mean(scores)] * 2, [y - 0.3, y + 0.3], color="tab:orange", linewidth=3)
    axes.set_yticks(range(len(groups)), groups)
    axes.invert_yaxis()


if __name__ == "__main__":
    run_command(ablation, "benchmarks.ablation")
