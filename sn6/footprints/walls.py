"""Simplify the outlines of footprints, and the wall that two of them share only once.

The outlines of footprints that share walls are divided into arcs, between the points where three walls or more meet.
Both footprints get the same simplified arc, so that neither a gap nor an overlap appears.
"""

from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Bool, Float64, Int64, Shaped
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

MAX_VERTICES = 20_000  # more than any building has; simplifying the outlines of a map of noise would take seconds


@dataclass(frozen=True, eq=False)
class Walls:
    """The sides of polygons, in the order of their rings, with what they share.

    A wall is a side without its direction: two polygons that touch share walls, where both have all corners of them.

    Attributes:
        xy: start of each side
        point: number of this point; equal points have the same number
        following: index of the next side of the ring
        ring: of each side
        polygon_of_ring: index of the polygon; the shell of a polygon comes before its holes
        wall: number of the wall of each side
        sides_of_wall: number of sides, 2 where two polygons share it
        polygons: number of polygons
    """

    xy: Float64[np.ndarray, "n 2"]
    point: Int64[np.ndarray, " n"]
    following: Int64[np.ndarray, " n"]
    ring: Int64[np.ndarray, " n"]
    polygon_of_ring: Int64[np.ndarray, " rings"]
    wall: Int64[np.ndarray, " n"]
    sides_of_wall: Int64[np.ndarray, " walls"]
    polygons: int

    @property
    def polygon(self) -> Int64[np.ndarray, " n"]:
        """Return the polygon of each side."""
        return self.polygon_of_ring[self.ring]

    @property
    def is_shared(self) -> Bool[np.ndarray, " n"]:
        """Return whether another polygon has the same side."""
        return self.sides_of_wall[self.wall] > 1

    def neighbours(self) -> Int64[np.ndarray, "2 pairs"]:
        """Return the pairs of polygons that share a wall, once for each wall."""
        order = np.argsort(self.wall, kind="stable")
        sides = order[self.is_shared[order]]
        return self.polygon[sides].reshape(-1, 2).T

    def groups(self) -> Int64[np.ndarray, " polygons"]:
        """Return the number of the group of each polygon: those that walls connect."""
        one, other = self.neighbours()
        links = coo_array((np.ones(len(one)), (one, other)), shape=(self.polygons, self.polygons))
        return connected_components(links, directed=False)[1].astype(np.int64)

    def junctions(self) -> Bool[np.ndarray, " n"]:
        """Return whether more than two walls of the group of its polygon meet at the start of a side."""
        group = self.groups()[self.polygon]
        _, first = np.unique(self.wall, return_index=True)
        ends = np.concatenate([self.point[first], self.point[self.following[first]]])
        count = int(self.point.max(initial=0)) + 1
        meeting, walls = np.unique(np.concatenate([group[first]] * 2) * count + ends, return_counts=True)
        return walls[np.searchsorted(meeting, group * count + self.point)] > 2


def walls_of(polygons: Shaped[np.ndarray, "n"]) -> Walls:
    """Return the sides of polygons."""
    return connect(*corners_of(polygons), len(polygons))


def pixel_walls_of(polygons: Shaped[np.ndarray, "n"]) -> Walls:
    """Return the sides of polygons along pixel edges, divided into those of single pixels."""
    corners, ring, polygon_of_ring = corners_of(polygons)
    steps = corners[next_in_ring(ring)] - corners
    lengths = np.abs(steps).sum(axis=1).astype(np.int64)
    side = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(side)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    xy = corners[side] + np.sign(steps)[side] * place[:, None]
    return connect(xy, ring[side], polygon_of_ring, len(polygons))


def corners_of(
    polygons: Shaped[np.ndarray, "n"],
) -> tuple[Float64[np.ndarray, "corners 2"], Int64[np.ndarray, " corners"], Int64[np.ndarray, " rings"]]:
    """Return the corners of polygons, the ring of each corner, and the polygon of each ring."""
    rings, polygon_of_ring = shapely.get_rings(polygons, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    closes = np.append(ring[1:] != ring[:-1], True)[: len(ring)]
    return xy[~closes], ring[~closes].astype(np.int64), polygon_of_ring.astype(np.int64)


def next_in_ring(ring: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Return the index of the next point of the ring of each point."""
    following, differs = np.arange(1, len(ring) + 1), ring[1:] != ring[:-1]
    following[np.append(differs, True)[: len(ring)]] = np.flatnonzero(np.append(True, differs)[: len(ring)])
    return following


def connect(
    xy: Float64[np.ndarray, "n 2"],
    ring: Int64[np.ndarray, " n"],
    polygon_of_ring: Int64[np.ndarray, " rings"],
    polygons: int,
) -> Walls:
    """Return the walls between consecutive points of rings; arguments as the attributes of `Walls`."""
    (_, x_rank), (y, y_rank) = (np.unique(values, return_inverse=True) for values in xy.T)
    _, point = np.unique(x_rank * len(y) + y_rank, return_inverse=True)
    following = next_in_ring(ring)
    ends = np.sort(np.stack([point, point[following]]), axis=0)
    _, wall, sides = np.unique(ends[0] * len(xy) + ends[1], return_inverse=True, return_counts=True)
    return Walls(xy, point, following, ring, polygon_of_ring, wall, sides, polygons)


def simplify_outlines(polygons: Shaped[np.ndarray, "n"], tolerance: float, min_area: float) -> Shaped[np.ndarray, "n"]:
    """Simplify polygons along pixel edges by the algorithm of Douglas and Peucker (1973), shared walls once.

    A polygon is left unchanged where the simplified one would be invalid, empty, in parts or smaller than `min_area`:
    the score drops small polygons, and simplifying must not lose a building. So is one with more than `MAX_VERTICES`.

    Args:
        polygons: valid shapely Polygons with corners of pixels as vertices, which do not overlap
        tolerance: maximum distance of the new outline from the old corners in px; smaller holes may close
        min_area: px²
    """
    result = polygons.copy()
    touching = touching_polygons(polygons) if tolerance else np.empty(0, dtype=np.int64)
    alone = np.setdiff1d(np.arange(len(polygons)), touching)
    result[alone] = simplify_polygons(polygons[alone], tolerance, min_area)
    if len(touching):
        result[touching] = simplify_walls(polygons[touching], pixel_walls_of(polygons[touching]), tolerance, min_area)
    return result


def touching_polygons(polygons: Shaped[np.ndarray, "n"]) -> Int64[np.ndarray, " k"]:
    """Return the indices of the polygons along pixel edges that share walls, of those with few vertices, ascending."""
    few = np.flatnonzero(shapely.get_num_coordinates(polygons) <= MAX_VERTICES)
    one, other = shapely.STRtree(polygons[few]).query(polygons[few])  # by their bounding boxes
    near = few[np.unique(one[one != other])]
    walls = pixel_walls_of(polygons[near])
    return near[np.unique(walls.polygon[walls.is_shared])]


def simplify_polygons(polygons: Shaped[np.ndarray, "n"], tolerance: float, min_area: float) -> Shaped[np.ndarray, "n"]:
    """Simplify polygons that share no walls; arguments and result as for `simplify_outlines`."""
    # The result depends on the corner that a ring begins with: normalised, it is the leftmost one in every case.
    polygons = shapely.normalize(polygons)
    # GEOS repairs the polygons that this makes. Its topology-preserving simplification takes minutes on a polygon with
    # 100,000 holes, which the map of an untrained network may contain, and even this one takes seconds.
    simple = polygons.copy()
    few = shapely.get_num_coordinates(polygons) <= MAX_VERTICES
    simple[few] = shapely.simplify(polygons[few], tolerance, preserve_topology=False)
    return np.where(is_usable(simple, min_area), simple, polygons)


def is_usable(polygons: Shaped[np.ndarray, "n"], min_area: float) -> Bool[np.ndarray, " n"]:
    """Return which geometries are valid polygons of at least `min_area`, which are not empty."""
    areas = shapely.area(polygons)
    is_polygon = (shapely.get_type_id(polygons) == shapely.GeometryType.POLYGON) & shapely.is_valid(polygons)
    return is_polygon & (areas > 0) & (areas >= min_area)


def simplify_walls(
    polygons: Shaped[np.ndarray, "n"],
    walls: Walls,
    tolerance: float,
    min_area: float,
    exact: Bool[np.ndarray, "n"] | None = None,
) -> Shaped[np.ndarray, "n"]:
    """Simplify polygons arc by arc; where one would be unusable, its arcs stay, in its neighbours too.

    Args:
        polygons: valid shapely Polygons
        walls: of the polygons
        tolerance: as for `simplify_outlines`
        min_area: likewise
        exact: polygons that stay; None for none
    """
    exact = np.zeros(len(polygons), dtype=bool) if exact is None else exact.copy()
    arcs = arcs_of(walls)
    while True:
        stays = np.zeros(len(walls.sides_of_wall), dtype=bool)
        stays[walls.wall[exact[walls.polygon]]] = True
        simple = arcs.simplified(walls, np.where(stays[walls.wall[arcs.first]], 0.0, tolerance))
        simple[exact] = shapely.normalize(polygons[exact])
        unusable = ~exact & ~is_usable(simple, min_area)
        if not unusable.any():
            return simple
        exact |= unusable


@dataclass(frozen=True, eq=False)
class Arcs:
    """The parts of rings between junctions, in the order of the rings.

    Attributes:
        sides: the sides of all arcs, each followed by the side that starts at its end
        arc: of each of these
        first: first side of each arc
        order: order in which both polygons have the points of a shared arc in the same direction
    """

    sides: Int64[np.ndarray, " m"]
    arc: Int64[np.ndarray, " m"]
    first: Int64[np.ndarray, " arcs"]
    flipped: Bool[np.ndarray, " arcs"]

    def simplified(self, walls: Walls, tolerance: Float64[np.ndarray, " arcs"]) -> Shaped[np.ndarray, "polygons"]:
        """Return the polygons from simplified arcs: None where less than a triangle is left, no hole likewise.

        Args:
            walls: whose arcs these are
            tolerance: of each arc
        """
        order = reverse(self.arc, self.flipped)
        lines = shapely.linestrings(walls.xy[self.sides[order]], indices=self.arc)
        xy, arc = shapely.get_coordinates(
            shapely.simplify(lines, tolerance, preserve_topology=False), return_index=True
        )
        xy = xy[reverse(arc, self.flipped)]
        is_start = np.append(arc[1:] == arc[:-1], False)[: len(arc)]  # the last point of an arc starts the next one
        xy, ring = xy[is_start], walls.ring[self.first][arc[is_start]]
        corners = np.bincount(ring, minlength=len(walls.polygon_of_ring))
        is_left = corners > 2
        rings = shapely.linearrings(xy[is_left[ring]], indices=np.cumsum(is_left)[ring[is_left[ring]]] - 1)
        polygon, is_shell = walls.polygon_of_ring, np.append(True, np.diff(walls.polygon_of_ring) > 0)[: len(corners)]
        lost = np.zeros(walls.polygons, dtype=bool)
        lost[polygon[is_shell & ~is_left]] = True
        kept = ~lost[polygon[is_left]]
        result = np.full(walls.polygons, None, dtype=object)
        numbers, index = np.unique(polygon[is_left][kept], return_inverse=True)
        result[numbers] = shapely.normalize(shapely.polygons(rings[kept], indices=index))
        return result


def arcs_of(walls: Walls) -> Arcs:
    """Divide rings into arcs at their junctions; one without any begins and ends at its leftmost point."""
    is_end, count = walls.junctions(), len(walls.polygon_of_ring)
    without = np.bincount(walls.ring, is_end, count) == 0
    by_point = np.lexsort((walls.point, walls.ring))
    leftmost = by_point[np.searchsorted(walls.ring[by_point], np.arange(count))]
    is_end[leftmost[without]] = True

    index = np.arange(len(walls.ring))
    first_of_ring = np.searchsorted(walls.ring, np.arange(count))
    first_end = np.flatnonzero(is_end)[np.searchsorted(np.flatnonzero(is_end), first_of_ring)]
    sizes = np.bincount(walls.ring, minlength=count)
    offset = (index - first_of_ring[walls.ring] + (first_end - first_of_ring)[walls.ring]) % sizes[walls.ring]
    rolled = first_of_ring[walls.ring] + offset  # every ring begins at the end of an arc
    starts = np.flatnonzero(is_end[rolled])
    stops = np.append(starts[1:], len(rolled))
    sides = np.insert(rolled, stops, walls.following[rolled[stops - 1]])
    arc = np.repeat(np.arange(len(starts)), stops - starts + 1)
    points = walls.point[sides]
    ends = np.cumsum(stops - starts + 1)
    begin, end = points[ends - (stops - starts) - 1], points[ends - 1]
    second, last = points[ends - (stops - starts)], points[ends - 2]
    return Arcs(sides, arc, rolled[starts], (begin > end) | ((begin == end) & (second > last)))


def reverse(arc: Int64[np.ndarray, " m"], flipped: Bool[np.ndarray, " arcs"]) -> Int64[np.ndarray, " m"]:
    """Return the order of points that reverses those of some arcs."""
    position = np.arange(len(arc))
    return np.lexsort((np.where(flipped[arc], -position, position), arc))
