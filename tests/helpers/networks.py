"""Networks with random weights that propose footprints, in place of trained ones."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers.handmade import speckle
from sn6.checkpoints.weights_file import write_weights
from sn6.models.ternausnet import TernausNet

MEAN, STD = 27.5, 13.0  # of the pixels of `speckle`
METADATA: dict[str, Any] = {
    "network": {"_target_": "sn6.models.ternausnet.TernausNet", "in_channels": 4, "classes": 1, "width": 4},
    "source": {"product": "SAR-Intensity", "bands": [1, 2, 3, 4], "orient": True, "min_area": 20.0},
    "mean": [MEAN] * 4,
    "std": [STD] * 4,
    "nodata": "zero",
    "footprints": {"threshold": 0.5},
}


def texture(size: int, pixel: int) -> np.ndarray:
    """Return four bands of `size` × `size` random squares of `pixel` pixels."""
    return np.kron(speckle(size=size), np.ones((1, pixel, pixel), dtype=np.float32))


def normalised(pixels: np.ndarray) -> torch.Tensor:
    """Return the input (1, 4, h, w) of the network: mean 0, standard deviation 1, nodata 0."""
    return torch.from_numpy(np.where((pixels != 0).any(axis=0), (pixels - MEAN) / STD, 0).astype(np.float32))[None]


@torch.no_grad()
def random_network() -> TernausNet:
    """Return a network to which half of a texture is building: its logits have median 0 and standard deviation 1."""
    torch.manual_seed(0)
    network = TernausNet(4, 1, width=4).eval()
    logits = network(normalised(texture(8, 24)))
    network.head.weight /= logits.std()
    network.head.bias.copy_((network.head.bias - logits.median()) / logits.std())
    return network


def write_network(path: Path, network: TernausNet, /, **changes: dict[str, Any]) -> Path:
    """Write the weights of a network as sn6 does, with changes within the entries of the metadata."""
    metadata = METADATA | {key: METADATA.get(key, {}) | change for key, change in changes.items()}
    write_weights(path, network.state_dict(), metadata)
    return path
