"""Train on several data sets at once: crops of each, drawn by weight, in one batch."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch.utils.data import Dataset, default_collate

from sn6.data.dataset import CropDataset
from sn6.data.source import Source
from sn6.data.stored_crops import StoredCrops
from sn6.errors import UserError

SIZE_TOLERANCE = 1e-3  # relative difference of pixel sizes that are equal


class MixedCrops(Dataset):
    """Make batches with crops of several datasets; each crop depends only on (seed, epoch, draw).

    The first draws of an epoch are those of the first dataset, the next ones those of the second, and so on; a sampler
    shuffles them. Crops of the first are the same as without the others. Those of another are drawn from its tiles in
    turn, over the epochs, so that all of them are used where an epoch has fewer draws than it has tiles.

    Args:
        parts: datasets whose samples have the same shapes
        draws: of each in an epoch
    """

    def __init__(self, parts: Sequence[CropDataset | StoredCrops], draws: Sequence[int]) -> None:
        self.parts = list(parts)
        self.draws = list(draws)
        self.starts = [0, *accumulate(draws)]

    def __len__(self) -> int:
        return self.starts[-1]

    def locate(self, epoch: int, draw: int) -> tuple[int, tuple[int, int]]:
        """Return the number of the dataset of a draw, and the epoch and draw by which that makes the crop."""
        part = next(number for number, end in enumerate(self.starts[1:]) if draw < end)
        return part, (epoch, draw + (epoch * self.draws[part] if part else 0))

    def __getitems__(self, draws: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Return a batch of samples in the order of the draws; a DataLoader calls this once per batch."""
        located = [self.locate(*draw) for draw in draws]
        numbers = sorted({part for part, _ in located})
        batches = [self._batch(number, [own for part, own in located if part == number]) for number in numbers]
        order = sorted(range(len(draws)), key=lambda i: located[i][0])  # of the joined batches
        position = torch.tensor(sorted(range(len(draws)), key=order.__getitem__))
        joined: dict[str, Any] = {}
        for name, first in batches[0].items():
            if isinstance(first, torch.Tensor):
                joined[name] = torch.cat([batch[name] for batch in batches])[position.to(first.device)]
            else:
                values = [value for batch in batches for value in batch[name]]
                joined[name] = [values[i] for i in position.tolist()]
        return joined

    def _batch(self, number: int, draws: Sequence[tuple[int, int]]) -> dict[str, Any]:
        part = self.parts[number]
        if isinstance(part, StoredCrops):
            return part.__getitems__(draws)
        batch: dict[str, Any] = default_collate([part[draw] for draw in draws])
        return batch


def check_same_samples(source: Source, other: Source, key: str) -> None:
    """Raise a UserError unless the samples of two sources can be in one batch.

    Args:
        source: of the data
        other: of further data
        key: of its node in the config
    """
    if len(other.bands) != len(source.bands):
        raise UserError(
            f"{key} has the {len(other.bands)} bands {', '.join(other.band_names)}, but data has {len(source.bands)} "
            f"({', '.join(source.band_names)}); set {key}.bands or data.bands to as many",
            kind="conflict",
            key=f"{key}.bands",
            value=list(other.bands),
        )
    one, two = source.product.grid, other.product.grid
    if abs(one - two) > SIZE_TOLERANCE * one:
        raise UserError(
            f"{key} has a pixel size of {two:g} m, but data has {one:g} m; set {key}.pixel_size={one:g} where its data "
            "set has this key, or data.pixel_size",
            kind="conflict",
            key=f"{key}.pixel_size",
            value=two,
        )
