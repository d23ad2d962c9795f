"""Match label images by their pixels: what the calibration compares many operating points by."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from sn6.metrics.matching import MIN_IOU, Counts


def match_labels(
    proposals: Int32[np.ndarray, "h w"], truths: Int32[np.ndarray, "h w"], buildings: int, min_pixels: Sequence[float]
) -> list[Counts]:
    """Count the proposals that match a building for each minimum area, by the IoU of their pixels.

    The IoU must be above 0.5, so that a region matches at most one other. The counts differ from those of
    `sn6.metrics.matching.match_tile` where buildings overlap, or an IoU is near 0.5.

    Args:
        proposals: number of the proposal at each pixel, from 1; 0 is background
        truths: number of the building at each pixel, only of those that count
        buildings: number of buildings that count, those without a pixel included
        min_pixels: minimum areas of a proposal in pixels
    """
    sizes, truth_sizes = np.bincount(proposals.ravel(), minlength=1), np.bincount(truths.ravel(), minlength=1)
    both = np.flatnonzero((proposals > 0) & (truths > 0))
    pairs, overlaps = np.unique(
        proposals.ravel()[both].astype(np.int64) * len(truth_sizes) + truths.ravel()[both], return_counts=True
    )
    proposal, truth = np.divmod(pairs, len(truth_sizes))
    is_match = overlaps > MIN_IOU * (sizes[proposal] + truth_sizes[truth] - overlaps)
    matched = sizes[proposal[is_match]]
    counts = []
    for smallest in min_pixels:
        tp = int((matched >= smallest).sum())
        counts.append(Counts(tp, int((sizes[1:] >= smallest).sum()) - tp, buildings - tp))
    return counts
