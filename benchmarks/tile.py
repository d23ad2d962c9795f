"""Radar tile of 900×900 pixels to polygons, as sn6.predict does it: against the challenge baseline.

Both networks have the same random weights, which predict blobs of bright ground. The rows give the time, the time
without the network, and the peak memory of a process that predicts one tile.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import shapely
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from scipy.special import expit
from torch import Tensor, nn

from benchmarks.comparison import Implementation, NotRun, Row, medians, require
from benchmarks.polygons import gdal, same_sets
from benchmarks.prediction import make_blobs
from benchmarks.process import measure_function, own_process
from benchmarks.street_map import street_map
from benchmarks.unet11 import with_weights_of, without_tf32
from sn6.data.normalization import Statistics, normalize
from sn6.data.source import Source
from sn6.datasets.spacenet6 import PIXEL, PRODUCTS
from sn6.footprints import Footprints
from sn6.footprints.polygonizer import Maps
from sn6.footprints.threshold import Threshold
from sn6.heads import Heads
from sn6.models.ternausnet import TernausNet
from sn6.prediction.ensemble import Averaging, Ensemble
from sn6.prediction.trained_network import Precision, TrainedNetwork
from sn6.processes import keep_freed_memory
from sn6.targets.mask import Mask
from sn6.targets.rasterize import rasterize_instances
from sn6.training.devices import fastest_precision

MEAN, STD = 30.0, 8.0  # decibels
MIN_AREA = 80  # px
MIN_AGREEMENT = 0.99  # fraction of the pixels on the same side of the threshold in bfloat16
SIZE, WIDTH = 900, 64  # pixels of the tile, base filters of the network

STATISTICS = Statistics((MEAN,) * 4, (STD,) * 4, None)


@dataclass(frozen=True, eq=False)
class Case:
    """A tile and the network that predicts it.

    Attributes:
        pixels: (4, h, w) in decibels
        network: a network of sn6
        device: device of the network
    """

    pixels: np.ndarray
    network: nn.Module
    device: str

    @property
    def valid(self) -> np.ndarray:
        return np.ones(self.pixels.shape[1:], dtype=bool)

    def ensemble(self, precision: Precision) -> Ensemble:
        """Return the ensemble of sn6.predict."""
        source = Source(PRODUCTS["SAR-Intensity"], (1, 2, 3, 4), True, 20.0)
        network = self.network.to(memory_format=torch.channels_last)
        options = (source, STATISTICS, "zero", Threshold(), None, False, precision)
        trained = TrainedNetwork(network, Heads({"mask": Mask()}), 1, None, *options)
        return Ensemble([trained], self.device, Averaging(False, (1.0,), precision))


Predict = Callable[[nn.Module, Case], np.ndarray]  # network, tile → logits


def rows(size: int = SIZE, width: int = WIDTH, repeats: int = 5) -> Iterator[Row | NotRun]:
    """Yield rows for the CPU, and for a GPU if there is one."""
    yield from on_device(size, width, "cpu", repeats, min_ratio=3)
    peaks = {name: measure_function(predict_tile, name, size, width).peak for name in ("sn6", *BASELINES)}
    inputs = f"{size}×{size}, a process"
    for name in BASELINES:
        yield Row("tile → polygons, memory", inputs, peaks["sn6"], NAMES[name], peaks[name], "as above", unit="bytes")
    if torch.cuda.is_available():
        yield from on_device(size, width, "cuda", 5 * repeats)
    else:
        yield NotRun("tile → polygons on a GPU", "no GPU is available")


def on_device(size: int, width: int, device: str, repeats: int, min_ratio: float | None = None) -> Iterator[Row]:
    """Compare the prediction with both forms of the baseline, and the rest without the network."""
    precision = fastest_precision(device)
    case = make_case(size, width, device)
    with without_tf32():
        logits = case.ensemble("32-true").outputs([case.pixels], [case.valid])[0, 0]
        theirs = whole_tile(with_weights_of(case.network, width).eval(), case)
    half = case.ensemble(precision).outputs([case.pixels], [case.valid])[0, 0]
    agreement = check_agreement(logits, half, theirs)
    path, inputs = f"tile → polygons, {precision}", f"{size}×{size}, {device}"
    with own_process(keep_freed_memory) as ours, own_process() as theirs:
        implementations: dict[str, Implementation] = {"sn6": ours(make_sn6, size, width, device)}
        implementations |= {name: theirs(make_baseline, name, size, width, device) for name in BASELINES}
        seconds = medians(implementations, repeats)
    for name in BASELINES:
        yield Row(path, inputs, seconds["sn6"], NAMES[name], seconds[name], agreement, min_ratio)
    rest = {"ours": partial(without_network, case, logits), "theirs": partial(baseline_polygons, logits)}
    seconds = medians(rest, 5 * repeats)
    path, peer = "the same without the network", "threshold, GDAL, shapely"
    yield Row(path, inputs, seconds["ours"], peer, seconds["theirs"], agreement, max_ours=0.025)


def make_sn6(size: int, width: int, device: str) -> Implementation:
    """Return a prediction as sn6.predict does it."""
    case = make_case(size, width, device)
    return partial(sn6_tile, case.ensemble(fastest_precision(device)), case)


def make_baseline(name: str, size: int, width: int, device: str) -> Implementation:
    """Return a prediction as a plain loop does it."""
    case = make_case(size, width, device)
    return partial(baseline_tile, BASELINES[name], with_weights_of(case.network, width).eval(), case)


def make_case(size: int, width: int, device: str) -> Case:
    """Return a tile for a TernausNet."""
    torch.manual_seed(0)
    return case_of(TernausNet(4, 1, width), size, device)


def case_of(network: nn.Module, size: int, device: str) -> Case:
    """Draw noise that is brighter on buildings, smoothed, since white noise would give thousands of tiny polygons.

    Args:
        network: of four bands; its weights change
        size: pixels
        device: of the network
    """
    rng = np.random.default_rng(0)
    building = rasterize_instances(street_map(rng, 60), size, size) > 0
    noise = 7 * gaussian_filter(rng.normal(size=(4, size, size)), (0, 2, 2))  # of standard deviation 1
    pixels = (MEAN + STD * noise + 3 * STD * building).astype(np.float32)
    network.eval()
    part = torch.from_numpy((pixels[:, :256, :256] - MEAN) / STD)  # a part, to save memory
    make_blobs(network, part, torch.ones(part.shape[1:], dtype=torch.bool))
    return Case(pixels, network.to(device), device)


def check_agreement(ours: np.ndarray, half: np.ndarray, theirs: np.ndarray) -> str:
    """Check that both networks give the same logits and polygons in float32, and say how well.

    Args:
        ours: logits of sn6 in float32
        half: logits of sn6 in its fastest precision
        theirs: logits of the peer in float32

    Raises:
        Mismatch: they differ
    """
    difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
    require(difference < 1e-4, f"tile → polygons: the logits in float32 differ by {difference:.2g} of the largest")
    polygons = Threshold(simplify=0)(maps_of(ours), np.ones(ours.shape, dtype=bool), PIXEL).polygons
    peers = gdal(ours > 0)
    require(same_sets(polygons, peers[shapely.area(peers) >= MIN_AREA]), "tile → polygons: the polygons differ")
    equal = ((ours > 0) == (half > 0)).mean()
    require(equal > MIN_AGREEMENT, f"tile → polygons: sn6's precision changes {1 - equal:.1%} of the pixels")
    return f"float32: logits to 1e-4, polygons equal; as run: {equal:.2%} of the pixels"


def maps_of(logits: np.ndarray) -> Maps:
    """Return the map of the mask from the logits (h, w) of building."""
    return {"mask": expit(logits)[None]}


def sn6_tile(ensemble: Ensemble, case: Case) -> Footprints:
    """Predict the tile at once, as it fits into a window of sn6.predict."""
    logits = ensemble.outputs([case.pixels], [case.valid])[0, 0]
    return Threshold()(maps_of(logits), case.valid, PIXEL)


def without_network(case: Case, logits: np.ndarray) -> Footprints:
    """Do all that a prediction does besides the network."""
    normalize(case.pixels, case.valid, STATISTICS, "zero")
    return Threshold()(maps_of(logits), case.valid, PIXEL)


def baseline_tile(predict: Predict, peer: nn.Module, case: Case) -> np.ndarray:
    """Predict the tile with the baseline's network."""
    return baseline_polygons(predict(peer, case))


def baseline_polygons(logits: np.ndarray) -> np.ndarray:
    """Trace polygons of at least 20 m², simplified by the tolerance of sn6."""
    polygons = gdal(logits > 0)
    return shapely.simplify(polygons[shapely.area(polygons) >= MIN_AREA], 1.0)


@torch.no_grad()
def whole_tile(peer: nn.Module, case: Case) -> np.ndarray:
    """Compute the logits of the tile, padded with zeros at the bottom and right."""
    image = normalised(case)
    height, width = image.shape[-2:]
    return peer(F.pad(image, (0, -width % 32, 0, -height % 32)))[0, 0, :height, :width].cpu().numpy()


@torch.no_grad()
def windows(peer: nn.Module, case: Case, window: int = 512) -> np.ndarray:
    """Compute the logits of four windows in the corners of the tile, averaged where they overlap."""
    image = normalised(case)
    total, count = torch.zeros_like(image[0, 0]), torch.zeros_like(image[0, 0])
    for rows in (slice(0, window), slice(-window, None)):
        for columns in (slice(0, window), slice(-window, None)):
            total[rows, columns] += peer(image[..., rows, columns])[0, 0]
            count[rows, columns] += 1
    return (total / count).cpu().numpy()


def normalised(case: Case) -> Tensor:
    """Normalise the tile as a plain loop does, (1, 4, h, w) in float32."""
    return torch.from_numpy((case.pixels - MEAN) / STD)[None].to(case.device)


def predict_tile(name: str, size: int, width: int) -> None:
    """Predict one tile in this process."""
    if name == "sn6":
        keep_freed_memory()
        make_sn6(size, width, "cpu")()
    else:
        make_baseline(name, size, width, "cpu")()


BASELINES: dict[str, Predict] = {"whole": whole_tile, "windows": windows}
NAMES = {"whole": "UNet11 in float32, whole tile", "windows": "UNet11 in float32, 4 windows of 512"}
