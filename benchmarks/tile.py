"""A radar tile of 900×900 pixels to polygons, as sn6.predict does it, against the challenge baseline's way.

Both networks have the same weights, random ones that make blobs of bright ground. Time, what of it is not the network,
and the peak memory of a process that does one tile.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import shapely
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from benchmarks.comparison import NotRun, Row, Way, medians, require
from benchmarks.polygons import gdal, same_sets
from benchmarks.prediction import make_blobs
from benchmarks.process import apart, of_function
from benchmarks.street_map import street_map
from benchmarks.unet11 import with_weights_of
from sn6.data.normalization import Statistics, normalize
from sn6.data.source import Source
from sn6.datasets.layout import PIXEL
from sn6.footprints import Footprints, PolygonOptions
from sn6.footprints.polygonize import footprints_from_logits
from sn6.models.ternausnet import TernausNet
from sn6.prediction.ensemble import Averaging, Ensemble
from sn6.prediction.networks import TrainedNetwork
from sn6.processes import keep_freed_memory
from sn6.targets.rasterize import rasterize_instances
from sn6.training.devices import fastest_precision

MEAN, STD = 30.0, 8.0  # decibels
MIN_AREA = 80  # px
AGREEING = 0.99  # share of the pixels that are to fall on the same side in bfloat16
SIZES = (900, 64)  # pixels of the tile, width of the network


@dataclass(frozen=True, eq=False)
class Case:
    """A tile and the network that sees it.

    Attributes:
        pixels: (4, h, w) in decibels
        network: of sn6
        device: where it computes
    """

    pixels: np.ndarray
    network: nn.Module
    device: str

    @property
    def valid(self) -> np.ndarray:
        return np.ones(self.pixels.shape[1:], dtype=bool)

    def ensemble(self, precision: str) -> Ensemble:
        """As sn6.predict has it."""
        source, statistics = (
            Source("SAR-Intensity", (1, 2, 3, 4), True, 20.0),
            Statistics((MEAN,) * 4, (STD,) * 4, None),
        )
        network = self.network.to(memory_format=torch.channels_last)
        trained = TrainedNetwork(network, None, source, statistics, "zero", PolygonOptions(), None, precision)
        return Ensemble([trained], self.device, Averaging(False, (1.0,), precision))


def rows(size: int = SIZES[0], width: int = SIZES[1], repeats: int = 5) -> Iterator[Row | NotRun]:
    """Rows for the CPU, and for a GPU where there is one."""
    yield from on_device(size, width, "cpu", repeats, ratio=3)
    peaks = {way: of_function(one_tile, way, size, width).peak for way in ("sn6", "whole", "windows")}
    given, same = f"{size}×{size}, a process", "as above"
    for way in ("whole", "windows"):
        yield Row("its memory", given, peaks["sn6"], NAMES[way], peaks[way], same, unit="bytes")
    if torch.cuda.is_available():
        yield from on_device(size, width, "cuda", 5 * repeats)
    else:
        yield NotRun("tile → polygons on a GPU", "there is no GPU")


def on_device(size: int, width: int, device: str, repeats: int, ratio: float | None = None) -> Iterator[Row]:
    """The whole way against both ways of the baseline, then what is not the network."""
    precision = fastest_precision(device)
    given = case(size, width, device)
    logits = given.ensemble("32-true").logits([given.pixels], [given.valid])[0]
    half = given.ensemble(precision).logits([given.pixels], [given.valid])[0]
    equality = agreement(logits, half, whole(with_weights_of(given.network, width).eval(), given))
    path, told = f"tile → polygons, {precision}", f"{size}×{size}, {device}"
    with apart(keep_freed_memory) as ours, apart() as theirs:
        ways = {"sn6": ours(make_sn6, size, width, device)}
        ways |= {name: theirs(make_baseline, name, size, width, device) for name in WAYS}
        seconds = medians(ways, repeats)
    for name in WAYS:
        yield Row(path, told, seconds["sn6"], NAMES[name], seconds[name], equality, ratio)
    seconds = medians(
        {"ours": partial(beside, given, logits), "theirs": partial(baseline_polygons, logits)}, 5 * repeats
    )
    title = "threshold, GDAL, shapely"
    yield Row("of it not the network", told, seconds["ours"], title, seconds["theirs"], equality, most=0.025)


def make_sn6(size: int, width: int, device: str) -> Way:
    """As sn6.predict has it."""
    given = case(size, width, device)
    return partial(sn6_tile, given.ensemble(fastest_precision(device)), given)


def make_baseline(name: str, size: int, width: int, device: str) -> Way:
    """As a plain loop has it."""
    given = case(size, width, device)
    return partial(baseline_tile, WAYS[name], with_weights_of(given.network, width).eval(), given)


def case(size: int, width: int, device: str) -> Case:
    """Noise, brighter where a building is; smooth, for noise of single pixels would leave thousands of specks."""
    rng = np.random.default_rng(0)
    building = rasterize_instances(street_map(rng, 60), size, size) > 0
    noise = 7 * gaussian_filter(rng.normal(size=(4, size, size)), (0, 2, 2))  # of deviation 1
    pixels = (MEAN + STD * noise + 3 * STD * building).astype(np.float32)
    torch.manual_seed(0)
    network = TernausNet(4, 1, width).eval()
    part = torch.from_numpy((pixels[:, :256, :256] - MEAN) / STD)  # a part, for the sake of the memory
    make_blobs(network, part, torch.ones(part.shape[1:], dtype=torch.bool))
    return Case(pixels, network.to(device), device)


def agreement(ours: np.ndarray, half: np.ndarray, theirs: np.ndarray) -> str:
    """Checks that both networks give the same logits in float32, and the polygons of these are the same.

    Raises:
        Mismatch: they do not
    """
    off = np.abs(ours - theirs).max() / np.abs(theirs).max()
    require(off < 1e-4, f"tile → polygons: the logits in float32 differ by {off:.2g} of the largest")
    found = footprints_from_logits(ours, np.ones(ours.shape, dtype=bool), PolygonOptions(simplify=0), PIXEL).polygons
    peers = gdal(ours > 0)
    require(same_sets(found, peers[shapely.area(peers) >= MIN_AREA]), "tile → polygons: the polygons differ")
    agreeing = ((ours > 0) == (half > 0)).mean()
    require(agreeing > AGREEING, f"tile → polygons: sn6's precision changes {1 - agreeing:.1%} of the pixels")
    return f"float32: logits to 1e-4, polygons equal; as run: {agreeing:.2%} of the pixels"


def sn6_tile(ensemble: Ensemble, given: Case) -> Footprints:
    """The whole tile at once, as it fits into a window of sn6.predict."""
    return footprints_from_logits(
        ensemble.logits([given.pixels], [given.valid])[0], given.valid, PolygonOptions(), PIXEL
    )


def beside(given: Case, logits: np.ndarray) -> Footprints:
    """What is not the network."""
    normalize(given.pixels, given.valid, Statistics((MEAN,) * 4, (STD,) * 4, None), "zero")
    return footprints_from_logits(logits, given.valid, PolygonOptions(), PIXEL)


def baseline_tile(way: Callable[[nn.Module, Case], np.ndarray], peer: nn.Module, given: Case) -> np.ndarray:
    """The baseline's network and what follows it."""
    return baseline_polygons(way(peer, given))


def baseline_polygons(logits: np.ndarray) -> np.ndarray:
    """Of at least 20 m², simplified by as much as sn6's."""
    found = gdal(logits > 0)
    return shapely.simplify(found[shapely.area(found) >= MIN_AREA], 1.0)


@torch.no_grad()
def whole(peer: nn.Module, given: Case) -> np.ndarray:
    """Logits of the tile with zeros below and right."""
    image = normalised(given)
    height, width = image.shape[-2:]
    return peer(F.pad(image, (0, -width % 32, 0, -height % 32)))[0, 0, :height, :width].cpu().numpy()


@torch.no_grad()
def windows(peer: nn.Module, given: Case, window: int = 512) -> np.ndarray:
    """Logits of four windows in the corners of the tile, averaged where they overlap."""
    image = normalised(given)
    total, count = torch.zeros_like(image[0, 0]), torch.zeros_like(image[0, 0])
    for rows in (slice(0, window), slice(-window, None)):
        for columns in (slice(0, window), slice(-window, None)):
            total[rows, columns] += peer(image[..., rows, columns])[0, 0]
            count[rows, columns] += 1
    return (total / count).cpu().numpy()


def normalised(given: Case) -> Tensor:
    """(1, 4, h, w) in float32, as a plain loop has it."""
    return torch.from_numpy((given.pixels - MEAN) / STD)[None].to(given.device)


def one_tile(way: str, size: int, width: int) -> None:
    """One tile in this process."""
    if way == "sn6":
        keep_freed_memory()
        make_sn6(size, width, "cpu")()
    else:
        make_baseline(way, size, width, "cpu")()


WAYS = {"whole": whole, "windows": windows}
NAMES = {"whole": "UNet11 in float32, whole", "windows": "UNet11 in float32, 4 windows of 512"}
