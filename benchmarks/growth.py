"""Measure how time and memory grow with the work: 1, 4 and 16 times the amount.

    python -m benchmarks.growth            (--help lists its keys)

Commands and functions that read an archive run in their own processes; the peak is that of the largest process,
libraries included. For a single tile and for matching the arrays are measured instead.
"""

import os
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import rasterio
from pydantic import PositiveInt
from rasterio.transform import from_origin
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.boundary import MAX_SIDE, SIGMA, W0
from benchmarks.comparison import Implementation, medians, peak_of_arrays, with_unit
from benchmarks.f1 import sn6_counts
from benchmarks.local_download import STRIP, serving, write_tarball
from benchmarks.process import measure_command, measure_function
from benchmarks.scoring import write
from benchmarks.street_map import SIZE, shifted, street_map, terraces
from sn6.cli import run_command
from sn6.datasets.spacenet6 import CRS, PIXEL, SpaceNet6, orientations_path, tile_path
from sn6.footprints import Footprints
from sn6.footprints.polygonize import polygonize
from sn6.formats.challenge_csv import ChallengeCSVWriter
from sn6.targets.boundary import boundary_term
from sn6.targets.rasterize import rasterize_instances

STEPS = (1, 4, 16)
TOLERANCE = 1.15  # a larger factor than this times the allowed one is reported
Cost = tuple[float, float]  # seconds, bytes


@dataclass(frozen=True)
class Subject:
    """A program whose growth is measured.

    Attributes:
        name: row of the table
        unit: the work at 1×
        measure: factor of the work → seconds and bytes
        constant_memory: whether memory should not grow at all
    """

    name: str
    unit: str
    measure: Callable[[int], Cost]
    constant_memory: bool = False


def growth(
    folder: Annotated[Path, "folder for the files; its contents are replaced"] = Path("outputs/growth"),
    index: Annotated[PositiveInt, "tiles of the index"] = 200,
    validation: Annotated[PositiveInt, "tiles of a validation, with 63 buildings each"] = 44,
    buildings: Annotated[PositiveInt, "buildings on a tile"] = 60,
    pixels: Annotated[PositiveInt, "edge length of a predicted GeoTIFF"] = 1024,
    simulated: Annotated[PositiveInt, "simulated tiles of 128 pixels"] = 64,
    megabytes: Annotated[PositiveInt, "size of the download"] = 16,
    repeats: Annotated[PositiveInt, "measurements of short functions; the median is printed"] = 5,
) -> None:
    """Print seconds and memory for 1, 4 and 16 times the work, and what grows more than the work."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["NO_PROXY"] = "127.0.0.1"  # address of the download
    subjects = (
        Subject("index of an archive", f"{index} tiles", partial(measure_index, folder, index)),
        Subject("the same, from the cache", f"{index} tiles", partial(measure_cached_index, folder, repeats)),
        Subject("sn6.score", f"{validation} tiles", partial(measure_score, folder, validation), constant_memory=True),
        Subject("matching only", f"{validation} tiles", partial(measure_matching, validation)),
        Subject("boundary weights", f"{buildings} buildings", partial(measure_boundary, buildings, repeats)),
        Subject("mask → polygons", f"{buildings} buildings", partial(measure_polygons, buildings, repeats)),
        Subject("matching of a tile", f"{buildings} buildings", partial(measure_tile, buildings, repeats)),
        Subject(
            "sn6.predict",
            f"{pixels}×{pixels} pixels",
            partial(measure_prediction, folder, pixels),
            constant_memory=True,
        ),
        Subject(
            "sn6.simulate", f"{simulated} tiles", partial(measure_simulation, folder, simulated), constant_memory=True
        ),
        Subject("sn6.download", f"{megabytes} MB", partial(measure_download, folder, megabytes), constant_memory=True),
    )
    heads = ("what", "work at 1×", *(f"{step}×" for step in STEPS), "factors", "memory", "factors", "growth")
    table = Table(*heads, box=box.MARKDOWN)
    for subject in track(subjects, "measuring", console=Console(stderr=True), transient=True):
        table.add_row(*cells(subject, [subject.measure(step) for step in STEPS]))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def cells(subject: Subject, costs: list[Cost]) -> list[str]:
    """Return a row of the table."""
    seconds, peaks = [one for one, _ in costs], [one for _, one in costs]
    work, slower, larger = factors(STEPS), factors(seconds), factors(peaks)
    notes = ["time grows more than the work"] if exceeds(slower, work) else []
    allowed = [1.0] * len(work) if subject.constant_memory else work
    note = "memory grows" if subject.constant_memory else "memory grows more than the work"
    notes += [note] if exceeds(larger, allowed) else []
    return [
        subject.name,
        subject.unit,
        *(with_unit(one, "s") for one in seconds),
        ", ".join(f"{one:.2g}" for one in slower),
        ", ".join(with_unit(one, "bytes") for one in peaks),
        ", ".join(f"{one:.2g}" for one in larger),
        "; ".join(notes) or "ok",
    ]


def factors(values: Sequence[float]) -> list[float]:
    """Return the ratio of each value to the one before it."""
    return [later / earlier for earlier, later in pairwise(values)]


def exceeds(measured: list[float], allowed: list[float]) -> bool:
    """Return whether any factor is clearly larger than the allowed one."""
    return any(one > TOLERANCE * limit for one, limit in zip(measured, allowed, strict=True))


def measure_index(folder: Path, unit: int, step: int) -> Cost:
    """Measure the index of a new archive."""
    write_archive(folder / f"index{step}", unit * step)
    return measure_cached_index(folder, 1, step)


def measure_cached_index(folder: Path, repeats: int, step: int) -> Cost:
    """Measure the index of an archive with a cache."""
    used = [measure_function(read_index, folder / f"index{step}") for _ in range(repeats)]
    return statistics.median(one.seconds for one in used), max(one.peak for one in used)


def read_index(root: Path) -> None:
    """Read the index of an archive."""
    SpaceNet6(root).tiles("train", "SAR-Intensity")


def write_archive(root: Path, tiles: int) -> None:
    """Write an archive of radar tiles of 16 × 16 pixels."""
    profile = {"driver": "GTiff", "dtype": "float32", "count": 4, "height": 16, "width": 16, "nodata": 0, "crs": CRS}
    pixels = np.ones((4, 16, 16), dtype=np.float32)
    for number in range(tiles):
        path = tile_path(root, "train", "SAR-Intensity", f"{STRIP}_tile_{number}")
        path.parent.mkdir(parents=True, exist_ok=True)
        transform = from_origin(591550 + 8 * (number % 60), 5750000 - 8 * (number // 60), PIXEL, PIXEL)
        with rasterio.open(path, "w", transform=transform, **profile) as file:
            file.write(pixels)
    orientations_path(root).parent.mkdir(parents=True)
    orientations_path(root).write_text(f"{STRIP} 0\n")


def measure_score(folder: Path, unit: int, step: int) -> Cost:
    """Measure the command with files in the challenge's format."""
    rng = np.random.default_rng(0)
    truths = [street_map(rng, 63) for _ in range(unit * step)]
    files = {name: folder / f"{name}{step}.csv" for name in ("truth", "proposals")}
    write(files["truth"], ChallengeCSVWriter, [Footprints(truth, np.ones(len(truth))) for truth in truths])
    write(files["proposals"], ChallengeCSVWriter, [shifted(rng, truth) for truth in truths])
    used = measure_command(sn6("score", out=folder / "score.json", **files))
    return used.seconds, used.peak


def measure_matching(unit: int, step: int) -> Cost:
    """Measure the matching of tiles in memory."""
    rng = np.random.default_rng(0)
    tiles = [(truth, shifted(rng, truth)) for truth in (street_map(rng, 63) for _ in range(unit * step))]
    return measure_arrays(lambda: [sn6_counts(*tile) for tile in tiles], 1)


def measure_boundary(unit: int, repeats: int, step: int) -> Cost:
    """Measure the boundary weights of one tile."""
    instances = rasterize_instances(crowded_tile(unit, step), SIZE, SIZE)
    return measure_arrays(lambda: boundary_term(instances, W0, SIGMA), repeats)


def measure_polygons(unit: int, repeats: int, step: int) -> Cost:
    """Measure the polygons of the numbered buildings of one tile."""
    instances = rasterize_instances(crowded_tile(unit, step), SIZE, SIZE)
    return measure_arrays(lambda: polygonize(instances), repeats)


def measure_tile(unit: int, repeats: int, step: int) -> Cost:
    """Measure the matching of a proposal for each building of one tile."""
    truth = crowded_tile(unit, step)
    return measure_arrays(partial(sn6_counts, truth, shifted(np.random.default_rng(0), truth)), repeats)


def crowded_tile(unit: int, step: int) -> np.ndarray:
    """Draw the buildings of one tile; they are smaller where there are more."""
    return terraces(np.random.default_rng(0), unit * step, SIZE, 10 + (MAX_SIDE - 10) / step**0.5)


def measure_arrays(run: Implementation, repeats: int) -> Cost:
    """Measure the median seconds, and the peak bytes of arrays."""
    return medians({"ours": run}, repeats)["ours"], peak_of_arrays(run)


def measure_prediction(folder: Path, unit: int, step: int) -> Cost:
    """Measure the command with a GeoTIFF of `step` times the pixels of the first."""
    # imported here, so that torch is not in the memory of the processes that call a function of this module
    from benchmarks.prediction import write_area, write_network

    root, image, checkpoint = folder / "texture", folder / f"area{step}.tif", folder / "weights.safetensors"
    measure_command(sn6("simulate", root=root, scale="tiny"))  # does nothing if it is complete
    write_area(image, SpaceNet6(root), round(unit * step**0.5))
    if not checkpoint.exists():
        write_network(checkpoint, 4, image)
    used = measure_command(sn6("predict", checkpoint=checkpoint, images=image, out=folder / f"predicted{step}"))
    return used.seconds, used.peak


def measure_simulation(folder: Path, unit: int, step: int) -> Cost:
    """Measure the command with an archive without test tiles."""
    command = sn6("simulate", root=folder / f"simulated{step}", tiles=unit * step, test_tiles=0, size=128)
    used = measure_command(command)
    return used.seconds, used.peak


def measure_download(folder: Path, unit: int, step: int) -> Cost:
    """Measure the command with a tarball of noise from a local server."""
    served = folder / f"served{step}"
    served.mkdir()
    write_tarball(served / "train.tar.gz", unit * step)
    with serving(served) as url:
        command = sn6("download", what="train", root=folder / f"fetched{step}", source=f"{url}/train.tar.gz")
        used = measure_command([*command, "md5=unchecked"])
    return used.seconds, used.peak


def sn6(command: str, **overrides: object) -> list[str]:
    """Return the command line of a command of sn6."""
    return [sys.executable, "-m", f"sn6.{command}", *(f"{key}={value}" for key, value in overrides.items())]


if __name__ == "__main__":
    run_command(growth, "benchmarks.growth")
