"""Counts of the polygon F1: against a plain loop over an STRtree and against rows of data frames."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec

import numpy as np
import shapely

from benchmarks.comparison import NotRun, Row, medians, require
from benchmarks.street_map import shifted, street_map
from sn6.footprints import Footprints
from sn6.metrics.matching import CHALLENGE_MIN_AREA, MIN_IOU, Counts, match_tile

Tile = tuple[np.ndarray, Footprints]  # buildings and proposals
Count = Callable[[np.ndarray, Footprints], Counts]


def rows(tiles: int = 100, buildings: int = 60, extra: int = 6, repeats: int = 3) -> Iterator[Row | NotRun]:
    """Yield a row for each peer, on tiles with a proposal for each of `buildings` and `extra` proposals elsewhere."""
    rng = np.random.default_rng(0)
    generated = [tile_of(rng, buildings, extra) for _ in range(tiles)]
    inputs = f"{tiles} tiles, {buildings} buildings, {buildings + extra} proposals each"
    yield compare(generated, inputs, "a loop over an STRtree", loop_counts, 5 * repeats, min_ratio=1)
    if find_spec("geopandas") is None:
        yield NotRun("polygon F1, data frames", "geopandas is not installed")
    else:
        yield compare(generated, inputs, "geopandas, row by row", frame_counts, repeats, min_ratio=60)


def tile_of(rng: np.random.Generator, buildings: int, extra: int) -> Tile:
    """Draw buildings, and proposals near them and elsewhere."""
    truth = street_map(rng, buildings)
    near, elsewhere = shifted(rng, truth), shifted(rng, street_map(rng, extra))
    polygons = np.concatenate([near.polygons, elsewhere.polygons])
    return truth, Footprints(polygons, np.concatenate([near.confidences, elsewhere.confidences]))


def compare(tiles: list[Tile], inputs: str, peer: str, count: Count, repeats: int, min_ratio: float) -> Row:
    """Return the row of one peer."""
    for number, tile in enumerate(tiles):
        ours, theirs = sn6_counts(*tile), count(*tile)
        require(ours == theirs, f"polygon F1, tile {number}: sn6 counts {ours}, {peer} counts {theirs}")
    implementations = {
        "ours": lambda: [sn6_counts(*tile) for tile in tiles],
        "theirs": lambda: [count(*tile) for tile in tiles],
    }
    seconds = medians(implementations, repeats)
    agreement = "counts of each tile equal"
    return Row("polygon F1", inputs, seconds["ours"], peer, seconds["theirs"], agreement, min_ratio)


def sn6_counts(truth: np.ndarray, proposed: Footprints) -> Counts:
    """Count the matches of one tile with sn6."""
    return match_tile(truth, proposed.polygons, proposed.confidences).counts


def loop_counts(truth: np.ndarray, proposed: Footprints, min_area: float = CHALLENGE_MIN_AREA) -> Counts:
    """Apply the rules proposal by proposal, each to the buildings that a tree finds near it."""
    buildings = [polygon for polygon in truth if polygon.area >= min_area]
    tree, free, tp, fp = shapely.STRtree(buildings), set(range(len(buildings))), 0, 0
    for number in np.argsort(-proposed.confidences, kind="stable"):
        proposal = proposed.polygons[number]
        if proposal.area < min_area:
            continue
        near = [i for i in sorted(tree.query(proposal)) if i in free]
        best = max(near, key=lambda i, proposal=proposal: iou(buildings[i], proposal), default=None)
        if best is not None and iou(buildings[best], proposal) > MIN_IOU:
            free.remove(best)
            tp += 1
        else:
            fp += 1
    return Counts(tp, fp, len(free))


def frame_counts(truth: np.ndarray, proposed: Footprints) -> Counts:
    """Apply the rules to data frames, row by row, as scorers of files of footprints do."""
    from geopandas import GeoDataFrame

    free = GeoDataFrame(geometry=truth)
    free = free[free.area >= CHALLENGE_MIN_AREA]
    proposals = GeoDataFrame({"confidence": proposed.confidences}, geometry=proposed.polygons)
    proposals = proposals[proposals.area >= CHALLENGE_MIN_AREA].sort_values(
        "confidence", ascending=False, kind="stable"
    )
    tp = fp = 0
    for _, proposal in proposals.iterrows():
        near = free.iloc[free.sindex.query(proposal.geometry)].sort_index()
        near = near.assign(iou=[iou(building.geometry, proposal.geometry) for _, building in near.iterrows()])
        if len(near) and near.iou.max() > MIN_IOU:
            free = free.drop(near.iou.idxmax())
            tp += 1
        else:
            fp += 1
    return Counts(tp, fp, len(free))


def iou(one: shapely.Polygon, other: shapely.Polygon) -> float:
    """Compute the intersection over union of two polygons."""
    overlap = one.intersection(other).area
    return overlap / (one.area + other.area - overlap)
