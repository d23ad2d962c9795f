"""Compute a score overall and in its breakdowns, by area, look direction, nodata, looks and more, as in score.json."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import harmonic_mean
from typing import Any

import numpy as np
import shapely
from jaxtyping import Bool, Float64, Int64, Shaped

from sn6.footprints import Footprints, Labels
from sn6.footprints.ground import Corner
from sn6.metrics.average_precision import average_precision
from sn6.metrics.breakdown import (
    Rates,
    bin_names,
    bins,
    bootstrap_f1,
    by_building,
    by_group,
    by_proposal,
    rates,
    spatial_blocks,
)
from sn6.metrics.instances import InstanceCounts
from sn6.metrics.looks import NAMES, Looks
from sn6.metrics.matched_polygons import MatchedPolygons, match_polygons
from sn6.metrics.matching import MIN_AREA, MIN_IOU, Counts, counted_area

AREAS = (20, 40, 80, 160, 320, 640)  # m²
HEIGHTS = (0, 3, 6, 12, 24, 48)  # m
LEVEL = 0.95  # of the confidence interval


@dataclass(frozen=True, eq=False)
class Properties:
    """The properties of the buildings of a tile that count, or of its proposals, by which the score is broken down.

    Attributes:
        areas: m²
        heights: m, NaN where unknown
        nodata_bins: distance to nodata as an index into `sn6.metrics.nodata_distance.NAMES`; None where unknown
        look_bins: number of looks as an index into `sn6.metrics.looks.NAMES`, -1 for none of them; None where unknown
        matched: whether each is part of a matched pair
    """

    areas: Float64[np.ndarray, "n"]
    heights: Float64[np.ndarray, "n"]
    nodata_bins: Int64[np.ndarray, "n"] | None
    look_bins: Int64[np.ndarray, "n"] | None
    matched: Bool[np.ndarray, "n"]


@dataclass(frozen=True, eq=False)
class ScoredTile:
    """A tile, or a square of ground, after matching.

    Attributes:
        image_id: of the tile
        corner: of the tile, None where unknown; of a square of ground its centre
        counts: true positives, false positives, false negatives
        instances: what is counted of the buildings one by one
        boundary_iou_sum: sum of the boundary IoU of the matched pairs
        buildings: properties of the ground truth
        proposals: properties of the proposals
        confidences: of the proposals, NaN where unknown
    """

    image_id: str
    corner: Corner | None
    counts: Counts
    instances: InstanceCounts
    boundary_iou_sum: float
    buildings: Properties
    proposals: Properties
    confidences: Float64[np.ndarray, "n"]


def score_tile(
    image_id: str,
    corner: Corner | None,
    truth: Labels,
    proposed: Footprints,
    valid: Bool[np.ndarray, "h w"] | None,
    pixel_size: float,
    looks: Looks | None = None,
) -> ScoredTile:
    """Match the proposals of a tile with its ground truth.

    Args:
        image_id: of the tile
        corner: of the tile, None where unknown
        truth: ground truth buildings
        proposed: proposals
        valid: false on nodata; None where unknown
        pixel_size: m
        looks: of the prediction; None where each tile was predicted by itself
    """
    matched = match_polygons(truth, proposed, pixel_size, counted_area(pixel_size))
    return summarize(image_id, corner, matched, valid, pixel_size, looks)


def summarize(
    image_id: str,
    corner: Corner | None,
    matched: MatchedPolygons,
    valid: Bool[np.ndarray, "h w"] | None,
    pixel_size: float,
    looks: Looks | None = None,
) -> ScoredTile:
    """Count the matched polygons of a tile or a square of ground; arguments as of `score_tile`."""
    truth, proposed, match = matched.truth, matched.proposed, matched.match
    buildings, proposals = match.truths_counted, match.proposals_counted

    def look_bins(polygons: Shaped[np.ndarray, "n"]) -> Int64[np.ndarray, "n"] | None:
        return None if looks is None or corner is None else looks.bins(polygons, corner, pixel_size)

    of_buildings, of_proposals = truth.polygons[buildings], proposed.polygons[proposals]
    return ScoredTile(
        image_id,
        corner,
        match.counts,
        matched.instances.counts(match),
        float(matched.boundary_ious.sum()),
        Properties(
            shapely.area(of_buildings) * pixel_size**2,
            truth.heights[buildings],
            nodata_bins(of_buildings, valid, pixel_size),
            look_bins(of_buildings),
            ~match.false_negatives[buildings],
        ),
        Properties(
            shapely.area(of_proposals) * pixel_size**2,
            np.full(len(of_proposals), np.nan),
            nodata_bins(of_proposals, valid, pixel_size),
            look_bins(of_proposals),
            match.true_positives[proposals],
        ),
        proposed.confidences[proposals],
    )


def nodata_bins(
    polygons: Shaped[np.ndarray, "n"], valid: Bool[np.ndarray, "h w"] | None, pixel_size: float
) -> Int64[np.ndarray, "n"] | None:
    """Return `distance_bin` of polygons; None where nodata is unknown."""
    if valid is None:
        return None
    from sn6.metrics.nodata_distance import distance_bin  # imports SciPy, which takes longer than a small score

    return distance_bin(polygons, valid, pixel_size)


def scorecard(
    tiles: Sequence[ScoredTile],
    strips: Mapping[str, str],
    look_directions: Mapping[str, str | None],
    block_size: float,
    resamples: int,
    min_area: float = MIN_AREA,
    min_iou: float = MIN_IOU,
) -> dict[str, Any]:
    """Compute the score in all its breakdowns, as JSON values; one that nothing is known about is empty or None.

    Args:
        tiles: at least one
        strips: image id → strip, where known
        look_directions: image id → "north" or "south", the side that the tile was imaged from, where known
        block_size: edge length of a spatial block in m
        resamples: of the bootstrap
        min_area: m²; smaller polygons did not count
        min_iou: the IoU of the matched pairs is above it
    """
    counts = [tile.counts for tile in tiles]
    total, instances = sum(counts, Counts()), sum((tile.instances for tile in tiles), InstanceCounts())
    boundary_iou = sum(tile.boundary_iou_sum for tile in tiles) / max(total.tp, 1)
    areas = (min_area, *(area for area in AREAS if area > min_area))
    return {
        "overall": rates(total),
        "instances": instances.scores(total) | {"boundary_iou": boundary_iou, ap_key(min_iou): ap_of(tiles)},
        "by_neighbours": {"touching": rates(instances.touching), "alone": rates(total - instances.touching)},
        "by_area": two_sided(tiles, bin_names(areas, "m2"), lambda side: bins(side.areas, areas)),
        "by_height": by_height(tiles),
        "by_look_direction": by_group([look_directions.get(tile.image_id) for tile in tiles], counts),
        "by_nodata_distance": by_nodata_distance(tiles),
        "by_looks": by_looks(tiles),
        "by_strip": by_group([strips.get(tile.image_id) for tile in tiles], counts),
        "interval": interval(tiles, block_size, resamples),
    }


def ap_key(min_iou: float) -> str:
    """Return the name of the average precision of pairs whose IoU is above `min_iou`: "ap50" for 0.5."""
    return f"ap{100 * min_iou:g}"


def ap_of(tiles: Sequence[ScoredTile]) -> float | None:
    """Compute the average precision of the proposals of all tiles together; None without confidences."""
    confidences = np.concatenate([tile.confidences for tile in tiles])
    if np.isnan(confidences).any():
        return None
    matched = np.concatenate([tile.proposals.matched for tile in tiles])
    return average_precision(confidences, matched, sum(len(tile.buildings.matched) for tile in tiles))


def by_height(tiles: Sequence[ScoredTile]) -> dict[str, Rates]:
    """Compute the recall by height of the building; proposals have no height."""
    heights = np.concatenate([tile.buildings.heights for tile in tiles])
    if np.isnan(heights).all():
        return {}
    names = [*bin_names(HEIGHTS, "m"), "unknown"]
    matched = np.concatenate([tile.buildings.matched for tile in tiles])
    return by_building(names, np.where(np.isnan(heights), len(HEIGHTS), bins(heights, HEIGHTS)), matched)


def by_nodata_distance(tiles: Sequence[ScoredTile]) -> dict[str, Rates]:
    """Compute the recall by the building's distance to nodata, and the precision by that of the proposal."""
    known = [tile for tile in tiles if tile.buildings.nodata_bins is not None]
    if not known:
        return {}
    from sn6.metrics import nodata_distance

    def bin_of(side: Properties) -> Int64[np.ndarray, "_"]:
        assert side.nodata_bins is not None
        return side.nodata_bins

    return two_sided(known, nodata_distance.NAMES, bin_of)


def by_looks(tiles: Sequence[ScoredTile]) -> dict[str, Rates]:
    """Compute the recall by the number of looks at the building, and the precision by that of looks at the proposal.

    F1 is their harmonic mean: nearly all pairs are in one bin, as a proposal covers most of the building it matches.
    """
    known = [tile for tile in tiles if tile.buildings.look_bins is not None]
    if not known:
        return {}

    def bin_of(side: Properties) -> Int64[np.ndarray, "_"]:
        assert side.look_bins is not None
        return side.look_bins

    figures = two_sided(known, NAMES, bin_of)
    return {name: one | {"f1": harmonic_mean((one["precision"], one["recall"]))} for name, one in figures.items()}


def two_sided(
    tiles: Sequence[ScoredTile], names: Sequence[str], bin_of: Callable[[Properties], Int64[np.ndarray, "_"]]
) -> dict[str, Rates]:
    """Compute the recall by a property of the buildings and the precision by the same property of the proposals."""

    def pooled(sides: Sequence[Properties]) -> tuple[Int64[np.ndarray, "_"], Bool[np.ndarray, "_"]]:
        return np.concatenate([bin_of(side) for side in sides]), np.concatenate([side.matched for side in sides])

    recalls = by_building(names, *pooled([tile.buildings for tile in tiles]))
    precisions = by_proposal(names, *pooled([tile.proposals for tile in tiles]))
    return {name: recalls[name] | precisions[name] for name in names}


def interval(tiles: Sequence[ScoredTile], block_size: float, resamples: int) -> dict[str, Any] | None:
    """Compute the interval of the overall F1; None where a corner is unknown or all tiles are in one spatial block."""
    corners = [tile.corner for tile in tiles if tile.corner is not None]
    if len(corners) < len(tiles):
        return None
    blocks = spatial_blocks(np.array(corners, dtype=np.float64), block_size)
    if not blocks.any():
        return None
    table = np.array([(tile.counts.tp, tile.counts.fp, tile.counts.fn) for tile in tiles])
    low, high = bootstrap_f1(table, blocks, resamples, LEVEL)
    return {"f1": [low, high], "level": LEVEL, "spatial_blocks": int(blocks.max()) + 1, "resamples": resamples}


def by_fold(
    tiles: Sequence[ScoredTile], folds: Mapping[str, int], block_size: float, resamples: int
) -> dict[str, dict[str, Any]]:
    """Compute the score of the tiles of each fold, and of all: rates with those by neighbours, and the interval.

    Args:
        tiles: of all folds
        folds: image id → fold
        block_size: edge length of a spatial block in m
        resamples: of the bootstrap
    """
    groups = {str(fold): [one for one in tiles if folds[one.image_id] == fold] for fold in sorted(set(folds.values()))}
    result = {}
    for name, group in (groups | {"pooled": list(tiles)}).items():
        total = sum((one.counts for one in group), Counts())
        touching = sum((one.instances for one in group), InstanceCounts()).touching
        found = interval(group, block_size, resamples)
        result[name] = {
            "tiles": len(group),
            **rates(total),
            "touching_f1": touching.f1,
            "alone_f1": (total - touching).f1,
            "interval": found["f1"] if found else None,
        }
    return result
