"""Measure the time and the memory of the prediction of a large GeoTIFF.

    python -m benchmarks.prediction            (--help lists its keys)

Tiles of a simulated archive are arranged side by side in one GeoTIFF of four bands, which a network with random weights
predicts, to footprints.gpkg. With `network=free`, which costs next to nothing, the time is that of everything else:
reading, normalisation, blending, outlines, writing. The challenge reported its speeds in s/km², too.
"""

import json
import shutil
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import rasterio
import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from rasterio.transform import from_origin
from rasterio.windows import Window
from torch import Tensor, nn

from benchmarks.process import measure_command
from sn6.checkpoints.weights_file import write_weights
from sn6.cli import run_command
from sn6.datasets.spacenet6 import CRS, PIXEL, SpaceNet6
from sn6.models.ternausnet import TernausNet
from sn6.models.unet import UNet
from sn6.simulation.archive import make_archive, settings_of

WEST, NORTH = 590_000, 5_750_000
BLOB = 16  # pixels of the edge of what the free network averages
Name = Literal["free", "unet", "ternausnet"]
Compress = Literal["none", "deflate"]
BOUNDS: dict[Compress, float] = {"none": 0.3, "deflate": 0.5}  # s/km² of the free network on two cores


class FreeNetwork(nn.Module):
    """Compute logits that cost next to nothing: the mean of all bands over squares, interpolated between them."""

    def __init__(self, in_channels: int = 4, classes: int = 1) -> None:
        super().__init__()
        self.head = nn.Conv2d(in_channels, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits."""
        squares = self.head(F.avg_pool2d(image, BLOB, ceil_mode=True))
        return F.interpolate(squares, scale_factor=BLOB, mode="bilinear")[..., : image.shape[-2], : image.shape[-1]]


NETWORKS: dict[Name, Callable[..., nn.Module]] = {"free": FreeNetwork, "unet": UNet, "ternausnet": TernausNet}
TARGETS: dict[Name, str] = {
    "free": "benchmarks.prediction.FreeNetwork",
    "unet": "sn6.models.unet.UNet",
    "ternausnet": "sn6.models.ternausnet.TernausNet",
}


def prediction(
    folder: Annotated[Path, "folder for the files; its contents are replaced"] = Path("outputs/prediction"),
    root: Annotated[Path, "an archive for the texture; simulated if it is missing"] = Path("outputs/simulated_archive"),
    pixels: Annotated[PositiveInt, "edge length of the GeoTIFF"] = 10_000,
    network: Annotated[Name, "free: next to no time, so that the rest is measured; unet or ternausnet"] = "unet",
    width: Annotated[PositiveInt, "base filters of the U-Net or the TernausNet; the published ones have 64"] = 8,
    compress: Annotated[Compress, "of the GeoTIFF"] = "none",
    formats: Annotated[str, "of the footprints"] = "gpkg",
    probability: Annotated[bool, "write a raster of probabilities as well"] = False,
    overrides: Annotated[str, "more for sn6.predict, such as 'processes=2' or 'device=cuda batch=8'"] = "",
) -> None:
    """Print seconds, seconds per km², core seconds and the peak memory of `python -m sn6.predict`."""
    shutil.rmtree(folder, ignore_errors=True)
    image, checkpoint = folder / "area.tif", folder / "weights.safetensors"
    if not root.exists():
        make_archive(root, settings_of(tiles=24))
    write_area(image, SpaceNet6(root), pixels, compress)
    write_network(checkpoint, width, image, network)
    options = [f"checkpoint={checkpoint}", f"images={image}", f"out={folder / 'out'}", f"formats=[{formats}]"]
    options += [f"probability={str(probability).lower()}", "allow=benchmarks.prediction.FreeNetwork"]
    used = measure_command([sys.executable, "-m", "sn6.predict", *options, *overrides.split()])
    area = (pixels * PIXEL / 1000) ** 2
    size = f"{pixels} × {pixels} pixels, {area:.1f} km², {image.stat().st_size / 1e9:.1f} GB, compress={compress}"
    print(f"{size}, network={network}" + ("" if network == "free" else f" of width={width}"))
    inside = json.loads((folder / "out" / "prediction.json").read_text())["result"]["seconds"]
    bound = f" (at most {BOUNDS[compress]} on two cores)" if network == "free" else ""
    print(
        f"after the start {inside:.1f} s, {inside / area:.2f} s/km²{bound}; {used.core_seconds / area:.2f} core s/km²"
    )
    print(f"in all {used.seconds:.1f} s, peak memory {used.peak / 1e9:.2f} GB, on {device_name()}")


def write_area(path: Path, archive: SpaceNet6, pixels: int, compress: Compress = "none") -> None:
    """Write a GeoTIFF of `pixels` × `pixels` from the archive's radar tiles side by side."""
    tiles = archive.tiles("train", "SAR-Intensity")
    read = [archive.read(tile, "SAR-Intensity", (1, 2, 3, 4)) for tile in tiles]
    textures = [pixels for pixels, _ in sorted(read, key=lambda one: -one[1].sum())[:8]]  # with the least nodata
    size = textures[0].shape[-1]
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "dtype": "float32",
        "count": 4,
        "nodata": 0,
        "tiled": True,
        "compress": compress,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = {"height": pixels, "width": pixels, "transform": from_origin(WEST, NORTH, PIXEL, PIXEL), "crs": CRS}
    with rasterio.open(path, "w", **profile, **grid) as file:
        for number, (top, left) in enumerate(product(range(0, pixels, size), repeat=2)):
            height, width = min(size, pixels - top), min(size, pixels - left)
            texture = textures[number % len(textures)][:, :height, :width]
            file.write(texture, window=Window(left, top, width, height))


def write_network(path: Path, width: int, image: Path, name: Name = "unet") -> None:
    """Write a network with random weights that predicts blobs of bright ground."""
    with rasterio.open(image) as file:
        texture = file.read(window=Window(0, 0, 900, 900))
    valid = (texture != 0).any(axis=0)
    mean, std = texture[:, valid].mean(axis=1), texture[:, valid].std(axis=1)
    torch.manual_seed(0)
    options = {"in_channels": 4, "classes": 1} | ({} if name == "free" else {"width": width})
    network = NETWORKS[name](**options).eval()
    normalised = np.where(valid, (texture - mean[:, None, None]) / std[:, None, None], 0)
    make_blobs(network, torch.from_numpy(normalised), torch.from_numpy(valid))
    metadata = {
        "network": {"_target_": TARGETS[name], **options},
        "source": {"product": "SAR-Intensity", "bands": [1, 2, 3, 4], "orient": True, "min_area": 20.0},
        "mean": mean.tolist(),
        "std": std.tolist(),
        "nodata": "zero",
    }
    write_weights(path, dict(network.state_dict()), metadata)


@torch.no_grad()
def make_blobs(network: Any, image: torch.Tensor, valid: torch.Tensor) -> None:
    """Make the weights of a network positive, and scale them so that 15% of an image are predicted as building.

    Weights of both signs would predict noise.

    Args:
        network: a network of one class with a `head`; its weights change
        image: (c, h, w), normalised
        valid: (h, w)
    """
    for parameter in network.parameters():
        parameter.abs_()
        if parameter.ndim > 1:  # kernels that preserve the scale of their input
            parameter /= parameter.flatten(1).sum(1).mean()
    logits = network(image[None])[0, 0].double()[valid]
    network.head.weight *= 3 / logits.std()
    network.head.bias *= 3 / logits.std()
    network.head.bias -= 3 * torch.quantile(logits, 0.85) / logits.std()


def device_name() -> str:
    """Return the name of the device that `device=auto` chooses."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    run_command(prediction, "benchmarks.prediction")
