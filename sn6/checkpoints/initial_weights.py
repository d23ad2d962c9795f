"""Weights that a run is given: read, fitted to its network, and how far they know the ground that it scores."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from torch import Tensor, nn

from sn6.checkpoints.loading import find_weights, read_checkpoint
from sn6.checkpoints.transfer import Adapt, TransferredTensor, transfer_weights
from sn6.data.dataset import Source
from sn6.data.folds import Fold, bounds_of, overlaps_any
from sn6.data.partitions import columns_of
from sn6.datasets.archive import Tile
from sn6.datasets.layout import PRODUCTS

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class InitialWeights:
    """Weights from outside a run.

    Attributes:
        key: of the config that names them
        file: where they lie
        weights: by our names
        card: what is known of them, see `sn6.checkpoints.loading.read_trained`
    """

    key: str
    file: Path
    weights: dict[str, Tensor]
    card: dict[str, Any]

    @property
    def where(self) -> str:
        """Key, file and form, for messages."""
        form = f" ({self.card['form']})" if "form" in self.card else ""
        return f"{self.key}={self.file}{form}"

    @property
    def network(self) -> dict[str, Any]:
        """The network that they fit, as far as they tell it."""
        return self.card.get("network", {})

    def fit_into(
        self, network: nn.Module, source: Source, adapt: Adapt | None, reset_head: bool
    ) -> list[TransferredTensor]:
        """Copies them into a network that will see `source`; arguments, result and errors of `hand_over`."""
        told = self.card.get("source", {})
        bands = bands_of(told["product"], told["bands"]) if told else [], bands_of(source.product, source.bands)
        return transfer_weights(
            network, self.weights, bands, adapt, reset_head, self.where, node=self.key.rpartition(".")[0]
        )


def read_initial_weights(path: str, key: str, inside: Sequence[str]) -> InitialWeights:
    """Reads them; arguments and errors of `sn6.checkpoints.loading.trained_file` and `read_trained`."""
    file = find_weights(Path(path), key, inside)
    return InitialWeights(key, file, *read_checkpoint(file, key))


def bands_of(product: str, bands: Sequence[int]) -> list[str]:
    """The names of the bands that a network sees, from a product and the numbers of its bands."""
    return [PRODUCTS[product].bands[band - 1] for band in bands]


def summary(rows: Sequence[TransferredTensor]) -> str:
    """In words, what became of the tensors."""
    told = [f"{sum(row.what == 'loaded' for row in rows)} tensors loaded"]
    told += [f"{row.tensor} adapted ({row.rule})" for row in rows if row.what == "adapted"]
    left = sum(row.what == "left" for row in rows)
    return ", ".join([*told, f"{left} left as they start"] if left else told)


def training_area(card: dict[str, Any], fold: Fold, unseen_column: int | None) -> Float64[np.ndarray, "n 4"]:
    """The squares that weights were trained on: those of their card, else of the tiles outside `unseen_column`.

    Empty where neither is known.
    """
    if card.get("ground"):
        return np.array(card["ground"], dtype=np.float64).reshape(-1, 4)
    if unseen_column is None:
        return np.zeros((0, 4))
    tiles = [tile for tile in (*fold.train, *fold.validation, *fold.test, *fold.dropped) if tile.split == "train"]
    bounds = bounds_of(tiles)
    return bounds[columns_of(bounds) != unseen_column]


def count_overlapping(tiles: Sequence[Tile], ground: Float64[np.ndarray, "n 4"]) -> int:
    """How many of the tiles share ground with the squares."""
    return int(overlaps_any(bounds_of(tiles), ground).sum())


def provenance(given: InitialWeights, fold: Fold, unseen_column: int | None) -> dict[str, Any]:
    """For metrics.json: what the weights are, and how many of the scored tiles lie on ground that they learned on."""
    ground = training_area(given.card, fold, unseen_column)
    seen = count_overlapping(fold.test, ground) if len(ground) else None
    scored, column = len(fold.test), given.card.get("fold", unseen_column)
    if seen is None:
        note = "the ground that these weights were trained on is not known; the score may be too good"
    elif seen == 0:
        note = f"none of the {scored} scored tiles shares ground with what these weights were trained on"
    else:
        note = (
            f"these weights were trained on ground of {seen} of the {scored} scored tiles, so the score is too good; "
            f"they were not trained on column {column} of easting (data.fold={column}), but for what its edge shares"
        )
    return {"file": str(given.file), "form": given.card.get("form", "sn6"), "scored_tiles_seen": seen, "note": note}
