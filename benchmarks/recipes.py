"""Train recipes with several seeds, and compare their scores on the test tiles with intervals over the ground.

Each run is `python -m sn6.run` in processes of its own. A finished run is only read, and an interrupted one resumes.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from rich.console import Console
from rich.progress import track

from sn6.datasets.declaration import Split
from sn6.datasets.spacenet6 import SpaceNet6
from sn6.errors import UserError
from sn6.metrics.breakdown import spatial_blocks
from sn6.metrics.comparison import BLOCK_SIZE, PARTS, RunResult, as_markdown, comparison_table
from sn6.metrics.matching import Counts
from sn6.plots.run_comparison import run_comparison_figure
from sn6.score import match_files, tiles_of
from sn6.simulation.archive import make_archive, settings_of
from sn6.sweeps.compared_runs import TILES_FILE, read_tile_counts

PRODUCT = "SAR-Intensity"
COST_FILE = "cost.json"
SPLIT: Split = "test_public"

Recipes = Mapping[str, Sequence[str]]  # name → overrides


@dataclass(frozen=True, eq=False)
class Result(RunResult):
    """A finished run and its cost.

    Attributes:
        parameters: of the network, or of all that are averaged
        cpu_seconds: of the whole command, validation and test included
    """

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
    state = torch.load(stage / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    parameters = sum(tensor.numel() for name, tensor in state.items() if name.endswith(("weight", "bias")))
    counts = read_tile_counts(stage / TILES_FILE).counts
    return Result(metrics["test"], counts, parameters, cpu_seconds(folder))


def blocks_of(root: Path) -> Int64[np.ndarray, " tiles"]:
    """Return the spatial block of each test tile of an archive, in the order of their image ids."""
    tiles = sorted(SpaceNet6(root).tiles(SPLIT, PRODUCT), key=lambda tile: tile.image_id)
    return spatial_blocks(np.array([(tile.bounds[0], tile.bounds[3]) for tile in tiles]), BLOCK_SIZE)


def known_rows(recipes: Recipes, names: Sequence[str] | None, key: str) -> list[str]:
    """Return the names of rows that were asked for by a key, all without it.

    Raises:
        UserError: there is no such row
    """
    if unknown := [name for name in names or () if name not in recipes]:
        choices = ", ".join(recipes)
        raise UserError(
            f"unknown row {unknown[0]!r}; choose from {choices}", kind="unknown_value", key=key, value=unknown[0]
        )
    return list(recipes if names is None else names)


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
    print(f"{title}; {seeds} seeds, 95% intervals over {number} blocks of ground")
    print(as_markdown(with_costs(comparison_table(results, blocks), results)))
    run_comparison_figure(results, blocks).savefig(out / "recipes.png", dpi=110)
    print(f"runs and figure: {out}")


def with_costs(rows: Sequence[Sequence[str]], results: Mapping[str, Sequence[Result]]) -> list[list[str]]:
    """Add parameters and mean CPU seconds to the rows of a table."""
    costs = [
        [f"{runs[0].parameters / 1e6:.1f} M", f"{np.mean([run.cpu_seconds for run in runs]):.0f}"]
        for runs in results.values()
    ]
    return [[*row, *cost] for row, cost in zip(rows, [["parameters", "CPU s"], *costs], strict=True)]
