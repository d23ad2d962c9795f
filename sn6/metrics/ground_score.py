"""Score polygons without tiles in one pass over the ground; the bootstrap resamples squares of ground."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import shapely
from jaxtyping import Float64, Int64, Shaped

from sn6.footprints import Footprints, Labels
from sn6.footprints.ground import Corner
from sn6.metrics.matched_polygons import MatchedPolygons, match_polygons
from sn6.metrics.scorecard import ScoredTile, scorecard, summarize


def score_ground(
    truth: Labels,
    proposed: Footprints,
    origin: Corner,
    min_area: float,
    min_iou: float,
    block_size: float,
    resamples: int,
) -> dict[str, Any]:
    """Compute the score of polygons in m in all its breakdowns, as `scorecard` does.

    Args:
        truth: buildings, at least one of at least `min_area`
        proposed: proposals, with confidences that are NaN where unknown
        origin: easting and northing of their coordinates (0, 0), so that squares are at multiples of their size
        min_area: m²; smaller polygons do not count
        min_iou: the IoU of a match is above it
        block_size: edge length of a square in m
        resamples: of the bootstrap
    """
    matched = match_polygons(truth, proposed, 1.0, min_area, min_iou)
    return scorecard([*score_squares(matched, origin, block_size)], {}, {}, block_size, resamples, min_area, min_iou)


def score_squares(matched: MatchedPolygons, origin: Corner, block_size: float) -> Iterator[ScoredTile]:
    """Yield the squares of ground that have a polygon that counts; the sums over them are those of all polygons.

    A building is in the square of its centroid, a true positive in that of the building that it matches, a false
    positive in that of its own centroid.

    Args:
        matched: polygons in m from the origin
        origin: easting and northing
        block_size: edge length of a square in m
    """
    match = matched.match
    truths, proposals = np.flatnonzero(match.truths_counted), np.flatnonzero(match.proposals_counted)
    centroids = centroids_of(matched.truth.polygons), centroids_of(matched.proposed.polygons)
    is_pair = match.true_positives
    centroids[1][is_pair] = centroids[0][match.truth_of_proposal[is_pair]]
    places = np.concatenate([centroids[0][truths], centroids[1][proposals]]) + origin
    squares, square = np.unique(np.floor(places / block_size), axis=0, return_inverse=True)
    square_of_truth, square_of_proposal = np.split(square.reshape(-1), [len(truths)])
    truths_of = indices_of(truths, square_of_truth, len(squares))
    proposals_of = indices_of(proposals, square_of_proposal, len(squares))
    for number, (column, row) in enumerate(squares.astype(int).tolist()):
        part = matched.part(truths_of[number], proposals_of[number])
        centre = (column + 0.5) * block_size, (row + 0.5) * block_size
        yield summarize(f"{column}_{row}", centre, part, valid=None, pixel_size=1.0)


def centroids_of(polygons: Shaped[np.ndarray, "n"]) -> Float64[np.ndarray, "n 2"]:
    """Return the centroids of polygons."""
    return shapely.get_coordinates(shapely.centroid(polygons)).reshape(-1, 2)


def indices_of(
    indices: Int64[np.ndarray, "n"], groups: Int64[np.ndarray, "n"], number: int
) -> list[Int64[np.ndarray, "_"]]:
    """Return the indices of each group from 0 to `number` - 1, in their order."""
    order = np.argsort(groups, kind="stable")
    return np.split(indices[order], np.searchsorted(groups[order], np.arange(1, number)))
