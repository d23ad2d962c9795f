"""Compute the average precision of proposals that are ranked by confidence over all tiles."""

import numpy as np
from jaxtyping import Bool, Float


def average_precision(
    confidences: Float[np.ndarray, "proposals"], matched: Bool[np.ndarray, "proposals"], buildings: int
) -> float:
    """Return the area under the curve of precision over recall: AP = Σ (Rᵢ − Rᵢ₋₁) · max {Pⱼ: j ≥ i}.

    Pᵢ and Rᵢ are the precision and recall of all proposals whose confidence is at least the i-th highest one; R₀ = 0.
    Proposals of equal confidence enter together, so the order of tiles has no effect. Proposals are matched within
    their tile in the order of confidence, so whether one matches does not depend on those below it. With matches above
    an IoU of 0.5 it is AP50. Footprints that the operating point drops have no part in it.

    Args:
        confidences: of all proposals that count, over all tiles
        matched: whether each is a true positive
        buildings: number of buildings that count, over all tiles

    Returns:
        From 0 to 1; 0 where there are no buildings.

    Source: Everingham, Van Gool, Williams, Winn, Zisserman 2010, The PASCAL Visual Object Classes Challenge, with the
    area under all points of the curve, as in that challenge since 2010, in place of 11 of them.

    Example:
        >>> average_precision(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, False, True]), buildings=4)
        0.375
    """
    if not buildings or not len(confidences):
        return 0.0
    order = np.argsort(-confidences, kind="stable")
    tp, rank = matched[order].cumsum(), np.arange(1, len(order) + 1)
    last = np.append(np.diff(confidences[order]) != 0, True)  # of the proposals of equal confidence
    precision, recall = (tp / rank)[last], tp[last] / buildings
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0) * best).sum())
