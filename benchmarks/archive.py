"""A whole prediction: an archive of GeoTIFFs in, footprints out, with the start of the program.

`python -m sn6.predict` against a program in plain torch, which this module is too: ROOT WEIGHTS WIDTH OUT.
"""

import csv
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
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
from benchmarks.process import of_command
from benchmarks.tile import MEAN, STD, baseline_polygons
from benchmarks.unet11 import with_weights_of
from sn6.checkpoints.weights_file import write_weights
from sn6.datasets.archive import Archive
from sn6.datasets.layout import PIXEL, tile_path
from sn6.formats.challenge_csv import read_proposals
from sn6.models.ternausnet import TernausNet
from sn6.simulate import simulate
from sn6.targets.rasterize import rasterize_instances
from sn6.training.devices import fastest_precision

AGREEING = 0.99  # share of the pixels that are to fall on the same side


def rows(tiles: int = 6, size: int = 900, width: int = 64) -> Iterator[Row | NotRun]:
    """One row: seconds for a square kilometre."""
    if torch.cuda.is_available():
        yield NotRun("a whole prediction", "python -m benchmarks.prediction measures it on a GPU")
        return
    with TemporaryDirectory() as folder:
        root, weights = Path(folder) / "archive", Path(folder) / "weights.safetensors"
        outs = {name: Path(folder) / name for name in ("sn6", "plain")}
        with redirect_stdout(None):  # what it says to do next
            simulate(root, tiles=tiles, test_tiles=0, size=size)
        write_network(weights, width, root)
        words = [f"checkpoint={weights}", f"root={root}", "split=train", f"out={outs['sn6']}", "simplify=0.5"]
        ours = of_command([sys.executable, "-m", "sn6.predict", *words])
        program = [sys.executable, "-m", "benchmarks.archive"]
        theirs = of_command([*program, str(root), str(weights), str(width), str(outs["plain"])])
        equality = agreement(outs["sn6"] / "proposals.csv", outs["plain"], size)
    area = tiles * (size * PIXEL / 1000) ** 2
    given, peer = f"{tiles} tiles of {size}×{size}, cpu, with the start", "UNet11 in float32, rasterio, shapely"
    yield Row("a whole prediction", given, ours.seconds / area, peer, theirs.seconds / area, equality, unit="s/km²")


def write_network(path: Path, width: int, root: Path) -> None:
    """A TernausNet with random weights that proposes blobs of bright ground."""
    pixels = torch.from_numpy((read_tile(image_paths(root)[0])[:, :256, :256] - MEAN) / STD)
    torch.manual_seed(0)
    network = TernausNet(4, 1, width).eval()
    make_blobs(network, pixels, torch.ones(pixels.shape[1:], dtype=torch.bool))
    target = "sn6.models.ternausnet.TernausNet"
    card = {
        "network": {"_target_": target, "in_channels": 4, "classes": 1, "width": width},
        "source": {"product": PRODUCT, "bands": [1, 2, 3, 4], "orient": False, "min_area": 20.0},
        "mean": [MEAN] * 4,
        "std": [STD] * 4,
        "nodata": "zero",
        "precision": fastest_precision("cpu"),
    }
    write_weights(path, dict(network.state_dict()), card)


def agreement(ours: Path, theirs: Path, size: int) -> str:
    """Checks that both found the same ground.

    Raises:
        Mismatch: they did not
    """
    one, other = read_proposals(ours), read_proposals(theirs)
    require(one.keys() == other.keys(), "a whole prediction: the tiles differ")
    same = [building(one[tile].polygons, size) == building(other[tile].polygons, size) for tile in one]
    share = np.mean(same)
    require(share > AGREEING, f"a whole prediction: {1 - share:.1%} of the pixels differ")
    found = sum(len(tile) for tile in one.values()), sum(len(tile) for tile in other.values())
    return f"{share:.2%} of the pixels, {found[0]} and {found[1]} footprints"


def building(polygons: np.ndarray, size: int) -> np.ndarray:
    """Which pixels they cover."""
    return rasterize_instances(polygons, size, size) > 0


def plain(root: Path, weights: Path, width: int, out: Path) -> None:
    """Writes the challenge's CSV as a plain program does."""
    network = TernausNet(4, 1, width)
    network.load_state_dict(load_file(weights))
    network = with_weights_of(network, width).eval()
    with out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ImageId", "BuildingId", "PolygonWKT_Pix", "Confidence"])
        for path in image_paths(root):
            pixels = read_tile(path)
            valid = pixels.any(axis=0)
            image = np.where(valid, (pixels - np.float32(MEAN)) / np.float32(STD), np.float32(0))
            logits = np.where(valid, whole(network, image), -1)
            image_id = path.stem.split(f"{PRODUCT}_")[1]
            for number, polygon in enumerate(baseline_polygons(logits)):
                writer.writerow([image_id, number, shapely.to_wkt(polygon), 1])


@torch.no_grad()
def whole(network: torch.nn.Module, image: np.ndarray) -> np.ndarray:
    """Logits of a tile with zeros below and right."""
    height, width = image.shape[1:]
    padded = np.pad(image, [(0, 0), (0, -height % 32), (0, -width % 32)])
    return network(torch.from_numpy(padded)[None])[0, 0, :height, :width].numpy()


def image_paths(root: Path) -> list[Path]:
    """The radar tiles of an archive."""
    return [tile_path(root, "train", PRODUCT, tile.image_id) for tile in Archive(root).tiles("train", PRODUCT)]


def read_tile(path: Path) -> np.ndarray:
    """(4, h, w) in decibels."""
    with rasterio.open(path) as file:
        return file.read()


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit("benchmarks.archive: give ROOT WEIGHTS WIDTH OUT, or measure by `python -m benchmarks archive`")
    plain(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
