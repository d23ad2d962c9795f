"""Weights that a run starts from: read, copied into its network, and checked for leakage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from sn6.checkpoints.heads import MASK_ONLY
from sn6.checkpoints.loading import find_weights, read_checkpoint
from sn6.checkpoints.metadata import CheckpointMetadata, ForeignMetadata
from sn6.checkpoints.transfer import TransferredTensor, transfer_weights
from sn6.data.folds import Fold, bounds_of, squares_outside_column
from sn6.data.ground import Ground
from sn6.data.partitions import PARTITIONS
from sn6.data.source import Source
from sn6.errors import UserError
from sn6.models.first_layer import Adapt

SIZE_TOLERANCE = 0.01  # relative difference of pixel sizes that are equal to a network
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
        """Copy them into a network that is going to see `source`; see `transfer_weights`.

        Raises:
            UserError: those of `transfer_weights`, and where they were trained on other images and `adapt` is None
        """
        about, node = self.metadata, self.key.rpartition(".")[0]
        before = about.to_source().band_names if isinstance(about, CheckpointMetadata) else []
        if adapt is None and (found := self.differences(source)):
            raise UserError(
                f"{self.where} was trained on {', '.join(found)}; set {node}.adapt=mean|repeat|names to fine-tune it",
                kind="missing_value",
                key=f"{node}.adapt",
            )
        return transfer_weights(network, self.weights, (before, source.band_names), adapt, reset_head, self.where, node)

    def differences(self, source: Source) -> list[str]:
        """Return what of their images differs from those of a run, in words; none where the file does not say.

        The SAR hand-off is made for images of another sensor and with other bands: of these only the size of the pixels
        counts, and `transfer_weights` compares the numbers of bands.
        """
        if not isinstance(self.metadata, CheckpointMetadata):
            return []
        before = self.metadata.to_source()
        one, two = before.product, source.product
        differ = []
        if abs(one.grid - two.grid) > SIZE_TOLERANCE * two.grid:
            differ.append(f"pixels of {one.grid:g} m instead of {two.grid:g} m")
        if self.key == MODEL_KEY and before.band_names != source.band_names:
            differ.append(f"the bands {', '.join(before.band_names)} instead of {', '.join(source.band_names)}")
        if self.key == MODEL_KEY and one.sensor != two.sensor:
            differ.append(f"{one.sensor} instead of {two.sensor} images")
        return differ


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
    metadata: CheckpointMetadata | ForeignMetadata, fold: Fold, crs: str, unseen_column: int | None
) -> Ground:
    """Return the squares that weights were trained on: those of their metadata, else outside `unseen_column`.

    Args:
        metadata: of the weights
        fold: the run's, whose tiles stand for those of the weights
        crs: of the bounds of these tiles
        unseen_column: column of easting that they were not trained on, None where it is not known

    Returns:
        The squares; none where nothing is known.
    """
    if isinstance(metadata, CheckpointMetadata) and metadata.training_area:
        return metadata.to_training_area()
    if unseen_column is None:
        return Ground(np.zeros((0, 4)), crs)
    tiles = [tile for tile in (*fold.train, *fold.validation, *fold.test, *fold.dropped) if tile.split == "train"]
    return Ground(squares_outside_column(tiles, unseen_column), crs)


def unseen_part(metadata: CheckpointMetadata | ForeignMetadata, unseen_column: int | None) -> str:
    """Return the part of the ground that weights were not trained on, in words; arguments of `training_area`."""
    if isinstance(metadata, CheckpointMetadata) and metadata.fold is not None and metadata.partition != "columns":
        noun = PARTITIONS[metadata.partition].noun
        return f"{noun} {metadata.fold} (data.partition={metadata.partition} data.fold={metadata.fold})"
    column = getattr(metadata, "fold", None)
    column = unseen_column if column is None else column
    return f"column {column} of easting (data.fold={column})"


def provenance(given: InitialWeights, fold: Fold, crs: str, unseen_column: int | None) -> dict[str, Any]:
    """Return for metrics.json what the weights are, and how many scored tiles overlap their training area.

    Args:
        given: the weights
        fold: of the run
        crs: of the bounds of its tiles
        unseen_column: see `training_area`
    """
    area = training_area(given.metadata, fold, crs, unseen_column)
    overlapping = int(Ground(bounds_of(fold.test), crs).overlapping(area).sum()) if len(area) else None
    about, scored = given.metadata, len(fold.test)
    if overlapping is None:
        note = "the training area of these weights is not known; the score may be too high"
    elif overlapping == 0:
        note = f"none of the {scored} scored tiles overlaps the training area of these weights"
    else:
        note = (
            f"{overlapping} of the {scored} scored tiles overlap the training area of these weights, so the score is "
            f"too high; they were not trained on {unseen_part(about, unseen_column)}, except for tiles that reach over "
            "its edge"
        )
    return {
        "file": str(given.file),
        "format": about.format or "sn6" if isinstance(about, ForeignMetadata) else "sn6",
        "scored_tiles_in_training_area": overlapping,
        "note": note,
    }
