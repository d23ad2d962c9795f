"""How much of one core the score takes: a whole validation set from files, and one tile from its logits.

    python -m benchmarks.scoring            (--help tells its keys)

The files hold as many proposals as buildings, shifted at random. A plain implementation, pair by pair as the rules are
written, confirms the counts.
"""

import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import shapely
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from shapely import affinity

from sn6.door import enter
from sn6.footprints import Footprints
from sn6.footprints.challenge_csv import ChallengeCSVWriter
from sn6.footprints.geojson import GeoJSONWriter
from sn6.footprints.geoparquet import GeoParquetWriter
from sn6.footprints.matching import match_tile
from sn6.footprints.polygonize import footprints_from_logits
from sn6.footprints.rasterize import rasterize_instances

SIZE = 900  # pixels
FORMATS = {"csv": ChallengeCSVWriter, "geojson": GeoJSONWriter, "parquet": GeoParquetWriter}


def scoring(
    folder: Annotated[Path, "for the files"] = Path("outputs/scoring"),
    tiles: Annotated[int, "of the validation set"] = 705,
    buildings: Annotated[int, "on each of them"] = 63,
    repeats: Annotated[int, "of the one tile; the median counts"] = 50,
) -> None:
    """Prints the seconds of `python -m sn6.score` for each format, and the milliseconds of one tile of 60 buildings."""
    rng = np.random.default_rng(0)
    truths = [street_map(rng, buildings) for _ in range(tiles)]
    proposals = [shifted(rng, truth) for truth in truths]
    write(folder / "truth.csv", ChallengeCSVWriter, [Footprints(truth, np.ones(len(truth))) for truth in truths])
    table = Table("what", "of one core", "tp", "fp", "fn", title=f"{tiles} tiles of {buildings} buildings")
    for suffix, writer in FORMATS.items():
        write(folder / f"proposals.{suffix}", writer, proposals)
    started = time.process_time()
    plain = plain_counts(folder / "truth.csv", folder / "proposals.csv")
    table.add_row("plain implementation", f"{time.process_time() - started:.2f} s", *map(str, plain))
    for suffix in FORMATS:
        path = folder / f"proposals.{suffix}"
        seconds, counts = scored(folder / "truth.csv", path)
        table.add_row(f"sn6.score of {path.name}", f"{seconds:.2f} s", *map(str, counts))
        if counts != plain:
            sys.exit(f"{path} scores {counts}, the plain implementation counts {plain}")
    for name, milliseconds in one_tile(rng, repeats).items():
        table.add_row(f"one tile: {name}", f"{milliseconds:.1f} ms")
    Console().print(table)


def street_map(rng: np.random.Generator, count: int) -> np.ndarray:
    """Blocks, L-shapes and courtyard houses at any angle, each in a cell of its own; some under 80 px²."""
    side = int(np.ceil(np.sqrt(count)))
    middles = (np.stack(np.divmod(np.arange(count), side), axis=1) + 0.5) * SIZE / side
    houses = []
    for middle in middles + rng.uniform(-12, 12, middles.shape):
        w, h = rng.uniform(4, 32, 2)
        shell = [(-w, -h), (w, -h), (w, h), (-w, h)]
        if rng.random() < 0.3:
            shell = [(-w, -h), (w, -h), (w, 0), (0, 0), (0, h), (-w, h)]
        holes = [[(-w / 2, -h / 2), (-w / 4, -h / 2), (-w / 4, -h / 4)]] if rng.random() < 0.2 else []
        turned = affinity.rotate(shapely.Polygon(shell, holes), rng.uniform(0, 90), origin=(0, 0))
        houses.append(affinity.translate(turned, *middle))
    return np.array(houses, dtype=object)


def shifted(rng: np.random.Generator, truth: np.ndarray) -> Footprints:
    """A proposal for each building, off by some pixels; confidences of two digits, so that there are ties."""
    moved = [affinity.translate(polygon, *rng.normal(0, 5, 2)) for polygon in truth]
    return Footprints(np.array(moved, dtype=object), rng.integers(0, 100, len(moved)) / 100)


def write(path: Path, writer: Callable, tiles: list[Footprints]) -> None:
    """A file of tiles that lie beside one another."""
    with writer(path) as file:
        for i, footprints in enumerate(tiles):
            east, north = 591550.0 + 450 * (i % 20), 5750000.0 - 450 * (i // 20)
            file.write(f"20190822070610_20190822070846_tile_{i}", (east, north), footprints)


def scored(truth: Path, proposals: Path) -> tuple[float, tuple[int, ...]]:
    """The seconds of a core that the command takes from its start to its end, and its counts."""
    out = proposals.with_name("score.json")
    words = [f"truth={truth}", f"proposals={proposals}", f"out={out}"]
    before = os.times()
    subprocess.run([sys.executable, "-m", "sn6.score", *words], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    seconds = sum(after[2:4]) - sum(before[2:4])  # user and system, of the processes that this one waited for
    overall = json.loads(out.read_text())["overall"]
    return seconds, (overall["tp"], overall["fp"], overall["fn"])


def plain_counts(truth: Path, proposals: Path) -> tuple[int, ...]:
    """The rules as they are written, tile by tile and pair by pair, on files read row by row."""
    buildings, proposed = rows_of(truth), rows_of(proposals)
    tp = fp = fn = 0
    for image_id, free in buildings.items():
        for _, proposal in sorted(proposed[image_id], key=lambda row: -row[0]):
            ious = [iou(polygon, proposal) for _, polygon in free]
            best = max(range(len(free)), key=ious.__getitem__, default=None)
            if best is not None and ious[best] > 0.5:
                free.pop(best)
                tp += 1
            else:
                fp += 1
        fn += len(free)
    return tp, fp, fn


def rows_of(path: Path) -> dict[str, list[tuple[float, shapely.Polygon]]]:
    """Confidence and polygon of each row by tile, without those of less than 80 px²."""
    tiles: dict[str, list[tuple[float, shapely.Polygon]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            polygon = shapely.from_wkt(row["PolygonWKT_Pix"])
            rows = tiles.setdefault(row["ImageId"], [])
            if polygon.area >= 80:
                rows.append((float(row["Confidence"]), polygon))
    return tiles


def iou(one: shapely.Polygon, other: shapely.Polygon) -> float:
    """Of two polygons."""
    overlap = one.intersection(other).area
    return overlap / (one.area + other.area - overlap)


def one_tile(rng: np.random.Generator, repeats: int) -> dict[str, float]:
    """The median milliseconds from logits to counts, with blurred and noisy outlines as a network makes them."""
    truth = street_map(rng, 60)
    building = rasterize_instances(truth, SIZE, SIZE) > 0
    noise = ndimage.gaussian_filter(rng.normal(size=building.shape), 3) * 15
    logits = (ndimage.gaussian_filter(np.where(building, 4.0, -4.0), 2) + noise).astype(np.float32)
    valid = np.ones(building.shape, dtype=bool)
    polygons, matching = [], []
    for _ in range(repeats):
        started = time.process_time()
        footprints = footprints_from_logits(logits, valid)
        between = time.process_time()
        match_tile(truth, footprints.polygons, footprints.confidences)
        polygons.append(between - started)
        matching.append(time.process_time() - between)
    parts = {"polygons": statistics.median(polygons), "matching": statistics.median(matching)}
    return {name: 1000 * seconds for name, seconds in {**parts, "all": sum(parts.values())}.items()}


if __name__ == "__main__":
    enter(scoring, "benchmarks.scoring")
