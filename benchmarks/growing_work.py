"""Work of a growing amount, measured: seconds and bytes of `step` times the amount at 1×.

torch is imported where it is needed, so that it is not in the memory of processes that call a function of this module.
"""

import statistics
import sys
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

from benchmarks.boundary import MAX_SIDE, SIGMA, W0
from benchmarks.comparison import Implementation, medians, peak_of_arrays
from benchmarks.f1 import sn6_counts
from benchmarks.folder import first_index, write_images
from benchmarks.folder import index as folder_index
from benchmarks.layers import write_layers
from benchmarks.local_download import STRIP, serving, write_tarball
from benchmarks.process import measure_command, measure_function
from benchmarks.scoring import write
from benchmarks.street_map import SIZE, shifted, street_map, terraces
from sn6.datasets.spacenet6 import CRS, PIXEL, SpaceNet6, orientations_path, tile_path
from sn6.footprints import Footprints
from sn6.footprints.polygonize import polygonize
from sn6.formats.challenge_csv import ChallengeCSVWriter
from sn6.targets.boundary import boundary_term
from sn6.targets.rasterize import rasterize_instances

Cost = tuple[float, float]  # seconds, bytes


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


def measure_folder(folder: Path, unit: int, step: int) -> Cost:
    """Measure the first index of a folder of images."""
    images = folder / f"images{step}"
    images.mkdir()
    write_images(images, unit * step)
    used = measure_function(first_index, images)
    return used.seconds, used.peak


def measure_cached_folder(folder: Path, repeats: int, step: int) -> Cost:
    """Measure the index of a folder of images with a cache."""
    used = [measure_function(folder_index, folder / f"images{step}") for _ in range(repeats)]
    return statistics.median(one.seconds for one in used), max(one.peak for one in used)


def measure_score(folder: Path, unit: int, step: int) -> Cost:
    """Measure the command with files in the challenge's format."""
    rng = np.random.default_rng(0)
    truths = [street_map(rng, 63) for _ in range(unit * step)]
    files = {name: folder / f"{name}{step}.csv" for name in ("truth", "proposals")}
    write(files["truth"], ChallengeCSVWriter, [Footprints(truth, np.ones(len(truth))) for truth in truths])
    write(files["proposals"], ChallengeCSVWriter, [shifted(rng, truth) for truth in truths])
    used = measure_command(sn6("score", out=folder / "score.json", **files))
    return used.seconds, used.peak


def measure_layers(folder: Path, unit: int, step: int) -> Cost:
    """Measure the command with two layers without tiles."""
    layers = folder / f"layers{step}"
    layers.mkdir()
    write_layers(layers, unit * step)
    files = {name: layers / f"{name}.gpkg" for name in ("truth", "proposals")}
    used = measure_command(sn6("score", out=layers / "score.json", **files))
    return used.seconds, used.peak


def measure_matching(unit: int, step: int) -> Cost:
    """Measure the matching of tiles in memory."""
    rng = np.random.default_rng(0)
    tiles = [(truth, shifted(rng, truth)) for truth in (street_map(rng, 63) for _ in range(unit * step))]
    return measure_arrays(lambda: [sn6_counts(*tile) for tile in tiles], 1)


def measure_targets(repeats: int, step: int) -> Cost:
    """Measure the targets of `step` heads, which are inner edges of several widths."""
    from benchmarks.oracle import crowded_labels
    from sn6.targets.edge import InnerEdge
    from sn6.targets.target import tile_layers

    targets = {f"edge{number}": InnerEdge(0.5 + 0.1 * number) for number in range(step)}
    return measure_arrays(partial(tile_layers, targets, crowded_labels(60)), repeats)


def measure_boundary(unit: int, repeats: int, step: int) -> Cost:
    """Measure the boundary weights of one tile."""
    instances = rasterize_instances(crowded_tile(unit, step), SIZE, SIZE)
    return measure_arrays(lambda: boundary_term(instances, W0, SIGMA), repeats)


def measure_polygons(unit: int, repeats: int, step: int) -> Cost:
    """Measure the polygons of the numbered buildings of one tile."""
    instances = rasterize_instances(crowded_tile(unit, step), SIZE, SIZE)
    return measure_arrays(lambda: polygonize(instances), repeats)


def measure_classes(unit: int, repeats: int, step: int) -> Cost:
    """Measure the polygons of one tile with the probabilities of `step` classes."""
    from sn6.footprints.threshold import Threshold

    mask = (rasterize_instances(crowded_tile(unit, 1), SIZE, SIZE) > 0).astype(np.float32)
    classes = np.random.default_rng(0).dirichlet(np.ones(step + 1), mask.shape).astype(np.float32)
    maps = {"mask": mask[None], "classes": np.ascontiguousarray(np.moveaxis(classes, -1, 0))}
    return measure_arrays(partial(Threshold(), maps, np.ones(mask.shape, dtype=bool), PIXEL), repeats)


def measure_fusion(folder: Path, repeats: int, step: int) -> Cost:
    """Measure the fusion of `step` pairs of looks at one tile."""
    from benchmarks.fusion import make_sn6, write_outputs

    case = folder / f"looks{step}", 2 * step, SIZE
    write_outputs(*case)
    return measure_arrays(make_sn6(*case), repeats)


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
