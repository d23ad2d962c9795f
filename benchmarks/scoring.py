"""Measure the time on one core to score a validation set from files.

    python -m benchmarks.scoring            (--help lists its keys)

The files contain a randomly shifted proposal for each building. A plain implementation confirms the counts.
"""

import csv
import json
import sys
import time
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Annotated

import numpy as np
import shapely
from pydantic import PositiveInt
from rich.console import Console
from rich.table import Table

from benchmarks.f1 import loop_counts
from benchmarks.process import measure_command
from benchmarks.street_map import shifted, street_map
from sn6.cli import run_command
from sn6.datasets.spacenet6 import CRS, PIXEL
from sn6.footprints import Footprints
from sn6.formats.challenge_csv import ChallengeCSVWriter
from sn6.formats.geojson import GeoJSONWriter
from sn6.formats.geoparquet import GeoParquetWriter
from sn6.formats.writer import FootprintWriter
from sn6.metrics.matching import Counts

FORMATS: dict[str, Callable[[Path], FootprintWriter]] = {
    "csv": ChallengeCSVWriter,
    "geojson": lambda path: GeoJSONWriter(path, CRS, PIXEL),
    "parquet": lambda path: GeoParquetWriter(path, CRS, PIXEL),
}


def scoring(
    folder: Annotated[Path, "folder for the files"] = Path("outputs/scoring"),
    tiles: Annotated[PositiveInt, "tiles of the validation set"] = 705,
    buildings: Annotated[PositiveInt, "buildings per tile"] = 63,
) -> None:
    """Print the seconds of `python -m sn6.score` for each format."""
    rng = np.random.default_rng(0)
    truths = [street_map(rng, buildings) for _ in range(tiles)]
    proposals = [shifted(rng, truth) for truth in truths]
    write(folder / "truth.csv", ChallengeCSVWriter, [Footprints(truth, np.ones(len(truth))) for truth in truths])
    table = Table("what", "time on one core", "tp", "fp", "fn", title=f"{tiles} tiles of {buildings} buildings")
    for suffix, writer in FORMATS.items():
        write(folder / f"proposals.{suffix}", writer, proposals)
    started = time.process_time()
    plain = plain_counts(folder / "truth.csv", folder / "proposals.csv")
    table.add_row(
        "plain implementation, matching only", f"{time.process_time() - started:.2f} s", *map(str, astuple(plain))
    )
    for suffix in FORMATS:
        path = folder / f"proposals.{suffix}"
        seconds, counts = run_score(folder / "truth.csv", path)
        table.add_row(f"sn6.score of {path.name}", f"{seconds:.2f} s", *map(str, astuple(counts)))
        if counts != plain:
            sys.exit(f"{path} scores {counts}, the plain implementation counts {plain}")
    Console().print(table)


def write(path: Path, writer: Callable[[Path], FootprintWriter], tiles: list[Footprints]) -> None:
    """Write a file of tiles side by side."""
    with writer(path) as file:
        for i, footprints in enumerate(tiles):
            east, north = 591550.0 + 450 * (i % 20), 5750000.0 - 450 * (i // 20)
            file.write(f"20190822070610_20190822070846_tile_{i}", (east, north), footprints)


def run_score(truth: Path, proposals: Path) -> tuple[float, Counts]:
    """Run the command, and return its seconds on one core, start-up included, and its counts."""
    out = proposals.with_name("score.json")
    used = measure_command(
        [sys.executable, "-m", "sn6.score", f"truth={truth}", f"proposals={proposals}", f"out={out}"]
    )
    overall = json.loads(out.read_text())["overall"]
    return used.core_seconds, Counts(overall["tp"], overall["fp"], overall["fn"])


def plain_counts(truth: Path, proposals: Path) -> Counts:
    """Apply the rules to files that are read row by row."""
    buildings, proposed = rows_of(truth), rows_of(proposals)
    return sum((loop_counts(true.polygons, proposed[image_id]) for image_id, true in buildings.items()), Counts())


def rows_of(path: Path) -> dict[str, Footprints]:
    """Read confidences and polygons of each tile."""
    tiles: dict[str, list[tuple[shapely.Polygon, float]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            tiles.setdefault(row["ImageId"], []).append(
                (shapely.from_wkt(row["PolygonWKT_Pix"]), float(row["Confidence"]))
            )
    return {
        image_id: Footprints(
            np.array([polygon for polygon, _ in rows], dtype=object), np.array([one for _, one in rows])
        )
        for image_id, rows in tiles.items()
    }


if __name__ == "__main__":
    run_command(scoring, "benchmarks.scoring")
