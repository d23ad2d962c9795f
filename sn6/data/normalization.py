"""Measure the statistics of training tiles, and normalise images by them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32

from sn6.data.source import Source
from sn6.datasets.declaration import DataSet, Tile
from sn6.datasets.statistics import tile_statistics
from sn6.errors import UserError

Nodata = Literal["zero", "as_is"]


@dataclass(frozen=True)
class Statistics:
    """Statistics of the training tiles of a fold over valid pixels.

    Attributes:
        mean: per band of the sample
        std: standard deviation per band of the sample
        building_fraction: fraction of valid pixels on buildings, None if it was not measured
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    building_fraction: float | None


def measure_statistics(data_set: DataSet, tiles: Sequence[Tile], source: Source, max_tiles: int = 200) -> Statistics:
    """Measure mean, standard deviation and building fraction over the valid pixels of up to `max_tiles` tiles.

    The tiles are spread evenly over `tiles`, the training tiles of a fold: the validation area does not affect the
    statistics. Tiles that were measured before are not read again, see `sn6.datasets.statistics`.

    Raises:
        UserError: there is no valid pixel
    """
    chosen = [tiles[i] for i in np.unique(np.linspace(0, len(tiles) - 1, min(max_tiles, len(tiles))).astype(int))]
    measured = tile_statistics(data_set, chosen, source.product.name, source.min_area)
    count, building = sum(tile.pixels for tile in measured), sum(tile.building for tile in measured)
    bands = np.asarray(source.bands) - 1
    total = np.sum([tile.total for tile in measured], axis=0)[bands]
    squares = np.sum([tile.squares for tile in measured], axis=0)[bands]
    if count == 0:
        raise UserError(
            f"the training tiles of {data_set.root} contain only nodata ({len(tiles)} tiles); set another data.fold",
            kind="wrong_data",
            key=data_set.root,
        )
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-12))
    return Statistics(tuple(mean.tolist()), tuple(std.tolist()), building / count)


def normalize(
    image: Float32[np.ndarray, "c h w"], valid: np.ndarray, statistics: Statistics, nodata: Nodata
) -> Float32[np.ndarray, "c h w"]:
    """Compute (x − mean) / std per band; nodata pixels are then set to 0, unless `nodata` is "as_is"."""
    mean = np.array(statistics.mean, dtype=np.float32)[:, None, None]
    std = np.array(statistics.std, dtype=np.float32)[:, None, None]
    normalized = image - mean
    normalized /= std
    if nodata == "zero":
        np.copyto(normalized, 0, where=~valid)
    return normalized
