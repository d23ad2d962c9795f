"""Measure the start-up: seconds until the help and until the first training step, and the memory of the processes.

    python -m benchmarks.startup            (--help lists its keys)

The archive has as many tiles and buildings as the published one, but tiny images, so that all that is proportional to
the pixels is small. The first start has no cache of the archive, the later ones have.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Annotated, Any

from pydantic import PositiveInt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sn6.cli import run_command

SIZE = 32  # pixels
STRIP = "20190822070610_20190822070846"
PARTS = {  # part of the start-up → module and function that is measured
    "config": ("sn6.training.experiment", "resolve"),
    "index": ("sn6.datasets.tile_files", "index_bounds"),
    "labels": ("sn6.datasets.spacenet6", "load_labels"),
    "fold": ("sn6.data.datamodule", "make_fold"),
    "statistics": ("sn6.data.datamodule", "measure_statistics"),
    "network, loss, data module": ("sn6.training.stage", "make_modules"),
    "trainer": ("sn6.training.stage", "make_trainer"),
}
STEP_DONE = "on_train_batch_end"  # a hook that the Segmenter itself does not use
RUN = (
    "model.width=4",
    "model.pretrained=null",
    f"data.crop={SIZE}",
    "data.batch_size=2",
    "data.num_workers=2",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "~callbacks.progress_bar",
    "+trainer.enable_progress_bar=false",
    "+trainer.num_sanity_val_steps=0",
)


def startup(
    folder: Annotated[Path, "folder for the archive and the runs"] = Path("outputs/startup"),
    tiles: Annotated[PositiveInt, "tiles of the archive"] = 3401,
    buildings: Annotated[PositiveInt, "buildings per tile"] = 63,
    repeats: Annotated[PositiveInt, "measurements; the median is printed"] = 3,
) -> None:
    """Print seconds of wall time, and the memory of a training and its two workers.

    Memory is given without and with a process's part of the memory that several processes share (USS and PSS).
    """
    root = folder / f"{tiles}x{buildings}"
    if not root.exists():
        make_archive(root, tiles, buildings)
    table = Table("what", "without cache", "with cache", title=f"{tiles} tiles of {buildings} buildings")
    for command in ("run", "score"):
        seconds = median(elapsed("-m", f"sn6.{command}", "--help") for _ in range(repeats))
        table.add_row(f"sn6.{command} --help", "", f"{seconds:.2f} s")
    shutil.rmtree(root / ".sn6", ignore_errors=True)
    starts = [first_step(root, folder / "runs", number) for number in range(repeats + 1)]
    first, later = starts[0], starts[1:]
    for part in first["seconds"]:
        seconds = median(start["seconds"][part] for start in later)
        table.add_row(part, f"{first['seconds'][part]:.2f} s", f"{seconds:.2f} s")
    for package, seconds in import_seconds()[:6]:
        table.add_row(f"  imports of {package}", "", f"{seconds:.2f} s")
    for process in first["megabytes"]:
        uss, pss = (median(start["megabytes"][process][of] for start in later) for of in ("uss", "pss"))
        table.add_row(f"memory: {process}", "", f"{uss:.0f} MB, with its part of shared memory {pss:.0f} MB")
    table.add_row("pickled data set of all tiles", "", f"{pickled_size(root) / 1e6:.2f} MB")
    Console().print(table)


def make_archive(root: Path, tiles: int, buildings: int) -> None:
    """Write a corner of each radar tile, 450 m apart, and all labels; the folder is renamed when it is complete."""
    import numpy as np
    import rasterio
    import shapely
    from rasterio.transform import from_origin

    from benchmarks.street_map import street_map
    from sn6.datasets.spacenet6 import PIXEL, labels_path, orientations_path, tile_path

    part, rng = root.with_name("unfinished"), np.random.default_rng(0)
    shutil.rmtree(part, ignore_errors=True)
    for path in (labels_path(part), tile_path(part, "train", "SAR-Intensity", "")):
        path.parent.mkdir(parents=True)
    streets = [shapely.to_wkt(street_map(rng, buildings)).tolist() for _ in range(50)]
    profile = {"driver": "GTiff", "count": 4, "height": SIZE, "width": SIZE, "dtype": "float32", "nodata": 0}
    orientations_path(part).write_text(f"{STRIP} 0\n")
    with labels_path(part).open("w") as labels:
        labels.write("ImageId,TileBuildingId,PolygonWKT_Pix,Mean_Building_Height\n")
        for i in track(range(tiles), "making the archive", console=Console(stderr=True), transient=True):
            image_id = f"{STRIP}_tile_{i}"
            transform = from_origin(592000.0 + 450 * (i % 20), 5750000.0 - 450 * (i // 20), PIXEL, PIXEL)
            path = tile_path(part, "train", "SAR-Intensity", image_id)
            with rasterio.open(path, "w", crs="EPSG:32631", transform=transform, **profile) as file:
                file.write(rng.uniform(5, 50, (4, SIZE, SIZE)).astype(np.float32))
            labels.writelines(f'{image_id},{n},"{wkt}",5.0\n' for n, wkt in enumerate(streets[i % len(streets)]))
    part.rename(root)


def elapsed(*arguments: str) -> float:
    """Measure the seconds of `python arguments...`."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def first_step(root: Path, runs: Path, number: int) -> dict[str, Any]:
    """Start a training as a user does, and return what `train_to_first_step` prints."""
    shutil.rmtree(runs / str(number), ignore_errors=True)
    overrides = [*RUN, f"data.root={root}", f"hydra.run.dir={runs / str(number)}"]
    code = "from benchmarks.startup import train_to_first_step; train_to_first_step()"
    environment = os.environ | {"STARTED": repr(time.time())}
    done = subprocess.run([sys.executable, "-c", code, *overrides], check=True, env=environment, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def train_to_first_step() -> None:
    """Train by the overrides of the command line until the first step is done; print seconds and memory as JSON."""
    started, seconds = float(os.environ["STARTED"]), defaultdict[str, float](float)
    import sn6.run  # after the clock has started, as all further imports

    seconds["Python, Hydra and the command line"] = time.time() - started
    before = time.time()
    import_module("sn6.training.experiment")
    seconds["imports of torch, Lightning and the rest"] = time.time() - before
    for part, (module, name) in PARTS.items():
        owner = import_module(module)
        setattr(owner, name, timed(getattr(owner, name), seconds, part))

    import psutil

    from sn6.segmenter import Segmenter

    def stop(*_: Any) -> None:
        total = time.time() - started
        parts = {**seconds, "everything else": total - sum(seconds.values()), "command to first training step": total}
        print(json.dumps({"seconds": parts, "megabytes": megabytes()}), flush=True)
        for child in psutil.Process().children():
            child.kill()
        os._exit(0)

    setattr(Segmenter, STEP_DONE, stop)
    sn6.run.main()


def timed(function: Callable, seconds: dict[str, float], part: str) -> Callable:
    """Return the function, which adds its seconds to those of `part`."""

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        before = time.time()
        try:
            return function(*args, **options)
        finally:
            seconds[part] += time.time() - before

    return call


def megabytes() -> dict[str, dict[str, float]]:
    """Measure the memory of this process and its children: "uss" is private, "pss" includes a part of shared memory."""
    import psutil

    main = psutil.Process()
    names = {main: "main process"} | {child: f"worker {n}" for n, child in enumerate(main.children(), start=1)}
    memory = {name: process.memory_full_info() for process, name in names.items()}
    return {name: {"uss": info.uss / 1e6, "pss": info.pss / 1e6} for name, info in memory.items()}


def import_seconds() -> list[tuple[str, float]]:
    """Measure the imports of a training; return each package and the seconds of its own modules, largest first."""
    code = [sys.executable, "-X", "importtime", "-c", "import sn6.run, sn6.training.experiment"]
    lines = subprocess.run(code, check=True, capture_output=True, text=True).stderr.splitlines()
    seconds = defaultdict[str, float](float)
    for line in lines:
        own, _, name = line.removeprefix("import time:").split("|")
        if own.strip().isdigit():
            seconds[name.strip().partition(".")[0]] += int(own) / 1e6
    return sorted(seconds.items(), key=lambda item: -item[1])


def pickled_size(root: Path) -> int:
    """Return the bytes that are sent to each worker if processes are not forked."""
    from sn6.data.dataset import TileDataset
    from sn6.data.normalization import Statistics
    from sn6.data.source import Source
    from sn6.datasets.spacenet6 import SpaceNet6

    archive = SpaceNet6(root)
    tiles = archive.tiles("train", "SAR-Intensity")
    archive.labels(tiles[0])
    source = Source(archive.products["SAR-Intensity"], (1, 2, 3, 4), orient=True, min_area=20.0)
    return len(pickle.dumps(TileDataset(archive, tiles, source, Statistics((0.0,) * 4, (1.0,) * 4, None))))


if __name__ == "__main__":
    run_command(startup, "benchmarks.startup")
