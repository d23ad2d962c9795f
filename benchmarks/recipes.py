"""Train recipes with several seeds, and compare their scores on the test tiles with intervals over the ground.

Each run is `python -m sn6.run` in processes of its own. A finished run is only read, and an interrupted one resumes.
"""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sn6.datasets.declaration import Split
from sn6.datasets.spacenet6 import SpaceNet6
from sn6.errors import UserError
from sn6.metrics.breakdown import central, resampled_f1, spatial_blocks
from sn6.metrics.matching import Counts
from sn6.metrics.scorecard import LEVEL
from sn6.score import match_files, tiles_of
from sn6.simulation.archive import make_archive, settings_of

PRODUCT = "SAR-Intensity"
BLOCK_SIZE = 450.0  # m, as in sn6.score
RESAMPLES = 2000
PARTS = {"all": "", "touching": "touching_", "alone": "alone_"}  # buildings → prefix of the keys in metrics.json
COST_FILE = "cost.json"
SPLIT: Split = "test_public"

Recipes = Mapping[str, Sequence[str]]  # name → overrides


@dataclass(frozen=True, eq=False)
class Result:
    """A finished run.

    Attributes:
        test: scores on the test tiles, as in metrics.json
        counts: true positives, false positives, false negatives of each tile, for each of PARTS
        parameters: of the network, or of all that are averaged
        cpu_seconds: of the whole command, validation and test included
    """

    test: Mapping[str, Any]
    counts: Int64[np.ndarray, "3 tiles 3"]
    parameters: int
    cpu_seconds: float


def train_all(recipes: Recipes, root: Path, out: Path, seeds: int, parallel: int) -> dict[str, list[Result]]:
    """Train every recipe with every seed as `run_all`; return their results by recipe."""
    run_all(recipes, root, out, seeds, parallel)
    return {name: [read_result(folder_of(out, name, seed)) for seed in range(seeds)] for name in recipes}


def run_all(recipes: Recipes, root: Path, out: Path, seeds: int, parallel: int) -> None:
    """Run every recipe with every seed, `parallel` at a time, which share the cores.

    Raises:
        UserError: a run failed
    """
    make_archive(root, settings_of(scale="medium", seed=0))
    jobs = [(name, seed) for seed in range(seeds) for name in recipes]
    threads = max(1, (os.cpu_count() or 1) // parallel)
    with ThreadPoolExecutor(parallel) as pool:
        running = []
        for name, seed in jobs:
            folder = folder_of(out, name, seed)
            overrides = [*recipes[name], f"data.root={root}", f"seed={seed}"]
            running.append(pool.submit(run_once, folder, ["sn6.run", f"hydra.run.dir={folder}", *overrides], threads))
        for done in track(as_completed(running), "runs", total=len(jobs), console=Console(stderr=True)):
            done.result()


def folder_of(out: Path, name: str, seed: int | None = None) -> Path:
    """Return the folder of a row, or of the run of a seed."""
    folder = out / name.replace(" ", "_").replace(",", "")
    return folder if seed is None else folder / f"seed_{seed}"


def run_once(folder: Path, arguments: Sequence[str], threads: int) -> None:
    """Run `python -m arguments...`, which writes to `folder`, unless it has finished before; note what it has cost.

    Raises:
        UserError: it failed
    """
    cost = folder / COST_FILE
    if cost.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        run = subprocess.Popen([sys.executable, "-m", *arguments], env=environment, stdout=log, stderr=log)
        _, status, used = os.wait4(run.pid, 0)
    if status:
        raise UserError(f"{folder}: the run failed, see log.txt there", kind="failed", value=folder)
    cost.write_text(json.dumps({"cpu_seconds": used.ru_utime + used.ru_stime}))


def average(folder: Path, runs: Sequence[Path], root: Path, threads: int) -> Result:
    """Predict the test tiles with the mean of several runs' outputs, and score them; errors of `run_once`."""
    listed = f"[{','.join(map(str, runs))}]"
    options = (f"checkpoint={listed}", f"root={root}", f"split={SPLIT}", f"out={folder / 'prediction'}")
    run_once(folder, ["sn6.predict", *options], threads)
    proposals = folder / "prediction" / "proposals.csv"
    archive = SpaceNet6(root)
    tiles, _ = match_files(None, proposals, archive, tiles_of(archive), strict=False, selected=None)
    tiles.sort(key=lambda tile: tile.image_id)
    everything, touching = (
        np.array([(one.tp, one.fp, one.fn) for one in counts])
        for counts in ([tile.counts for tile in tiles], [tile.instances.touching for tile in tiles])
    )
    counts = np.stack([everything, touching, everything - touching])
    test = {f"{prefix}{key}": value for prefix, key, value in scores_of(counts)}
    parameters, seconds = sum(read_result(run).parameters for run in runs), cpu_seconds(folder)
    return Result(test, counts, parameters, seconds + sum(map(cpu_seconds, runs)))


def scores_of(counts: Int64[np.ndarray, "3 tiles 3"]) -> Iterator[tuple[str, str, float]]:
    """Yield the prefix of the keys in metrics.json, the key and the score of each of PARTS."""
    for prefix, (tp, fp, fn) in zip(PARTS.values(), counts.sum(axis=1).tolist(), strict=True):
        total = Counts(tp, fp, fn)
        yield from ((prefix, key, getattr(total, key)) for key in ("f1", "precision", "recall"))


def cpu_seconds(folder: Path) -> float:
    """Return the processor seconds of what wrote to `folder`, in all its threads."""
    return json.loads((folder / COST_FILE).read_text())["cpu_seconds"]


def read_result(folder: Path) -> Result:
    """Read the result of the last stage of a finished run."""
    metrics = json.loads((folder / "metrics.json").read_text())
    stage = folder / list(metrics["stages"])[-1] if "stages" in metrics else folder
    with (stage / "test_tiles.csv").open(newline="") as file:
        tiles = sorted(csv.DictReader(file), key=lambda tile: tile["image_id"])
    columns = {
        prefix: [[int(tile[prefix + kind]) for kind in ("tp", "fp", "fn")] for tile in tiles]
        for prefix in ("", "touching_")
    }
    everything, touching = (np.array(rows) for rows in columns.values())
    state = torch.load(stage / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    parameters = sum(tensor.numel() for name, tensor in state.items() if name.endswith(("weight", "bias")))
    counts = np.stack([everything, touching, everything - touching])
    return Result(metrics["test"], counts, parameters, cpu_seconds(folder))


def blocks_of(root: Path) -> Int64[np.ndarray, " tiles"]:
    """Return the spatial block of each test tile of an archive, in the order of their image ids."""
    tiles = sorted(SpaceNet6(root).tiles(SPLIT, PRODUCT), key=lambda tile: tile.image_id)
    return spatial_blocks(np.array([(tile.bounds[0], tile.bounds[3]) for tile in tiles]), BLOCK_SIZE)


def mean_f1(results: Sequence[Result], blocks: Int64[np.ndarray, " tiles"]) -> Float[np.ndarray, "3 resamples"]:
    """Return the resampled F1 of each of PARTS, mean over seeds, after that of all blocks in the first column."""
    counts = np.stack([result.counts for result in results])
    tp, fp, fn = np.moveaxis(counts.sum(axis=-2), -1, 0)
    whole = 2 * tp / np.maximum(2 * tp + fp + fn, 1)
    return np.concatenate([whole[..., None], resampled_f1(counts, blocks, RESAMPLES)], axis=-1).mean(axis=0)


def with_interval(values: Float[np.ndarray, " resamples"], sign: str = "") -> str:
    """Write the first value with the interval of the others."""
    low, high = central(values[1:], LEVEL)
    return f"{values[0]:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def table_of(results: Mapping[str, Sequence[Result]], blocks: Int64[np.ndarray, " tiles"], title: str) -> Table:
    """Return the table of scores, means over seeds; the first recipe is what the others are compared with."""
    differences = [f"difference, {part}" for part in PARTS]
    header = ["", "F1", "seeds", *differences, "precision", "recall", "recall touching", "recall alone", "pixel IoU"]
    table = Table(*header, "parameters", "CPU s", title=title, box=box.MARKDOWN)
    reference = mean_f1(next(iter(results.values())), blocks)
    for name, runs in results.items():
        scores = mean_f1(runs, blocks)
        is_reference = (scores == reference).all()
        gains = ["" if is_reference else with_interval(gain, "+") for gain in scores - reference]
        keys = ("precision", "recall", "touching_recall", "alone_recall", "iou")
        means = [f"{np.mean([run.test[key] for run in runs]):.3f}" if key in runs[0].test else "" for key in keys]
        seeds = " ".join(f"{run.test['f1']:.3f}" for run in runs)
        cost = [f"{runs[0].parameters / 1e6:.1f} M", f"{np.mean([run.cpu_seconds for run in runs]):.0f}"]
        table.add_row(name, with_interval(scores[0]), seeds, *gains, *means, *cost)
    return table


def figure_of(results: Mapping[str, Sequence[Result]], blocks: Int64[np.ndarray, " tiles"]) -> Figure:
    """Draw F1 of each recipe for each of PARTS: a dot per seed, and the interval of their mean as a bar."""
    figure = Figure(figsize=(12, 1.2 + 0.45 * len(results)), layout="constrained")
    panels = figure.subplots(1, len(PARTS), sharey=True)
    for part, ((name, prefix), axes) in enumerate(zip(PARTS.items(), panels, strict=True)):
        for y, runs in enumerate(results.values()):
            scores = mean_f1(runs, blocks)[part]
            low, high = central(scores[1:], LEVEL)
            axes.plot([low, high], [y, y], color="tab:orange", linewidth=6, alpha=0.5, solid_capstyle="butt")
            axes.plot(scores[0], y, "|", color="black", markersize=14)
            seeds = [run.test[f"{prefix}f1"] for run in runs]
            axes.plot(seeds, [y] * len(seeds), "o", color="tab:blue")
        axes.set_title(f"{name} buildings")
        axes.set_xlabel("polygon F1, test tiles")
        axes.set_xlim(left=0)
        axes.set_yticks(range(len(results)), list(results))
    panels[0].invert_yaxis()
    return figure


def compare(
    recipes: Recipes, root: Path, out: Path, seeds: int, parallel: int, title: str, averaged: Sequence[str] = ()
) -> None:
    """Train recipes, print their table, and write their figure.

    Args:
        recipes: the first one is what the others are compared with
        root: the archive
        out: folder of the runs and the figure
        seeds: runs of each recipe
        parallel: runs at a time
        title: of the table
        averaged: recipes whose runs of all seeds are also averaged, a row each
    """
    results = train_all(recipes, root, out, seeds, parallel)
    for name in averaged if seeds > 1 else ():
        runs, row = [folder_of(out, name, seed) for seed in range(seeds)], f"{name}, mean of {seeds} outputs"
        results[row] = [average(folder_of(out, row), runs, root, os.cpu_count() or 1)]
    blocks = blocks_of(root)
    number = int(blocks.max()) + 1
    table = table_of(results, blocks, f"{title}; {seeds} seeds, 95% intervals over {number} blocks of ground")
    Console(width=None if sys.stdout.isatty() else 260).print(table)
    figure_of(results, blocks).savefig(out / "recipes.png", dpi=110)
    print(f"runs and figure: {out}")
