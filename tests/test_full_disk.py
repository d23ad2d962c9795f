"""A full disk leaves the file that was there before, or none, wherever in the new file it strikes."""

import os
import resource
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from helpers.commands import TESTS, assert_one_line
from helpers.networks import random_network, write_network
from helpers.stopping import SERVER
from shapely import box

OLD = b"old"
LIMIT = (
    "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY)); "
    "os.execv(sys.executable, [sys.executable, '-m', *sys.argv[2:]])"
)


def footprints(count=30):
    from sn6.footprints import Footprints

    polygons = [box(30 * i + 0.123, 0, 30 * i + 20, 20) for i in range(count)]
    return Footprints(np.array(polygons, dtype=object), np.linspace(0, 1, count))


def simulated_tile(path):
    from sn6.simulation.archive_files import write_image

    write_image(path, "SAR-Intensity", np.random.default_rng(0).random((4, 64, 64), dtype=np.float32), 5e5, 5.7e6)


def probability(path):
    """Two rows of blocks, so that one may be missing."""
    from sn6.datasets.placed_image import Grid, PlacedImage
    from sn6.datasets.radar_units import Units
    from sn6.heads import Heads
    from sn6.prediction.images import Image
    from sn6.prediction.mosaic import Mosaic
    from sn6.prediction.rasters import write_probability
    from sn6.prediction.workers import read_maps
    from sn6.targets.mask import Mask

    mosaic = Mosaic(path.parent / "logits", 400, 200, 400, 0)
    for region in [region for region in mosaic.regions() if not mosaic.path(region).exists()]:
        values = np.random.default_rng(0).normal(size=[side.stop - side.start for side in region])
        mosaic.write(region, values.astype(np.float32)[None])
    grid = Grid("EPSG:32631", 5e5, 5.7e6, 0.5, 400, 200)
    raster = PlacedImage(str(path), grid, (1,), False, Units(), None)
    image = Image("a", str(path), raster, (1,), 400, 200, (5e5, 5.7e6), 0.5, 0.5, grid.crs)
    read = partial(read_maps, mosaic.read, Heads({"mask": Mask()}))
    write_probability(path, image, read, {"mask": ("mask",)})


def logits(path):
    from sn6.prediction.mosaic import Mosaic

    Mosaic(path.parent, 64, 64, 64, 0).write((slice(0, 64), slice(0, 64)), np.ones((1, 64, 64), dtype=np.float32))


def partial_result(path):
    from sn6.prediction.partial_results import write_part

    write_part(path, [footprints()])


def challenge_csv(path):
    from sn6.formats.challenge_csv import ChallengeCSVWriter

    with ChallengeCSVWriter(path) as writer:
        writer.write("a", (0.0, 0.0), footprints())


def geojson(path):
    from sn6.formats.geojson import GeoJSONWriter

    with GeoJSONWriter(path, "EPSG:32631", 0.5) as writer:
        writer.write("a", (0.0, 0.0), footprints())


def geoparquet(path):
    from sn6.formats.geoparquet import GeoParquetWriter

    with GeoParquetWriter(path, "EPSG:32631", 0.5) as writer:
        writer.write("a", (0.0, 0.0), footprints())


def geopackage(path):
    from sn6.formats.gdal_layer import GeoPackageWriter

    with GeoPackageWriter(path, "EPSG:32631", 0.5) as writer:
        writer.write("a", (0.0, 0.0), footprints())


def flatgeobuf(path):
    from sn6.formats.gdal_layer import FlatGeobufWriter

    with FlatGeobufWriter(path, "EPSG:32631", 0.5) as writer:
        writer.write("a", (0.0, 0.0), footprints())


def picture(path):
    from matplotlib.figure import Figure

    from sn6.plots.tiles import save_figure

    figure = Figure(figsize=(2, 2))
    figure.subplots().plot([1, 3, 2])
    save_figure(figure, path)


def table(path):
    from sn6.files import write_csv

    write_csv(path, ["x", "y"], [[i, "text"] for i in range(1000)])


def metadata(path):
    from sn6.files import write_text

    write_text(path, "{" + "5" * 6000 + "}")


WRITERS = {
    "tile.tif": simulated_tile,
    "probability.tif": probability,
    "0_0.npy": logits,
    "part.parquet": partial_result,
    "proposals.csv": challenge_csv,
    "footprints.geojson": geojson,
    "footprints.parquet": geoparquet,
    "footprints.gpkg": geopackage,
    "footprints.fgb": flatgeobuf,
    "picture.png": picture,
    "table.csv": table,
    "metadata.json": metadata,
}


def try_limits(write, path, limits, results):
    """Put into `results` what is left after writing with each limit, and what was printed."""
    read_end, write_end = os.pipe()
    os.dup2(write_end, 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for limit in limits:
        path.write_bytes(OLD)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            write(path)
            failed = False
        except Exception:
            failed = True
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        hidden = [file.name for file in path.parent.iterdir() if file.name.startswith(".")]
        results.put((limit, failed, path.read_bytes(), hidden))
    os.write(write_end, b"end")
    results.put(os.read(read_end, 10**5))


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_complete_or_as_before(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    complete = path.read_bytes()
    size = len(complete)
    near_end = {size - step for step in (1, 2, 7, 8, 9, 63, 100, 500, 512, 1000, 4095, 4096, 4097)}
    # Some formats need a temporary file that is larger than their own.
    enough = (
        size if name not in ("probability.tif", "footprints.parquet", "footprints.gpkg", "footprints.fgb") else 10**6
    )
    limits = sorted(limit for limit in {0, 10, size // 3, *near_end, enough, size + 10**6} if limit >= 0)
    results = SERVER.Queue()
    process = SERVER.Process(target=try_limits, args=(WRITERS[name], path, limits, results))
    process.start()
    for limit in limits:
        assert results.get(timeout=60) == (limit, limit < enough, OLD if limit < enough else complete, [])
    assert results.get(timeout=60) == b"end"  # nothing is printed to stderr
    process.join(60)


def start_limited(limit, *command):
    """Run `python -m sn6.COMMAND` where no file may have more than `limit` bytes; return its status and stderr."""
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-c", LIMIT, str(limit), *map(str, command)]
    done = subprocess.run(program, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stderr


def contents(folder, *ignored):
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not {*ignored} & {*name.parts}}


def is_part_of(folder, complete, *ignored):
    """Return whether some files are missing, and assert that all others are those of the complete folder."""
    some, all_files = contents(folder, *ignored), contents(complete, *ignored)
    assert some == {name: all_files[name] for name in some}
    return len(some) < len(all_files)


def test_simulate_on_a_full_disk_resumes(tmp_path, sn6_command):
    settings = ("tiles=2", "test_tiles=1", "size=64", "seed=3")
    assert sn6_command("simulate", f"root={tmp_path / 'never'}", *settings).status == 0
    largest = max(len(content) for content in contents(tmp_path / "never").values())
    for limit in (2000, largest - 1):
        assert_one_line(
            *start_limited(limit, "sn6.simulate", f"root={tmp_path / 'full'}", *settings), tmp_path / "full"
        )
        assert is_part_of(tmp_path / "full", tmp_path / "never", ".sn6")
    assert sn6_command("simulate", f"root={tmp_path / 'full'}", *settings).status == 0
    assert contents(tmp_path / "full", ".sn6") == contents(tmp_path / "never", ".sn6")


@pytest.mark.slow
def test_predict_on_a_full_disk_resumes(tmp_path, sn6_command, archive_root):
    weights = write_network(tmp_path / "weights.safetensors", random_network())
    options = (f"root={archive_root}", f"checkpoint={weights}", "probability=true", "window=96", "overlap=32")
    options = (*options, "pictures=1", "device=cpu")
    assert sn6_command("predict", f"out={tmp_path / 'never'}", *options).status == 0
    for name in ("probability", "footprints.gpkg"):
        limit = max(len(content) for path, content in contents(tmp_path / "never").items() if name in path.parts) - 1
        status, err = start_limited(limit, "sn6.predict", f"out={tmp_path / 'full'}", *options)
        assert_one_line(status, err, "write")
        assert is_part_of(tmp_path / "full", tmp_path / "never", "unfinished", "prediction.json")
    assert sn6_command("predict", f"out={tmp_path / 'full'}", *options).status == 0
    expected = contents(tmp_path / "never", "prediction.json")
    assert contents(tmp_path / "full", "prediction.json") == expected
