"""The score in parts: by a property of the buildings, by a group of tiles, and how sure the whole of it is."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int, Int64

from sn6.metrics.matching import Counts

Rates: TypeAlias = dict[str, float]


def rates(counts: Counts) -> Rates:
    """Counts and what follows from them, as a file of scores holds them."""
    return {
        "tp": counts.tp,
        "fp": counts.fp,
        "fn": counts.fn,
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.f1,
    }


def bins(values: Float[np.ndarray, "n"], edges: Sequence[float]) -> Int64[np.ndarray, "n"]:
    """The bin of each value: i for edges[i] ≤ value < edges[i + 1], −1 for NaN. The last bin is open.

    Args:
        values: none of them under the first edge by more than rounding
        edges: rising
    """
    found = np.maximum(np.searchsorted(edges, values, side="right") - 1, 0)
    return np.where(np.isnan(values), -1, found).astype(np.int64)


def bin_names(edges: Sequence[float], unit: str) -> list[str]:
    """`[20, 40], "m2"` → `["20-40 m2", "40+ m2"]`."""
    closed = [f"{low:g}-{high:g} {unit}" for low, high in pairwise(edges)]
    return [*closed, f"{edges[-1]:g}+ {unit}"]


def by_building(
    names: Sequence[str], bin_of_building: Int[np.ndarray, "buildings"], found: Bool[np.ndarray, "buildings"]
) -> dict[str, Rates]:
    """How many buildings of each bin were found: recall by a property that the truth has.

    Args:
        names: of the bins
        bin_of_building: -1 is none of them
        found: whether a proposal took the building
    """
    return {
        name: {"buildings": int(here.sum()), "found": int(found[here].sum()), "recall": mean(found[here])}
        for name, here in ((name, bin_of_building == i) for i, name in enumerate(names))
    }


def by_proposal(
    names: Sequence[str], bin_of_proposal: Int[np.ndarray, "proposals"], hit: Bool[np.ndarray, "proposals"]
) -> dict[str, Rates]:
    """How many proposals of each bin are hits: precision by a property that proposals have, their own.

    A hit may lie in one bin as a building and in another as a proposal, so there is no F1 of a bin.
    """
    return {
        name: {"proposals": int(here.sum()), "hits": int(hit[here].sum()), "precision": mean(hit[here])}
        for name, here in ((name, bin_of_proposal == i) for i, name in enumerate(names))
    }


def mean(values: Bool[np.ndarray, "n"]) -> float:
    """The share that is true; 0 of nothing."""
    return float(values.mean()) if values.size else 0.0


def by_group(groups: Sequence[str | None], counts: Sequence[Counts]) -> dict[str, Rates]:
    """The score of each group of tiles, by its name; tiles of the group None are left out."""
    names = sorted({group for group in groups if group is not None})
    return {name: rates(sum((c for g, c in zip(groups, counts, strict=True) if g == name), Counts())) for name in names}


def bootstrap_f1(
    counts: Int[np.ndarray, "tiles 3"], place: Int[np.ndarray, " tiles"], resamples: int, level: float
) -> tuple[float, float]:
    """An interval of F1 by resampling places with all of their tiles (cluster bootstrap, percentiles).

    Tiles of one place show the same buildings from other passes: to draw them one by one would make the interval far
    too narrow. The same input gives the same interval.

    Args:
        counts: true positives, false positives, false negatives of each tile
        place: the number of the place of each tile, from 0
        resamples: how many times as many places as there are are drawn with replacement
        level: the share of the resampled scores between the two ends, such as 0.95

    Source: Efron, Tibshirani 1993, An Introduction to the Bootstrap, chapters 8 and 13.
    """
    places = int(place.max()) + 1
    pooled = np.zeros((places, 3), dtype=np.int64)
    np.add.at(pooled, place, counts)
    drawn = np.random.default_rng(0).multinomial(places, np.full(places, 1 / places), size=resamples)
    tp, fp, fn = (drawn @ pooled).T
    f1 = 2 * tp / np.maximum(2 * tp + fp + fn, 1)
    low, high = np.quantile(f1, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def spatial_blocks(corners: Float[np.ndarray, "tiles 2"], side: float) -> Int64[np.ndarray, " tiles"]:
    """The number of the place of each tile: the square of a grid on the ground that holds its corner.

    To join all tiles that share ground would not do: on the real archive 3392 of 3401 tiles then are one place.
    """
    _, place = np.unique(np.floor(corners / side), axis=0, return_inverse=True)
    return place.astype(np.int64).reshape(-1)
