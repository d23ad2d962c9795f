"""Break the score down by properties of buildings and by groups of tiles, and compute its confidence interval."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

from sn6.metrics.matching import Counts

Rates: TypeAlias = dict[str, float]
DRAWN_AT_ONCE = 100  # resamples; all at once would take 16 KB for each block


def rates(counts: Counts) -> Rates:
    """Return counts with precision, recall and F1, as score.json contains them."""
    return {
        "tp": counts.tp,
        "fp": counts.fp,
        "fn": counts.fn,
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.f1,
    }


def bins(values: Float[np.ndarray, "n"], edges: Sequence[float]) -> Int64[np.ndarray, "n"]:
    """Return the bin of each value: i for edges[i] ≤ value < edges[i + 1], −1 for NaN. The last bin is open.

    Args:
        values: none below the first edge by more than rounding
        edges: ascending
    """
    index = np.maximum(np.searchsorted(edges, values, side="right") - 1, 0)
    return np.where(np.isnan(values), -1, index).astype(np.int64)


def bin_names(edges: Sequence[float], unit: str) -> list[str]:
    """Name the bins: `[20, 40], "m2"` → `["20-40 m2", "40+ m2"]`."""
    closed = [f"{low:g}-{high:g} {unit}" for low, high in pairwise(edges)]
    return [*closed, f"{edges[-1]:g}+ {unit}"]


def by_building(
    names: Sequence[str], bin_of_building: Int[np.ndarray, "buildings"], matched: Bool[np.ndarray, "buildings"]
) -> dict[str, Rates]:
    """Compute the recall of each bin: by a property of the ground truth.

    Args:
        names: of the bins
        bin_of_building: index into `names`, -1 for none of them
        matched: whether a proposal matches the building
    """
    return {
        name: {"buildings": int(in_bin.sum()), "matched": int(matched[in_bin].sum()), "recall": mean(matched[in_bin])}
        for name, in_bin in ((name, bin_of_building == i) for i, name in enumerate(names))
    }


def by_proposal(
    names: Sequence[str], bin_of_proposal: Int[np.ndarray, "proposals"], matched: Bool[np.ndarray, "proposals"]
) -> dict[str, Rates]:
    """Compute the precision of each bin: by a property of the proposals.

    A building and the proposal that matches it may be in different bins, so there is no F1 of a bin.

    Args:
        names: of the bins
        bin_of_proposal: index into `names`, -1 for none of them
        matched: whether the proposal is a true positive
    """
    return {
        name: {"proposals": int(in_bin.sum()), "tp": int(matched[in_bin].sum()), "precision": mean(matched[in_bin])}
        for name, in_bin in ((name, bin_of_proposal == i) for i, name in enumerate(names))
    }


def mean(values: Bool[np.ndarray, "n"]) -> float:
    """Return the fraction of true values; 0 for an empty array."""
    return float(values.mean()) if values.size else 0.0


def by_group(groups: Sequence[str | None], counts: Sequence[Counts]) -> dict[str, Rates]:
    """Compute the score of each named group of tiles; leave out tiles of the group None."""
    names = sorted({group for group in groups if group is not None})
    return {name: rates(sum((c for g, c in zip(groups, counts, strict=True) if g == name), Counts())) for name in names}


def bootstrap_f1(
    counts: Int[np.ndarray, "tiles 3"], blocks: Int[np.ndarray, " tiles"], resamples: int, level: float
) -> tuple[float, float]:
    """Compute a confidence interval of F1 by a cluster bootstrap over spatial blocks (percentile method).

    Args:
        counts: true positives, false positives, false negatives of each tile
        blocks: number of the spatial block of each tile, from 0
        resamples: number of resampled scores
        level: fraction of the resampled scores inside the interval, such as 0.95

    Source: Efron, Tibshirani 1993, An Introduction to the Bootstrap, chapters 8 and 13.
    """
    return central(resampled_f1(counts, blocks, resamples), level)


def resampled_f1(
    counts: Int[np.ndarray, "*runs tiles 3"], blocks: Int[np.ndarray, " tiles"], resamples: int
) -> Float64[np.ndarray, "*runs {resamples}"]:
    """Compute F1 of resampled blocks, as many as there are, drawn with replacement.

    Tiles of one block show the same buildings from several passes: resampling single tiles would make an interval far
    too narrow. The random numbers have a fixed seed, so that all runs, in one call or in several, are scored on the
    same draws: the differences of two runs are paired.

    Args:
        counts: true positives, false positives, false negatives of each tile
        blocks: number of the spatial block of each tile, from 0
        resamples: number of resampled scores
    """
    tp, fp, fn = np.moveaxis(resampled_counts(counts, blocks, resamples), -1, 0)
    return 2 * tp / np.maximum(2 * tp + fp + fn, 1)


def resampled_counts(
    counts: Int[np.ndarray, "*runs tiles 3"], blocks: Int[np.ndarray, " tiles"], resamples: int
) -> Int64[np.ndarray, "*runs {resamples} 3"]:
    """Sum the counts of resampled blocks; arguments as of `resampled_f1`."""
    number = int(blocks.max()) + 1
    order = np.argsort(blocks, kind="stable")
    summed = np.insert(counts[..., order, :].cumsum(axis=-2), 0, 0, axis=-2)
    pooled = np.diff(summed[..., np.searchsorted(blocks[order], np.arange(number + 1)), :], axis=-2)
    generator = np.random.default_rng(0)
    sizes = [min(DRAWN_AT_ONCE, resamples - start) for start in range(0, resamples, DRAWN_AT_ONCE)]
    drawn = (generator.multinomial(number, np.full(number, 1 / number), size=size) for size in sizes)
    return np.concatenate([times @ pooled for times in drawn], axis=-2)


def central(values: Float[np.ndarray, " n"], level: float) -> tuple[float, float]:
    """Return the limits between which the fraction `level` of the values lies, with as many below as above."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def spatial_blocks(corners: Float[np.ndarray, "tiles 2"], block_size: float) -> Int64[np.ndarray, " tiles"]:
    """Return the number of each tile's spatial block: the square of a grid on the ground that contains its corner.

    Joining all tiles that overlap instead would put 3392 of the 3401 published tiles into one block.

    Args:
        corners: west and north edge of each tile in m
        block_size: edge length of a block in m
    """
    _, blocks = np.unique(np.floor(corners / block_size), axis=0, return_inverse=True)
    return blocks.astype(np.int64).reshape(-1)
