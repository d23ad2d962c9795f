"""Score two layers of many polygons in one pass over the ground: against geopandas with a loop over its spatial index.

Both read two GeoPackages in a process of their own. sn6 computes all breakdowns and the interval too.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyogrio
import shapely

from benchmarks.comparison import Row, require
from benchmarks.f1 import loop_counts
from benchmarks.process import measure_command, measure_function
from benchmarks.street_map import SIZE, shifted, street_map
from sn6.datasets.spacenet6 import CRS, PIXEL
from sn6.footprints import Footprints
from sn6.footprints.ground import to_ground
from sn6.metrics.matching import MIN_AREA

POLYGONS, LIMIT = 100_000, 20.0  # of each layer, and s
ON_A_TILE = 63
WEST, NORTH = 591550.0, 5750000.0
PEER = "geopandas, a loop over an STRtree"


def rows(polygons: int = POLYGONS) -> Iterator[Row]:
    """Yield a row for two layers of `polygons` buildings and as many proposals, measured once."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_layers(folder, polygons)
        files = [f"{key}={folder / key}.gpkg" for key in ("truth", "proposals")]
        ours = measure_command([sys.executable, "-m", "sn6.score", *files, f"out={folder / 'score.json'}"])
        theirs = measure_function(write_plain_counts, folder)
        scored = json.loads((folder / "score.json").read_text())["overall"]
        counts, plain = [scored[name] for name in ("tp", "fp", "fn")], json.loads((folder / "plain.json").read_text())
        inputs = f"2 layers of {polygons} polygons"
        require(counts == plain, f"score of {inputs}: sn6 counts {counts}, {PEER} counts {plain}")
        path, limit = "score of two layers", LIMIT if polygons == POLYGONS else None
        agreement = f"tp, fp, fn equal: {', '.join(map(str, counts))}"
        yield Row(path, inputs, ours.seconds, PEER, theirs.seconds, agreement, max_ours=limit)
        peaks = float(ours.peak), float(theirs.peak)
        yield Row(f"{path}, memory", inputs, peaks[0], PEER, peaks[1], agreement, unit="bytes")


def write_layers(folder: Path, polygons: int) -> None:
    """Write `truth.gpkg`, and `proposals.gpkg` with a shifted proposal for each building, without names of tiles."""
    rng = np.random.default_rng(0)
    truths, proposed = [], []
    for tile in range(-(-polygons // ON_A_TILE)):
        buildings = street_map(rng, min(ON_A_TILE, polygons - tile * ON_A_TILE))
        proposals = shifted(rng, buildings)
        corner = (WEST + SIZE * PIXEL * (tile % 50), NORTH - SIZE * PIXEL * (tile // 50))
        truths.append(to_ground(buildings, corner, PIXEL))
        proposed.append((to_ground(proposals.polygons, corner, PIXEL), proposals.confidences))
    write_layer(folder / "truth.gpkg", np.concatenate(truths))
    write_layer(
        folder / "proposals.gpkg",
        np.concatenate([one for one, _ in proposed]),
        confidence=np.concatenate([one for _, one in proposed]),
    )


def write_layer(path: Path, polygons: np.ndarray, **columns: np.ndarray) -> None:
    """Write a GeoPackage."""
    options = {"driver": "GPKG", "crs": CRS, "geometry_type": "Polygon"}
    pyogrio.raw.write(path, shapely.to_wkb(polygons), [*columns.values()], [*columns], **options)


def write_plain_counts(folder: Path) -> None:
    """Apply the rules to the layers proposal by proposal, and write the counts."""
    import geopandas

    truth, proposals = (geopandas.read_file(folder / f"{name}.gpkg") for name in ("truth", "proposals"))
    footprints = Footprints(proposals.geometry.to_numpy(), proposals.confidence.to_numpy())
    counts = loop_counts(truth.geometry.to_numpy(), footprints, MIN_AREA)
    (folder / "plain.json").write_text(json.dumps(astuple(counts)))
