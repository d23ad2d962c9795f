"""Regularise footprints: right angles and angles of 45° along the main direction of each building.

The points at which walls meet are moved, all at once: each wall to the nearest multiple of 45° from the main direction,
near its own middle, so that every building keeps its area. That is a sparse system of linear equations, by least
squares. As buildings that touch have the points of their common wall in common, they go on sharing it.
"""

from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Bool, Complex128, Float64, Int64, Shaped
from scipy.sparse import coo_array, csc_array, csr_array, vstack
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve

from sn6.footprints.walls import Walls, is_usable, simplify_walls, walls_of

TOLERANCE = 1.0  # m, of the outlines before their walls are turned
DIRECTION_TOLERANCE = 0.75  # m, of the outlines that give the main direction
MIN_WALL = 1.5  # m; a shorter wall becomes a corner
MIN_DIAGONAL = 3.0  # m; likewise one at 45°
SAME_DIRECTION = np.deg2rad(10)  # buildings that touch and differ by less have one main direction
MIN_STRENGTH = 0.3  # of the main direction: 1 where all walls are at right angles, 0 for a circle
MAX_CORNERS = 300  # of what is regularised: the equation of an area has a factor for each corner
MIN_IOU = 0.85  # with the footprint as it was
MAX_AREA_CHANGE = 0.02
MAX_OVERLAP = 0.01  # m²; what more two buildings may overlap than before
SNAP = 1e-6  # m; a corner this near to a wall of another building is on it
ROUNDS = 4  # in which a building that does not fit stays alone; then all that touch it stay too
SOLUTIONS = 4  # of the equations, whose areas are linear
RIGHT, FIRM, LOOSE = 1e3, 1e2, 0.03  # weights of angles, of areas and of single points; 1 is that of a metre of wall


def regularize(polygons: Shaped[np.ndarray, "n"]) -> Shaped[np.ndarray, "n"]:
    """Return the regularised footprints; one that does not fit stays as it is, with the walls that it shares.

    A footprint stays if it has no main direction or more than `MAX_CORNERS` corners, or if the new one had an IoU with
    it under `MIN_IOU`, another area than it (by `MAX_AREA_CHANGE`), were invalid, or overlapped another building more.

    Args:
        polygons: valid shapely Polygons in metres; corners of those that share walls are equal
    """
    if not len(polygons):
        return polygons
    origin = np.maximum(np.floor(shapely.total_bounds(polygons)[:2]), 0)  # what stays keeps all of its digits
    polygons = noded(shapely.transform(polygons, lambda xy: xy - origin))
    walls = walls_of(simplify_walls(polygons, walls_of(polygons), DIRECTION_TOLERANCE, 0.0))
    axes = axes_of(walls)
    stays = (np.abs(axes) < MIN_STRENGTH) | (np.bincount(walls.polygon, minlength=walls.polygons) > MAX_CORNERS)
    direction, groups = directions(walls, axes, stays), walls_of(polygons).groups()
    result, doubtful, attempts = polygons.copy(), np.ones(len(polygons), dtype=bool), 0
    while doubtful.any():
        result[doubtful] = turned(polygons[doubtful], direction[doubtful], stays[doubtful])
        failing = misfits(polygons, result, stays)
        attempts += 1
        doubtful = np.isin(groups, groups[failing])
        stays |= failing if attempts < ROUNDS else doubtful
    return shapely.transform(result, lambda xy: xy + origin)


def noded(polygons: Shaped[np.ndarray, "n"]) -> Shaped[np.ndarray, "n"]:
    """Return polygons with the corners of others on their walls as corners of their own."""
    one, other = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    one, other = one[one != other], other[one != other]
    touching, index = np.unique(one, return_inverse=True)
    xy, neighbour = shapely.get_coordinates(polygons[other], return_index=True)
    order = np.argsort(index[neighbour], kind="stable")
    result = polygons.copy()
    corners = shapely.multipoints(xy[order], indices=index[neighbour][order])
    result[touching] = shapely.snap(polygons[touching], corners, SNAP)
    return np.where(is_usable(result, 0.0), result, polygons)


def axes_of(walls: Walls) -> Complex128[np.ndarray, " polygons"]:
    """Return the main direction of each polygon, modulo 90°: s · exp(4iθ) with the angle θ and the strength s.

    Sides count by the squares of their lengths: the angle of a long one is more exact.
    """
    steps = (walls.xy[walls.following] - walls.xy) @ np.array([1, 1j])
    lengths = np.abs(steps)
    turns = steps**4 / np.maximum(lengths, 1e-12) ** 2
    sums = [np.bincount(walls.polygon, values, walls.polygons) for values in (turns.real, turns.imag, lengths**2)]
    return (sums[0] + 1j * sums[1]) / np.maximum(sums[2], 1e-12)


def directions(
    walls: Walls, axes: Complex128[np.ndarray, " polygons"], stays: Bool[np.ndarray, " polygons"]
) -> Float64[np.ndarray, " polygons"]:
    """Return the main direction of each polygon in rad, the same one for those that touch and differ little.

    From the largest polygon on, each takes in its neighbours, and their neighbours, that differ little from it.
    """
    one, other = walls.neighbours()
    links = coo_array((np.ones(2 * len(one)), (np.append(one, other), np.append(other, one))), shape=(len(axes),) * 2)
    near, areas = links.tocsr(), polygon_areas(walls, walls.xy)
    result = np.angle(axes) / 4
    free = ~stays
    for seed in np.argsort(-areas, kind="stable").tolist():
        if not free[seed]:
            continue
        members, free[seed] = [seed], False
        for member in members:
            for neighbour in near.indices[near.indptr[member] : near.indptr[member + 1]].tolist():
                if free[neighbour] and abs(np.angle(axes[neighbour] / axes[seed])) < 4 * SAME_DIRECTION:
                    members.append(neighbour)
                    free[neighbour] = False
        result[members] = np.angle((axes[members] * areas[members]).sum()) / 4
    return result


def polygon_areas(walls: Walls, xy: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, " polygons"]:
    """Return the area of each polygon, with its sides from `xy`."""
    x, y = xy.T
    x1, y1 = xy[walls.following].T
    rings = np.bincount(walls.ring, (x * y1 - x1 * y) / 2, len(walls.polygon_of_ring))
    is_shell = np.append(True, np.diff(walls.polygon_of_ring) > 0)[: len(rings)]
    return np.bincount(walls.polygon_of_ring, np.where(is_shell, 1, -1) * np.abs(rings), walls.polygons)


def turned(
    polygons: Shaped[np.ndarray, "n"], direction: Float64[np.ndarray, " n"], stays: Bool[np.ndarray, " n"]
) -> Shaped[np.ndarray, "n"]:
    """Return the polygons with their walls turned, None where nothing is left of one.

    Args:
        polygons: groups of polygons that touch
        direction: main direction of each in rad
        stays: polygons that are not changed
    """
    walls = walls_of(simplify_walls(polygons, walls_of(polygons), TOLERANCE, 0.0, stays))
    plan = plan_of(walls, direction, stays)
    xy = solve(walls, plan, shapely.area(polygons))[plan.corner]  # of the start of each side
    differs = plan.corner != plan.corner[walls.following]
    is_corner = differs & ~plan.is_flat[plan.corner]
    size = np.bincount(walls.ring, is_corner, len(walls.polygon_of_ring))
    is_shell = np.append(True, np.diff(walls.polygon_of_ring) > 0)[: len(size)]
    lost = np.bincount(walls.polygon_of_ring, is_shell & (size < 3), walls.polygons) > 0
    kept = (size > 2) & ~lost[walls.polygon_of_ring]
    chosen = is_corner & kept[walls.ring]
    rings = shapely.linearrings(xy[chosen], indices=(np.cumsum(kept) - 1)[walls.ring[chosen]])
    numbers, index = np.unique(walls.polygon_of_ring[kept], return_inverse=True)
    result = np.full(len(polygons), None, dtype=object)
    result[numbers] = shapely.polygons(rings, indices=index)
    return np.where(stays, polygons, result)


@dataclass(frozen=True, eq=False)
class TurningPlan:
    """What becomes of walls and of the points at which they meet.

    Attributes:
        corner: number of the corner that the start of each side becomes
        place: of each corner before
        is_fixed: whether a corner does not move
        is_flat: whether a corner has two walls, in line with each other
        first: a side of each wall that is turned
        normal: unit vector at right angles to each of these, after it
    """

    corner: Int64[np.ndarray, " n"]
    place: Float64[np.ndarray, "corners 2"]
    is_fixed: Bool[np.ndarray, " corners"]
    is_flat: Bool[np.ndarray, " corners"]
    first: Int64[np.ndarray, " walls"]
    normal: Float64[np.ndarray, "walls 2"]


def plan_of(walls: Walls, direction: Float64[np.ndarray, " n"], stays: Bool[np.ndarray, " n"]) -> TurningPlan:
    """Give each wall its direction, and make short walls corners; arguments as for `turned`."""
    order = np.lexsort((-polygon_areas(walls, walls.xy)[walls.polygon], walls.wall))
    first = order[np.append(True, np.diff(walls.wall[order]) > 0)[: len(order)]]  # a shared wall: of the larger one
    steps = (walls.xy[walls.following[first]] - walls.xy[first]) @ np.array([1, 1j])
    main = direction[walls.polygon[first]]
    eighths = np.round((np.angle(steps) - main) / (np.pi / 4)).astype(np.int64) % 4
    points = int(walls.point.max(initial=-1)) + 1
    is_fixed = np.zeros(points, dtype=bool)
    is_fixed[walls.point[stays[walls.polygon]]] = True
    ends = np.stack([walls.point[first], walls.point[walls.following[first]]])
    is_short = np.abs(steps) < np.where(eighths % 2, MIN_DIAGONAL, MIN_WALL)
    is_short &= ~is_fixed[ends].any(axis=0)
    links = coo_array((np.ones(is_short.sum()), tuple(ends[:, is_short])), shape=(points, points))
    count, number = connected_components(links, directed=False)
    corner = number.astype(np.int64)
    xy = np.empty((points, 2))
    xy[walls.point] = walls.xy
    sizes = np.bincount(corner, minlength=count)
    place = np.stack([np.bincount(corner, axis, count) / sizes for axis in xy.T], axis=1)
    fixed_corner = np.zeros(count, dtype=bool)
    fixed_corner[corner[is_fixed]] = True
    ends = corner[ends]
    kept = ends[0] != ends[1]
    flat = is_flat(ends[:, kept], eighths[kept], main[kept], count) & ~fixed_corner
    is_turned = kept & ~fixed_corner[ends].all(axis=0)
    angle = (main + eighths * np.pi / 4)[is_turned] + np.pi / 2
    normal = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return TurningPlan(corner[walls.point], place, fixed_corner, flat, first[is_turned], normal)


def is_flat(
    ends: Int64[np.ndarray, "2 walls"],
    eighths: Int64[np.ndarray, " walls"],
    main: Float64[np.ndarray, " walls"],
    count: int,
) -> Bool[np.ndarray, " corners"]:
    """Return which corners have exactly two walls, both of the same direction."""
    corner, angle = ends.ravel(), np.tile(main + eighths * np.pi / 4, 2)
    doubled = np.exp(2j * angle)
    sums = np.bincount(corner, doubled.real, count) + 1j * np.bincount(corner, doubled.imag, count)
    return (np.bincount(corner, minlength=count) == 2) & (np.abs(sums) > 2 - 1e-9)


def solve(walls: Walls, plan: TurningPlan, areas: Float64[np.ndarray, " polygons"]) -> Float64[np.ndarray, "corners 2"]:
    """Return the places of the corners that turn the walls and keep the areas of the polygons.

    Args:
        walls: of the polygons, as they are before
        plan: what becomes of them
        areas: of the polygons in m²
    """
    count, following = len(plan.place), walls.following
    one, other = plan.corner[plan.first], plan.corner[following[plan.first]]
    steps = walls.xy[following[plan.first]] - walls.xy[plan.first]
    middles = (walls.xy[following[plan.first]] + walls.xy[plan.first]) / 2
    near = np.sqrt(np.hypot(*steps.T)) / 2
    turning = rows_of(one, other, RIGHT * plan.normal, -RIGHT * plan.normal, count)
    holding = rows_of(one, other, near[:, None] * plan.normal, near[:, None] * plan.normal, count)
    weight = np.tile(np.where(plan.is_fixed, RIGHT, LOOSE), 2)
    staying = csc_array((weight, (np.arange(2 * count), np.arange(2 * count))), shape=(2 * count, 2 * count))
    wanted = [np.zeros(len(one)), 2 * near * (middles * plan.normal).sum(axis=1), weight * plan.place.T.ravel()]
    matrix, value, places = vstack([turning, holding, staying]), np.concatenate(wanted), plan.place
    for _ in range(SOLUTIONS):
        of_areas, missing = area_equations(walls, plan, places, areas)
        system = vstack([matrix, of_areas]).tocsc()
        target = np.concatenate([value - matrix @ places.T.ravel(), missing])  # of the moves: they are small
        moves = spsolve((system.T @ system).tocsc(), system.T @ target).reshape(2, -1).T
        places = places + np.where(plan.is_fixed[:, None], 0.0, moves)
    return places


def rows_of(
    one: Int64[np.ndarray, " rows"],
    other: Int64[np.ndarray, " rows"],
    of_one: Float64[np.ndarray, "rows 2"],
    of_other: Float64[np.ndarray, "rows 2"],
    count: int,
) -> csc_array:
    """Return rows with factors of x and y of two corners each; columns are x of all corners, then y."""
    row = np.tile(np.arange(len(one)), 4)
    columns = np.concatenate([one, one + count, other, other + count])
    factors = np.concatenate([*of_one.T, *of_other.T])
    return csc_array((factors, (row, columns)), shape=(len(one), 2 * count))


def area_equations(
    walls: Walls, plan: TurningPlan, places: Float64[np.ndarray, "corners 2"], areas: Float64[np.ndarray, " polygons"]
) -> tuple[csr_array, Float64[np.ndarray, " rows"]]:
    """Return equations for the moves of the corners that give the polygons these areas, linear near `places`."""
    corner, after, count = plan.corner, walls.following, len(places)
    before = np.empty_like(after)
    before[after] = np.arange(len(after))
    x, y = places[corner].T
    signed = np.bincount(walls.polygon, (x * y[after] - x[after] * y) / 2, walls.polygons)  # negative: clockwise
    lengths = np.bincount(walls.polygon, np.hypot(x[after] - x, y[after] - y), walls.polygons)
    weight = FIRM / np.maximum(lengths, MIN_WALL)
    slopes = np.concatenate([y[after] - y[before], x[before] - x[after]]) / 2 * np.tile(weight[walls.polygon], 2)
    row, columns = np.tile(walls.polygon, 2), np.concatenate([corner, corner + count])
    rows = coo_array((slopes, (row, columns)), shape=(walls.polygons, 2 * count)).tocsr()
    moves = np.bincount(walls.polygon, ~plan.is_fixed[corner], walls.polygons) > 0
    return rows[moves], (weight * (np.sign(signed) * areas - signed))[moves]


def misfits(
    before: Shaped[np.ndarray, "n"], after: Shaped[np.ndarray, "n"], stays: Bool[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Return which regularised footprints do not fit, of those that are to change.

    Of two that overlap more than before it is the one that fits less.
    """
    areas, new_areas = shapely.area(before), shapely.area(after)
    usable = is_usable(after, 0.0)
    shared = np.zeros(len(before))
    shared[usable] = shapely.area(shapely.intersection(before[usable], after[usable]))
    iou = np.where(stays, 2.0, shared / np.where(usable, areas + new_areas - shared, 1.0))
    fits = usable & (np.abs(new_areas - areas) <= MAX_AREA_CHANGE * areas) & (iou >= MIN_IOU)
    failing = ~stays & ~fits

    current = np.where(failing, before, after)
    one, other = shapely.STRtree(current).query(current)
    once = (one < other) & ~((stays | failing)[one] & (stays | failing)[other])
    one, other = one[once], other[once]
    overlap = shapely.area(shapely.intersection(current[one], current[other]))
    one, other, overlap = (values[overlap > MAX_OVERLAP] for values in (one, other, overlap))
    more = overlap > MAX_OVERLAP + shapely.area(shapely.intersection(before[one], before[other]))
    iou = np.where(failing, 2.0, iou)
    failing[np.where(iou[one] <= iou[other], one, other)[more]] = True
    return failing
