"""Whole prediction, from an archive of GeoTIFFs to footprints, start-up included: against a program in plain torch.

The peer of `python -m sn6.predict` is this module: `python -m benchmarks.archive ROOT WEIGHTS WIDTH OUT`.
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rasterio
import shapely
import torch
from safetensors.torch import load_file

from benchmarks.comparison import NotRun, Row, require
from benchmarks.loading import PRODUCT
from benchmarks.prediction import make_blobs
from benchmarks.process import measure_command
from benchmarks.tile import MEAN, STD, baseline_polygons
from benchmarks.unet11 import with_weights_of
from sn6.checkpoints.weights_file import write_weights
from sn6.datasets.spacenet6 import PIXEL, SpaceNet6, tile_path
from sn6.formats.challenge_csv import read_proposals
from sn6.models.ternausnet import TernausNet
from sn6.simulation.archive import make_archive, settings_of
from sn6.targets.rasterize import rasterize_instances
from sn6.training.devices import fastest_precision

MIN_AGREEMENT = 0.99  # fraction of the pixels on the same side of the threshold

PATH = "whole prediction, start-up included"


def rows(tiles: int = 6, size: int = 900, width: int = 64) -> Iterator[Row | NotRun]:
    """Yield one row: seconds per square kilometre."""
    if torch.cuda.is_available():
        yield NotRun(PATH, "python -m benchmarks.prediction measures it on a GPU")
        return
    with TemporaryDirectory() as folder:
        root, weights = Path(folder) / "archive", Path(folder) / "weights.safetensors"
        outs = {name: Path(folder) / name for name in ("sn6", "plain")}
        make_archive(root, settings_of(tiles=tiles, test_tiles=0, size=size))
        write_network(weights, width, root)
        overrides = [f"checkpoint={weights}", f"root={root}", "split=train", f"out={outs['sn6']}", "simplify=0.5"]
        ours = measure_command([sys.executable, "-m", "sn6.predict", *overrides])
        program = [sys.executable, "-m", "benchmarks.archive"]
        theirs = measure_command([*program, str(root), str(weights), str(width), str(outs["plain"])])
        agreement = check_agreement(outs["sn6"] / "proposals.csv", outs["plain"], size)
    area = tiles * (size * PIXEL / 1000) ** 2
    inputs, peer = f"{tiles} tiles of {size}×{size}, cpu", "UNet11 in float32, rasterio, shapely"
    yield Row(PATH, inputs, ours.seconds / area, peer, theirs.seconds / area, agreement, unit="s/km²")


def write_network(path: Path, width: int, root: Path) -> None:
    """Write a TernausNet with random weights that predicts blobs of bright ground."""
    pixels = torch.from_numpy((read_tile(image_paths(root)[0])[:, :256, :256] - MEAN) / STD)
    torch.manual_seed(0)
    network = TernausNet(4, 1, width).eval()
    make_blobs(network, pixels, torch.ones(pixels.shape[1:], dtype=torch.bool))
    target = "sn6.models.ternausnet.TernausNet"
    metadata = {
        "network": {"_target_": target, "in_channels": 4, "classes": 1, "width": width},
        "source": {"product": PRODUCT, "bands": [1, 2, 3, 4], "orient": False, "min_area": 20.0},
        "mean": [MEAN] * 4,
        "std": [STD] * 4,
        "nodata": "zero",
        "precision": fastest_precision("cpu"),
    }
    write_weights(path, dict(network.state_dict()), metadata)


def check_agreement(ours: Path, theirs: Path, size: int) -> str:
    """Check that both predicted the same pixels, and say how well.

    Raises:
        Mismatch: they did not
    """
    one, other = read_proposals(ours), read_proposals(theirs)
    require(one.keys() == other.keys(), f"{PATH}: the tiles of sn6 and the peer differ")
    equal = np.mean([mask_of(one[tile].polygons, size) == mask_of(other[tile].polygons, size) for tile in one])
    require(equal > MIN_AGREEMENT, f"{PATH}: {1 - equal:.1%} of the pixels differ")
    numbers = sum(len(tile) for tile in one.values()), sum(len(tile) for tile in other.values())
    return f"{equal:.2%} of the pixels, {numbers[0]} and {numbers[1]} footprints"


def mask_of(polygons: np.ndarray, size: int) -> np.ndarray:
    """Rasterize polygons to a mask."""
    return rasterize_instances(polygons, size, size) > 0


def plain(root: Path, weights: Path, width: int, out: Path) -> None:
    """Write the challenge's CSV as a plain program does."""
    trained = TernausNet(4, 1, width)
    trained.load_state_dict(load_file(weights))
    network = with_weights_of(trained, width).eval()
    with out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ImageId", "BuildingId", "PolygonWKT_Pix", "Confidence"])
        for path in image_paths(root):
            pixels = read_tile(path)
            valid = pixels.any(axis=0)
            image = np.where(valid, (pixels - np.float32(MEAN)) / np.float32(STD), np.float32(0))
            logits = np.where(valid, whole_tile(network, image), -1)
            image_id = path.stem.split(f"{PRODUCT}_")[1]
            polygons = baseline_polygons(logits)
            for number, polygon in enumerate(polygons):
                writer.writerow([image_id, number, shapely.to_wkt(polygon), 1])
            if not len(polygons):
                writer.writerow([image_id, -1, "POLYGON EMPTY", 1])


@torch.no_grad()
def whole_tile(network: torch.nn.Module, image: np.ndarray) -> np.ndarray:
    """Compute the logits of a tile, padded with zeros at the bottom and right."""
    height, width = image.shape[1:]
    padded = np.pad(image, [(0, 0), (0, -height % 32), (0, -width % 32)])
    return network(torch.from_numpy(padded)[None])[0, 0, :height, :width].numpy()


def image_paths(root: Path) -> list[Path]:
    """Return the paths of the radar tiles of an archive."""
    return [tile_path(root, "train", PRODUCT, tile.image_id) for tile in SpaceNet6(root).tiles("train", PRODUCT)]


def read_tile(path: Path) -> np.ndarray:
    """Read a tile, (4, h, w) in decibels."""
    with rasterio.open(path) as file:
        return file.read()


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit("benchmarks.archive: give ROOT WEIGHTS WIDTH OUT, or measure with `python -m benchmarks archive`")
    plain(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
