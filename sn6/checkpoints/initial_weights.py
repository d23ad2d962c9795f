"""Weights that a run starts from: read, copied into its network, and checked for leakage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from torch import Tensor, nn

from sn6.checkpoints.heads import MASK_ONLY
from sn6.checkpoints.loading import find_weights, read_checkpoint
from sn6.checkpoints.metadata import CheckpointMetadata, ForeignMetadata
from sn6.checkpoints.transfer import TransferredTensor, transfer_weights
from sn6.data.folds import Fold, count_overlapping, squares_outside_column
from sn6.data.source import Source
from sn6.models.first_layer import Adapt

MODEL_KEY, HANDOFF_KEY = "model.weights", "callbacks.sar_handoff.weights"  # the keys that name weights


@dataclass(frozen=True, eq=False)
class InitialWeights:
    """Weights from outside a run.

    Attributes:
        key: config key that names them
        file: the file
        weights: tensors by our names
        metadata: what the file says of them, see `sn6.checkpoints.loading.read_checkpoint`
    """

    key: str
    file: Path
    weights: dict[str, Tensor]
    metadata: CheckpointMetadata | ForeignMetadata

    @property
    def where(self) -> str:
        """Return key, file and format, for messages."""
        name = self.metadata.format if isinstance(self.metadata, ForeignMetadata) else None
        return f"{self.key}={self.file}" + (f" ({name})" if name else "")

    @property
    def network(self) -> dict[str, Any]:
        """Return class and options of the network that they fit, as far as the metadata say."""
        return self.metadata.network

    @property
    def heads(self) -> Mapping[str, Mapping[str, Any]]:
        """Return name → target of the heads that they fit; weights of other programs have the mask alone."""
        return self.metadata.heads if isinstance(self.metadata, CheckpointMetadata) else MASK_ONLY

    def load_into(
        self, network: nn.Module, source: Source, adapt: Adapt | None, reset_head: bool
    ) -> list[TransferredTensor]:
        """Copy them into a network that is going to see `source`; see `transfer_weights`."""
        about = self.metadata
        before = about.to_source().band_names if isinstance(about, CheckpointMetadata) else []
        bands = before, source.band_names
        return transfer_weights(
            network, self.weights, bands, adapt, reset_head, self.where, node=self.key.rpartition(".")[0]
        )


def read_initial_weights(path: str, key: str, inside: Sequence[str]) -> InitialWeights:
    """Read weights; arguments and errors of `sn6.checkpoints.loading.find_weights` and `read_checkpoint`."""
    file = find_weights(Path(path), key, inside)
    return InitialWeights(key, file, *read_checkpoint(file, key))


def summary(rows: Sequence[TransferredTensor]) -> str:
    """Return a summary: how many tensors were loaded, adapted and initialised."""
    parts = [f"{sum(row.action == 'loaded' for row in rows)} tensors loaded"]
    parts += [f"{row.tensor} adapted ({row.rule})" for row in rows if row.action == "adapted"]
    initialised = sum(row.action == "initialised" for row in rows)
    return ", ".join([*parts, f"{initialised} initialised"] if initialised else parts)


def training_area(
    metadata: CheckpointMetadata | ForeignMetadata, fold: Fold, unseen_column: int | None
) -> Float64[np.ndarray, "n 4"]:
    """Return the squares that weights were trained on: those of their metadata, else outside `unseen_column`.

    Args:
        metadata: of the weights
        fold: the run's, whose tiles stand for those of the weights
        unseen_column: column of easting that they were not trained on, None where it is not known

    Returns:
        West, south, east and north of each square in metres; empty where nothing is known.
    """
    if isinstance(metadata, CheckpointMetadata) and metadata.training_area:
        return np.array(metadata.training_area, dtype=np.float64).reshape(-1, 4)
    if unseen_column is None:
        return np.zeros((0, 4))
    tiles = [tile for tile in (*fold.train, *fold.validation, *fold.test, *fold.dropped) if tile.split == "train"]
    return squares_outside_column(tiles, unseen_column)


def provenance(given: InitialWeights, fold: Fold, unseen_column: int | None) -> dict[str, Any]:
    """Return for metrics.json what the weights are, and how many scored tiles overlap their training area."""
    area = training_area(given.metadata, fold, unseen_column)
    overlapping = count_overlapping(fold.test, area) if len(area) else None
    about, scored = given.metadata, len(fold.test)
    column = about.fold if isinstance(about, CheckpointMetadata) and about.fold is not None else unseen_column
    if overlapping is None:
        note = "the training area of these weights is not known; the score may be too high"
    elif overlapping == 0:
        note = f"none of the {scored} scored tiles overlaps the training area of these weights"
    else:
        note = (
            f"{overlapping} of the {scored} scored tiles overlap the training area of these weights, so the score is "
            f"too high; they were not trained on column {column} of easting (data.fold={column}), except for tiles "
            "that reach over its edge"
        )
    return {
        "file": str(given.file),
        "format": about.format or "sn6" if isinstance(about, ForeignMetadata) else "sn6",
        "scored_tiles_in_training_area": overlapping,
        "note": note,
    }
