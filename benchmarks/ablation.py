"""The table of results: what changes when one thing of a recipe changes, three seeds each, on a simulated archive.

    python -m benchmarks.ablation            (--help tells its keys)

Each row is `python -m sn6.run -m experiment=ablation seed=0,1,2 ...` with the words of ROWS. A stopped benchmark goes
on.
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
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sn6.cli import run_command

RADAR_ALONE = ("~stages.eo", "stages.sar=['data=sar']")
ROWS = {
    "centre": (),  # TernausNet, optical first, focal + dice
    "U-Net": ("model=unet",),
    "FCN-8s": ("model=fcn8s", "model.width=8"),  # about as many parameters as the others have with 16
    "binary cross entropy": ("loss=bce",),
    "weighted boundary": ("loss=weighted_boundary",),
    "radar alone": RADAR_ALONE,
}
TITLE = "polygon F1, test tiles; the centre is TernausNet, optical first, focal + dice"
CENTRE, ALONE = "centre", "radar alone"


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
        f1, ceiling: polygon F1 on the test tiles, of the network and of the true binary mask
        interval: of f1, 95%, from resampling the ground
        optical, radar: polygon F1 on the validation column, at the chosen epoch; NaN where there was no such stage
    """

    f1: float
    ceiling: float
    interval: tuple[float, float]
    optical: float
    radar: float


def ablation(
    root: Annotated[Path, "the archive; `medium` with seed 0 is made there if it is missing"] = Path(
        "outputs/medium_archive"
    ),
    out: Annotated[Path, "folder of the runs, the table and the picture"] = Path("outputs/ablation"),
    seeds: Annotated[int, "runs of each row"] = 3,
    parallel: Annotated[int, "runs at a time, which share the processor's cores"] = 2,
) -> None:
    """Trains every row of the table with every seed, and prints polygon F1 with its spread."""
    words = [sys.executable, "-m", "sn6.simulate", f"root={root}", "scale=medium", "seed=0"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    jobs = [(row, seed) for seed in range(seeds) for row in ROWS]
    results: dict[tuple[str, int], Result] = {}
    with ThreadPoolExecutor(parallel) as pool:
        threads = max(1, (os.cpu_count() or 1) // parallel)
        running = {pool.submit(run, root, out, row, seed, threads): (row, seed) for row, seed in jobs}
        for done in track(as_completed(running), "runs", total=len(jobs), console=Console(stderr=True)):
            results[running[done]] = done.result()
    rows = {row: [results[row, seed] for seed in range(seeds)] for row in ROWS}
    Console(width=140).print(table_of(rows))
    Console(width=140).print(side_by_side(rows))
    write_csv(rows, out / "ablation.csv")
    picture(rows).savefig(out / "ablation.png", dpi=120)
    print(f"the figures: {out / 'ablation.csv'}, {out / 'ablation.png'}")


def run(root: Path, out: Path, row: str, seed: int, threads: int) -> Result:
    """Trains and scores one run in processes of its own; a finished one is read."""
    folder = out / row.replace(" ", "_") / f"seed_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    words = ["experiment=ablation", f"hydra.run.dir={folder}", f"data.root={root}", f"seed={seed}", *ROWS[row]]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with (folder / "log.txt").open("a") as log:
        subprocess.run([sys.executable, "-m", "sn6.run", *words], check=True, env=environment, stdout=log, stderr=log)
        proposals, scored = folder / "sar" / "proposals.csv", folder / "score.json"
        words = [f"truth={root}", f"root={root}", f"proposals={proposals}", f"out={scored}"]
        subprocess.run([sys.executable, "-m", "sn6.score", *words], check=True, stdout=log, stderr=log)
    metrics = json.loads((folder / "metrics.json").read_text())
    low, high = json.loads(scored.read_text())["interval"]["f1"]
    optical = metrics.get("eo", {}).get("val_f1", float("nan"))
    return Result(metrics["f1"], metrics["ceiling_f1"], (low, high), optical, metrics["val_f1"])


def table_of(rows: dict[str, list[Result]]) -> Table:
    """Polygon F1 on the test tiles, a row for each change."""
    seeds = len(rows[CENTRE])
    heads = ("", *(f"seed {seed}" for seed in range(seeds)), "mean", "deviation", "against centre", "of its ceiling")
    table = Table(*heads, "95%, seed 0", title=TITLE, box=box.MARKDOWN)
    for row, results in rows.items():
        scores = [result.f1 for result in results]
        gains = [score - centre.f1 for score, centre in zip(scores, rows[CENTRE], strict=True)]
        gain = "" if row == CENTRE else f"{mean(gains):+.3f} ± {spread(gains):.3f}"
        share = mean(result.f1 / result.ceiling for result in results)
        low, high = results[0].interval
        cells = (*map(figure, scores), figure(mean(scores)), figure(spread(scores)), gain, f"{share:.0%}")
        table.add_row(row, *cells, f"{low:.3f} to {high:.3f}")
    return table


def side_by_side(rows: dict[str, list[Result]]) -> Table:
    """The optical network beside the radar network of as many steps, on the tiles of the validation column."""
    seeds = len(rows[CENTRE])
    heads = ("", *(f"seed {seed}" for seed in range(seeds)), "mean", "deviation")
    table = Table(*heads, title="polygon F1, validation column, which chose the epoch", box=box.MARKDOWN)
    for name, scores in of_validation(rows).items():
        table.add_row(name, *map(figure, scores), figure(mean(scores)), figure(spread(scores)))
    return table


def of_validation(rows: dict[str, list[Result]]) -> dict[str, list[float]]:
    return {
        "optical alone": [result.optical for result in rows[CENTRE]],
        "radar alone": [result.radar for result in rows[ALONE]],
        "optical first, then radar": [result.radar for result in rows[CENTRE]],
    }


def spread(values: Sequence[float]) -> float:
    """The standard deviation of a sample."""
    return stdev(values) if len(values) > 1 else float("nan")


def figure(value: float) -> str:
    return f"{value:.3f}"


def write_csv(rows: dict[str, list[Result]], path: Path) -> None:
    """A line for each run."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "seed", "f1", "low", "high", "ceiling_f1", "optical_val_f1", "radar_val_f1"])
        for row, results in rows.items():
            for seed, result in enumerate(results):
                writer.writerow([row, seed, result.f1, *result.interval, result.ceiling, result.optical, result.radar])


def picture(rows: dict[str, list[Result]]) -> Figure:
    """Each run as a dot, each mean as a line; the ceiling of the binary mask dashed."""
    drawing = Figure(figsize=(11, 4), layout="constrained")
    test, validation = drawing.subplots(1, 2, width_ratios=(3, 2))
    dots(test, {row: [result.f1 for result in results] for row, results in rows.items()})
    ceiling = mean(result.ceiling for results in rows.values() for result in results)
    test.axvline(ceiling, color="black", linestyle="--", label="a perfect binary mask")
    test.set_xlabel("polygon F1, test tiles")
    dots(validation, of_validation(rows))
    validation.set_xlabel("polygon F1, validation column")
    for axes in (test, validation):
        axes.set_xlim(0, 1.1 * ceiling)
    drawing.legend(loc="outside upper left")
    return drawing


def dots(axes: Axes, groups: dict[str, list[float]]) -> None:
    """A line of the picture for each group."""
    for place, scores in enumerate(groups.values()):
        axes.plot(scores, [place] * len(scores), "o", color="tab:blue")
        axes.plot([mean(scores)] * 2, [place - 0.3, place + 0.3], color="tab:orange", linewidth=3)
    axes.set_yticks(range(len(groups)), groups)
    axes.invert_yaxis()


if __name__ == "__main__":
    run_command(ablation, "benchmarks.ablation")
