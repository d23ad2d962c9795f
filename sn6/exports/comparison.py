"""Compare the maps of an exported file with those of its network."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from sn6.errors import UserError
from sn6.exports.windows import ComparedWindow
from sn6.heads import MASK
from sn6.prediction.trained_network import TrainedNetwork

TOLERANCE = 1e-4  # of values up to 1, relative to greater ones
BATCH = 3  # windows; the last batch is smaller, and none is of the size that was traced
Maps = Mapping[str, Float32[np.ndarray, "b _ h w"]]
RunFile = Callable[[Float32[np.ndarray, "b c h w"]], Maps]  # image → named tensors


@torch.no_grad()
def maps_of(trained: TrainedNetwork, windows: Sequence[ComparedWindow]) -> Maps:
    """Return the maps as `sn6 predict` computes them with the checkpoint, 0 on nodata."""
    valid = np.stack([window.valid for window in windows])[:, None]
    image = trained.prepare([window.pixels for window in windows], [window.valid for window in windows])
    outputs = trained.forward(torch.from_numpy(image), "32-true")
    maps = trained.heads.activate(trained.heads.split(outputs))
    return {name: np.where(valid, pixels.numpy(), np.float32(0)) for name, pixels in maps.items()}


def compare(trained: TrainedNetwork, run: RunFile, windows: Iterable[ComparedWindow]) -> dict[str, float]:
    """Return the largest difference of each map of a file from the network's, relative to values above 1.

    Args:
        trained: the network
        run: computes the maps of a file from values as image files have them
        windows: to compare on
    """
    differences: dict[str, float] = {}
    iterator = iter(windows)
    while batch := list(islice(iterator, BATCH)):
        expected, given = maps_of(trained, batch), run(np.stack([window.values for window in batch]))
        for name in expected.keys() & given.keys():
            scale = max(1.0, float(np.abs(expected[name]).max()))
            difference = float(np.abs(given[name] - expected[name]).max()) / scale
            differences[name] = max(differences.get(name, 0.0), difference)
    return {name: differences[name] for name in sorted(differences, key=lambda name: (name != MASK, name))}


def check_differences(differences: Mapping[str, float], path: Path) -> None:
    """Raise a UserError where a map of a file differs from the network's."""
    for name, difference in differences.items():
        if not difference <= TOLERANCE:  # NaN too
            raise UserError(
                f"{path} is not written: its map {name!r} differs by {difference:.1e} from the network's, more than "
                f"{TOLERANCE:g}; give the checkpoint itself to sn6.predict",
                kind="failed",
                key="checkpoint",
                value=name,
            )
