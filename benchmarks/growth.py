"""How time and memory grow with the work: once, 4 times and 16 times of it.

    python -m benchmarks.growth            (--help tells its keys)

Commands run in processes of their own, and so does what reads an archive or matches tiles; the peak is that of the
largest process, libraries included. Of a single tile the arrays are counted instead.
"""

import io
import os
import shutil
import statistics
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.boundary import LARGEST, SIGMA, W0
from benchmarks.comparison import amount, medians, peak_of_arrays
from benchmarks.f1 import sn6_counts
from benchmarks.process import of_command, of_function
from benchmarks.scoring import write
from benchmarks.street_map import SIZE, shifted, street_map, terraces
from sn6.cli import run_command
from sn6.datasets.archive import Archive
from sn6.datasets.layout import AOI, CRS, PIXEL, PRODUCTS, orientations_path, tile_path
from sn6.footprints import Footprints
from sn6.footprints.polygonize import polygonize
from sn6.formats.challenge_csv import ChallengeCSVWriter
from sn6.targets.boundary import boundary_term
from sn6.targets.rasterize import rasterize_instances

STEPS = (1, 4, 16)
ROOM = 1.15  # a factor of more than this over what is looked for is told
STRIP = "20190822070610_20190822070846"
Taken = tuple[float, float]  # seconds, bytes


@dataclass(frozen=True)
class Subject:
    """What grows.

    Attributes:
        name: of the table
        of: what there is once of it, with its unit
        measure: how many times of it → seconds and bytes
        steady: whether memory is not to grow at all
    """

    name: str
    of: str
    measure: Callable[[int], Taken]
    steady: bool = False


def growth(
    folder: Annotated[Path, "for the files; what is there is written anew"] = Path("outputs/growth"),
    index: Annotated[int, "tiles in the index"] = 200,
    validation: Annotated[int, "tiles in a validation, of 63 buildings"] = 44,
    buildings: Annotated[int, "on a tile"] = 60,
    pixels: Annotated[int, "side of a GeoTIFF that is predicted"] = 1024,
    simulated: Annotated[int, "tiles of 128 pixels that are simulated"] = 64,
    megabytes: Annotated[int, "that are downloaded"] = 16,
    repeats: Annotated[int, "of what is short; the median counts"] = 5,
) -> None:
    """Prints seconds and memory for 1, 4 and 16 times of each, and what grows more than the work."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["NO_PROXY"] = "127.0.0.1"  # where the download comes from
    subjects = (
        Subject("index of an archive", f"{index} tiles", partial(of_index, folder, index)),
        Subject("the same, read again", f"{index} tiles", partial(of_index_again, folder, repeats)),
        Subject("sn6.score", f"{validation} tiles", partial(of_score, folder, validation), steady=True),
        Subject("matching alone", f"{validation} tiles", partial(of_matching, validation)),
        Subject("boundary weights", f"{buildings} buildings", partial(of_boundary, buildings, repeats)),
        Subject("mask → polygons", f"{buildings} buildings", partial(of_polygons, buildings, repeats)),
        Subject("matching of a tile", f"{buildings} buildings", partial(of_tile, buildings, repeats)),
        Subject("sn6.predict", f"{pixels}×{pixels} pixels", partial(of_prediction, folder, pixels), steady=True),
        Subject("sn6.simulate", f"{simulated} tiles", partial(of_simulation, folder, simulated), steady=True),
        Subject("sn6.download", f"{megabytes} MB", partial(of_download, folder, megabytes), steady=True),
    )
    heads = ("what", "once", *(f"{step}×" for step in STEPS), "factors", "memory", "factors", "growth")
    table = Table(*heads, box=box.MARKDOWN)
    for subject in track(subjects, "measuring", console=Console(stderr=True), transient=True):
        table.add_row(*cells(subject, [subject.measure(step) for step in STEPS]))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def cells(subject: Subject, taken: list[Taken]) -> list[str]:
    """A row of the table."""
    seconds, peaks = [one for one, _ in taken], [one for _, one in taken]
    work, slower, larger = factors(STEPS), factors(seconds), factors(peaks)
    told = ["time grows more than the work"] if exceeds(slower, work) else []
    allowed = [1.0] * len(work) if subject.steady else work
    fault = "memory grows" if subject.steady else "memory grows more than the work"
    told += [fault] if exceeds(larger, allowed) else []
    return [
        subject.name,
        subject.of,
        *(amount(one, "s") for one in seconds),
        ", ".join(f"{one:.2g}" for one in slower),
        ", ".join(amount(one, "bytes") for one in peaks),
        ", ".join(f"{one:.2g}" for one in larger),
        "; ".join(told) or "as wanted",
    ]


def factors(values: Sequence[float]) -> list[float]:
    """By how much each is more than the one before it."""
    return [later / earlier for earlier, later in pairwise(values)]


def exceeds(found: list[float], allowed: list[float]) -> bool:
    """Whether any factor is clearly over what is allowed."""
    return any(one > ROOM * most for one, most in zip(found, allowed, strict=True))


def of_index(folder: Path, once: int, step: int) -> Taken:
    """The tiles of a new archive."""
    write_archive(folder / f"index{step}", once * step)
    return of_index_again(folder, 1, step)


def of_index_again(folder: Path, repeats: int, step: int) -> Taken:
    """The tiles of an archive that was read before."""
    used = [of_function(read_index, folder / f"index{step}") for _ in range(repeats)]
    return statistics.median(one.seconds for one in used), max(one.peak for one in used)


def read_index(root: Path) -> None:
    """What a run does first."""
    Archive(root).tiles("train", "SAR-Intensity")


def write_archive(root: Path, tiles: int) -> None:
    """An archive of radar tiles of 16 × 16 pixels."""
    profile = {"driver": "GTiff", "dtype": "float32", "count": 4, "height": 16, "width": 16, "nodata": 0, "crs": CRS}
    pixels = np.ones((4, 16, 16), dtype=np.float32)
    for number in range(tiles):
        path = tile_path(root, "train", "SAR-Intensity", f"{STRIP}_tile_{number}")
        path.parent.mkdir(parents=True, exist_ok=True)
        place = from_origin(591550 + 8 * (number % 60), 5750000 - 8 * (number // 60), PIXEL, PIXEL)
        with rasterio.open(path, "w", transform=place, **profile) as file:
            file.write(pixels)
    orientations_path(root).parent.mkdir(parents=True)
    orientations_path(root).write_text(f"{STRIP} 0\n")


def of_score(folder: Path, once: int, step: int) -> Taken:
    """The command, from files of the challenge's form."""
    rng = np.random.default_rng(0)
    truths = [street_map(rng, 63) for _ in range(once * step)]
    files = {name: folder / f"{name}{step}.csv" for name in ("truth", "proposals")}
    write(files["truth"], ChallengeCSVWriter, [Footprints(truth, np.ones(len(truth))) for truth in truths])
    write(files["proposals"], ChallengeCSVWriter, [shifted(rng, truth) for truth in truths])
    used = of_command(sn6("score", out=folder / "score.json", **files))
    return used.seconds, used.peak


def of_matching(once: int, step: int) -> Taken:
    """Tiles that lie in memory."""
    rng = np.random.default_rng(0)
    tiles = [(truth, shifted(rng, truth)) for truth in (street_map(rng, 63) for _ in range(once * step))]
    return of_arrays(lambda: [sn6_counts(*tile) for tile in tiles], 1)


def of_boundary(once: int, repeats: int, step: int) -> Taken:
    """On one tile."""
    instances = rasterize_instances(crowd(once, step), SIZE, SIZE)
    return of_arrays(lambda: boundary_term(instances, W0, SIGMA), repeats)


def of_polygons(once: int, repeats: int, step: int) -> Taken:
    """Of the numbered buildings of one tile."""
    instances = rasterize_instances(crowd(once, step), SIZE, SIZE)
    return of_arrays(lambda: polygonize(instances), repeats)


def of_tile(once: int, repeats: int, step: int) -> Taken:
    """A proposal for each building of one tile."""
    truth = crowd(once, step)
    return of_arrays(partial(sn6_counts, truth, shifted(np.random.default_rng(0), truth)), repeats)


def crowd(once: int, step: int) -> np.ndarray:
    """Buildings on one tile, the smaller the more there are."""
    return terraces(np.random.default_rng(0), once * step, SIZE, 10 + (LARGEST - 10) / step**0.5)


def of_arrays(way: Callable[[], object], repeats: int) -> Taken:
    """The median seconds, and the most bytes of arrays."""
    return medians({"way": way}, repeats)["way"], peak_of_arrays(way)


def of_prediction(folder: Path, once: int, step: int) -> Taken:
    """A GeoTIFF of `step` times the pixels of the first."""
    # here, so that torch is not in the memory of the processes that call a function of this module
    from benchmarks.prediction import write_area, write_network

    root, image, checkpoint = folder / "texture", folder / f"area{step}.tif", folder / "weights.safetensors"
    of_command(sn6("simulate", root=root, scale="tiny"))  # does nothing where it is there
    write_area(image, Archive(root), round(once * step**0.5))
    if not checkpoint.exists():
        write_network(checkpoint, 4, image)
    used = of_command(sn6("predict", checkpoint=checkpoint, images=image, out=folder / f"predicted{step}"))
    return used.seconds, used.peak


def of_simulation(folder: Path, once: int, step: int) -> Taken:
    """An archive without test tiles."""
    used = of_command(sn6("simulate", root=folder / f"simulated{step}", tiles=once * step, test_tiles=0, size=128))
    return used.seconds, used.peak


def of_download(folder: Path, once: int, step: int) -> Taken:
    """A tarball of noise from a server of this machine."""
    served = folder / f"served{step}"
    served.mkdir()
    write_tarball(served / "train.tar.gz", once * step)
    with serving(served) as url:
        words = sn6("download", what="train", root=folder / f"fetched{step}", source=f"{url}/train.tar.gz")
        used = of_command([*words, "md5=unchecked"])
    return used.seconds, used.peak


def write_tarball(path: Path, megabytes: int) -> None:
    """An archive of one tile in all products, which share the bytes, and the labels."""
    noise = np.random.default_rng(0).bytes(megabytes * 1_000_000 // len(PRODUCTS))
    files = {f"{product}/SN6_Train_{AOI}_{product}_{STRIP}_tile_1.tif": noise for product in PRODUCTS}
    files |= {
        f"geojson_buildings/SN6_Train_{AOI}_Buildings_{STRIP}_tile_1.geojson": b"{}",
        "SummaryData/SAR_orientations.txt": f"{STRIP} 1\n".encode(),
        f"SummaryData/SN6_Train_{AOI}_Buildings.csv": b"ImageId\n",
    }
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, body in files.items():
            member = tarfile.TarInfo(f"train/{AOI}/{name}")
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a web server of the files of a folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def copyfile(self, source: Any, outputfile: Any) -> None:
            with suppress(ConnectionError):  # who only looks hangs up
                super().copyfile(source, outputfile)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def sn6(door: str, **words: object) -> list[str]:
    """The command line of a door."""
    return [sys.executable, "-m", f"sn6.{door}", *(f"{key}={value}" for key, value in words.items())]


if __name__ == "__main__":
    run_command(growth, "benchmarks.growth")
