"""Measure how time and memory grow with the work: 1, 4 and 16 times the amount.

    python -m benchmarks.growth            (--help lists its keys)

Commands and functions that read an archive run in their own processes; the peak is that of the largest process,
libraries included. For a single tile and for matching in memory the arrays are measured instead.
"""

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated

from pydantic import PositiveInt
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.comparison import with_unit
from benchmarks.growing_work import (
    Cost,
    measure_boundary,
    measure_cached_folder,
    measure_cached_index,
    measure_classes,
    measure_download,
    measure_folder,
    measure_fusion,
    measure_index,
    measure_layers,
    measure_matching,
    measure_polygons,
    measure_prediction,
    measure_score,
    measure_simulation,
    measure_targets,
    measure_tile,
)
from sn6.cli import run_command

STEPS = (1, 4, 16)
TOLERANCE = 1.15  # a larger factor than this times the allowed one is reported


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
    index: Annotated[PositiveInt, "tiles or images of an index"] = 200,
    validation: Annotated[PositiveInt, "tiles of a validation, with 63 buildings each"] = 44,
    polygons: Annotated[PositiveInt, "polygons of each of two layers without tiles"] = 2500,
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
    flat = partial(Subject, constant_memory=True)  # where it should not grow
    subjects = (
        Subject("index of an archive", f"{index} tiles", partial(measure_index, folder, index)),
        Subject("the same, from the cache", f"{index} tiles", partial(measure_cached_index, folder, repeats)),
        Subject("index of a folder", f"{index} images", partial(measure_folder, folder, index)),
        Subject("the same, from the cache", f"{index} images", partial(measure_cached_folder, folder, repeats)),
        flat("sn6.score", f"{validation} tiles", partial(measure_score, folder, validation)),
        Subject("sn6.score of two layers", f"{polygons} polygons", partial(measure_layers, folder, polygons)),
        Subject("matching only", f"{validation} tiles", partial(measure_matching, validation)),
        Subject("targets of a tile", "1 head", partial(measure_targets, repeats)),
        Subject("boundary weights", f"{buildings} buildings", partial(measure_boundary, buildings, repeats)),
        Subject("mask → polygons", f"{buildings} buildings", partial(measure_polygons, buildings, repeats)),
        Subject("the same with classes", "1 class", partial(measure_classes, buildings, repeats)),
        flat("fusion of a tile", "2 looks", partial(measure_fusion, folder, repeats)),
        Subject("matching of a tile", f"{buildings} buildings", partial(measure_tile, buildings, repeats)),
        flat("sn6.predict", f"{pixels}×{pixels} pixels", partial(measure_prediction, folder, pixels)),
        flat("sn6.simulate", f"{simulated} tiles", partial(measure_simulation, folder, simulated)),
        flat("sn6.download", f"{megabytes} MB", partial(measure_download, folder, megabytes)),
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


if __name__ == "__main__":
    run_command(growth, "benchmarks.growth")
