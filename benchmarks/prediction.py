"""Measure the time and the memory of the prediction of a large GeoTIFF.

    python -m benchmarks.prediction            (--help lists its keys)

Tiles of a simulated archive are arranged side by side in one GeoTIFF of four bands, which a small network with random
weights predicts, with outlines and a raster of probabilities. The challenge reported its speeds in s/km², too.
"""

import shutil
import sys
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rasterio
import torch
from pydantic import PositiveInt
from rasterio.transform import from_origin
from rasterio.windows import Window

from benchmarks.process import measure_command
from sn6.checkpoints.weights_file import write_weights
from sn6.cli import run_command
from sn6.datasets.spacenet6 import CRS, PIXEL, SpaceNet6
from sn6.models.unet import UNet
from sn6.simulation.archive import make_archive, settings_of

WEST, NORTH = 590_000, 5_750_000


def prediction(
    folder: Annotated[Path, "folder for the files; its contents are replaced"] = Path("outputs/prediction"),
    root: Annotated[Path, "an archive for the texture; simulated if it is missing"] = Path("outputs/simulated_archive"),
    pixels: Annotated[PositiveInt, "edge length of the GeoTIFF"] = 10_000,
    width: Annotated[PositiveInt, "base filters of the U-Net; the published one has 64"] = 8,
    overrides: Annotated[str, "more for sn6.predict, such as 'device=cuda batch=8 precision=bf16-mixed'"] = "",
) -> None:
    """Print seconds, seconds per km² and the peak memory of `python -m sn6.predict`."""
    shutil.rmtree(folder, ignore_errors=True)
    image, checkpoint = folder / "area.tif", folder / "weights.safetensors"
    if not root.exists():
        make_archive(root, settings_of(tiles=24))
    write_area(image, SpaceNet6(root), pixels)
    write_network(checkpoint, width, image)
    options = [f"checkpoint={checkpoint}", f"images={image}", f"out={folder / 'out'}", "probability=true"]
    used = measure_command([sys.executable, "-m", "sn6.predict", *options, *overrides.split()])
    area = (pixels * PIXEL / 1000) ** 2
    gigabytes = image.stat().st_size / 1e9
    print(f"{pixels} × {pixels} pixels, {area:.1f} km², {gigabytes:.1f} GB, U-Net with {width} base filters")
    speed = f"{used.seconds:.0f} s, {used.seconds / area:.1f} s/km²"
    print(f"{speed}, peak memory {used.peak / 1e9:.2f} GB, on {device_name()}")


def write_area(path: Path, archive: SpaceNet6, pixels: int) -> None:
    """Write a GeoTIFF of `pixels` × `pixels` from the archive's radar tiles side by side."""
    tiles = archive.tiles("train", "SAR-Intensity")
    read = [archive.read(tile, "SAR-Intensity", (1, 2, 3, 4)) for tile in tiles]
    textures = [pixels for pixels, _ in sorted(read, key=lambda one: -one[1].sum())[:8]]  # with the least nodata
    size = textures[0].shape[-1]
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": "float32", "count": 4, "nodata": 0, "tiled": True}
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = {"height": pixels, "width": pixels, "transform": from_origin(WEST, NORTH, PIXEL, PIXEL), "crs": CRS}
    with rasterio.open(path, "w", **profile, **grid) as file:
        for number, (top, left) in enumerate(product(range(0, pixels, size), repeat=2)):
            height, width = min(size, pixels - top), min(size, pixels - left)
            texture = textures[number % len(textures)][:, :height, :width]
            file.write(texture, window=Window(left, top, width, height))


def write_network(path: Path, width: int, image: Path) -> None:
    """Write a U-Net with random weights that predicts blobs of bright ground."""
    with rasterio.open(image) as file:
        texture = file.read(window=Window(0, 0, 900, 900))
    valid = (texture != 0).any(axis=0)
    mean, std = texture[:, valid].mean(axis=1), texture[:, valid].std(axis=1)
    torch.manual_seed(0)
    network = UNet(4, 1, width).eval()
    normalised = np.where(valid, (texture - mean[:, None, None]) / std[:, None, None], 0)
    make_blobs(network, torch.from_numpy(normalised), torch.from_numpy(valid))
    metadata = {
        "network": {"_target_": "sn6.models.unet.UNet", "in_channels": 4, "classes": 1, "width": width},
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
        network: a U-Net or a TernausNet of one class; its weights change
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
