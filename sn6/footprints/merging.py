"""Merge the footprints of overlapping tiles into one footprint per building."""

import numpy as np
import shapely
from jaxtyping import Bool, Float64, Int64, Shaped
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SAME_BUILDING = 0.5  # fraction of the smaller footprint; two that share more are one building


def suppress_overlaps(
    polygons: Shaped[np.ndarray, "n"],
    confidences: Float64[np.ndarray, "n"],
    tiles: Int64[np.ndarray, "n"],
    cut: Bool[np.ndarray, "n"],
) -> Int64[np.ndarray, "kept"]:
    """Return the indices of the best footprint of each building, in ascending order (non-maximum suppression).

    Footprints that no tile edge cuts come before those that one cuts, then they are ordered by decreasing confidence.
    Each one that is kept drops the footprints of other tiles that share more than half of the smaller area with it. So
    a building is kept once, and a row of houses either as one block or house by house.

    Args:
        polygons: valid shapely Polygons in one CRS
        confidences: of each polygon
        tiles: number of each polygon's tile; footprints of one tile never drop each other
        cut: whether the edge of its tile cuts the polygon
    """
    one, other = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    apart = (one < other) & (tiles[one] != tiles[other])
    one, other = one[apart], other[apart]
    areas = shapely.area(polygons)
    shared = shapely.area(shapely.intersection(polygons[one], polygons[other]))
    same = shared > SAME_BUILDING * np.minimum(areas[one], areas[other])
    one, other = np.concatenate([one[same], other[same]]), np.concatenate([other[same], one[same]])
    rivals = coo_array((np.ones(len(one)), (one, other)), shape=(len(polygons),) * 2).tocsr()
    dropped = np.zeros(len(polygons), dtype=bool)
    for best in np.lexsort((-confidences, cut)):
        if not dropped[best]:
            dropped[rivals.indices[rivals.indptr[best] : rivals.indptr[best + 1]]] = True
    return np.flatnonzero(~dropped)


def join_halves(
    polygons: Shaped[np.ndarray, "n"], confidences: Float64[np.ndarray, "n"], cut: Bool[np.ndarray, "n"]
) -> tuple[Shaped[np.ndarray, "m"], Float64[np.ndarray, "m"], Int64[np.ndarray, "m"]]:
    """Join footprints that the edge between two tiles cuts, where they share part of that edge or overlap.

    Args:
        polygons: valid shapely Polygons in one CRS
        confidences: of each polygon
        cut: whether the edge of its tile cuts the polygon

    Returns:
        The footprints; their confidences, averaged by area; the index of the most confident part of each.
    """
    halves = np.flatnonzero(cut)
    one, other = halves[shapely.STRtree(polygons[halves]).query(polygons[halves], predicate="intersects")]
    touching = (one < other) & (shapely.length(shapely.intersection(polygons[one], polygons[other])) > 0)
    links = coo_array((np.ones(touching.sum()), (one[touching], other[touching])), shape=(len(polygons),) * 2)
    count, group = connected_components(links, directed=False)
    areas = shapely.area(polygons)
    order = np.lexsort((-confidences, group))
    first = order[np.searchsorted(group[order], np.arange(count))]
    joined = polygons[first].copy()
    for number in np.flatnonzero(np.bincount(group, minlength=count) > 1):
        joined[number] = shapely.union_all(polygons[group == number])
    means = np.bincount(group, areas * confidences, count) / np.bincount(group, areas, count)
    return joined, means, first
