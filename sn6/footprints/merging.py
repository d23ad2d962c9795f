"""Footprints of tiles that lie over one another to one footprint a building."""

import numpy as np
import shapely
from jaxtyping import Bool, Float64, Int64, Shaped
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SAME = 0.5  # of the smaller footprint: two that share more are one building


def best_of_overlapping(
    polygons: Shaped[np.ndarray, "n"],
    confidences: Float64[np.ndarray, "n"],
    tiles: Int64[np.ndarray, "n"],
    cut: Bool[np.ndarray, "n"],
) -> Int64[np.ndarray, "kept"]:
    """The footprints that stay when of each building the best one does.

    One after another takes its place: whole ones before those that a tile's edge cuts, then in order of falling
    confidence. Those of other tiles that share more than half of the smaller one's area with it are dropped: so the
    same building is not there twice, and a row of houses is there as one block or house by house, not both.

    Args:
        polygons: valid shapely Polygons in one CRS
        confidences: of each
        tiles: that each is from; footprints of one tile never drop one another
        cut: whether the edge of its tile cuts it

    Returns:
        Their indices, rising.
    """
    one, other = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    apart = (one < other) & (tiles[one] != tiles[other])
    one, other = one[apart], other[apart]
    areas = shapely.area(polygons)
    shared = shapely.area(shapely.intersection(polygons[one], polygons[other]))
    same = shared > SAME * np.minimum(areas[one], areas[other])
    one, other = np.concatenate([one[same], other[same]]), np.concatenate([other[same], one[same]])
    rivals = coo_array((np.ones(len(one)), (one, other)), shape=(len(polygons),) * 2).tocsr()
    dropped = np.zeros(len(polygons), dtype=bool)
    for best in np.lexsort((-confidences, cut)):
        if not dropped[best]:
            dropped[rivals.indices[rivals.indptr[best] : rivals.indptr[best + 1]]] = True
    return np.flatnonzero(~dropped)


def joined_halves(
    polygons: Shaped[np.ndarray, "n"], confidences: Float64[np.ndarray, "n"], cut: Bool[np.ndarray, "n"]
) -> tuple[Shaped[np.ndarray, "m"], Float64[np.ndarray, "m"], Int64[np.ndarray, "m"]]:
    """Footprints that the edge between two tiles cuts, in one where they share a stretch of it or overlap.

    Args:
        polygons: valid shapely Polygons in one CRS
        confidences: of each
        cut: whether the edge of its tile cuts it

    Returns:
        The footprints; their confidences, the mean by area; the most confident part of each.
    """
    halves = np.flatnonzero(cut)
    one, other = halves[shapely.STRtree(polygons[halves]).query(polygons[halves], predicate="intersects")]
    meet = (one < other) & (shapely.length(shapely.intersection(polygons[one], polygons[other])) > 0)
    links = coo_array((np.ones(meet.sum()), (one[meet], other[meet])), shape=(len(polygons),) * 2)
    count, group = connected_components(links, directed=False)
    areas = shapely.area(polygons)
    order = np.lexsort((-confidences, group))
    first = order[np.searchsorted(group[order], np.arange(count))]
    joined = polygons[first].copy()
    for number in np.flatnonzero(np.bincount(group, minlength=count) > 1):
        joined[number] = shapely.union_all(polygons[group == number])
    means = np.bincount(group, areas * confidences, count) / np.bincount(group, areas, count)
    return joined, means, first
