"""A made-up city: a function of the seed and the place, so that any piece of it can be made alone.

The ground is divided into districts, the Voronoi cells of a jittered lattice. Each is of a kind, has its own street
direction and its own mixture of the kind's ways to build, and is drawn from (seed, row, column) of its lattice
point; streets or canals lie between districts.

What the kinds and their shares are taken from: more than 48,000 footprints on about 120 km² and 63 label rows a tile
of 450 m (SpaceNet 6); two dwellings of five in the Netherlands are terraced houses, about one in five detached or
semi-detached, the rest flats (Statistics Netherlands, housing stock by type).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import shapely
from jaxtyping import Float
from shapely import Polygon, affinity, box

from sn6.simulation.blocks import Way, courtyard, detached, hall, perimeter, slabs, terraces, towers
from sn6.simulation.ground import Cover, Ground, joined, things
from sn6.simulation.parcels import car_park, park, pond
from sn6.simulation.port import quay, rail_yard, ships_at_anchor, tank_farm, warehouses

SPACING = 320.0  # metres between lattice points
JITTER = 0.25  # of SPACING, at most, between a lattice point and the centre of its district
AVENUE = 11.0  # metres from the border of a district to its first block
CANAL = 7.0  # metres, half the width
PUDDLE = 200.0  # square metres: a smaller piece of canal is no water
STREET = 9.0  # metres between blocks
BUILT_SHARE = 0.35  # of a block that must lie within its district for anything to be built on it
KEPT_SHARE = 0.4  # of a building that is cut off by the edge of its district, for it to stand at all
BARE = 3.0  # metres around a basin without buildings


@dataclass(frozen=True)
class Kind:
    """A kind of district.

    Attributes:
        share: of the districts of a scene of density 1
        power: of the density by which the share is multiplied
        ways: to build, with their shares
    """

    share: float
    power: float
    ways: dict[Way, float]


KINDS = (
    Kind(0.25, 0.0, {terraces: 0.26, detached: 0.26, slabs: 0.15, hall: 0.13, courtyard: 0.06, park: 0.14}),
    Kind(0.10, 0.0, {perimeter: 0.28, courtyard: 0.28, towers: 0.08, hall: 0.16, car_park: 0.08, park: 0.12}),
    Kind(0.24, -2.0, {slabs: 0.40, towers: 0.10, courtyard: 0.10, hall: 0.12, park: 0.20, pond: 0.08}),
    Kind(0.20, -2.0, {warehouses: 0.38, tank_farm: 0.14, quay: 0.30, rail_yard: 0.10, hall: 0.08}),
    Kind(0.21, -2.0, {park: 0.70, pond: 0.20, detached: 0.10}),
)

HOUSES = (terraces, perimeter, detached)  # of which there are more where it is dense

Box = tuple[float, float, float, float]  # west, south, east, north in metres


@dataclass(frozen=True)
class Scene:
    """A city without end.

    Attributes:
        seed: another seed is another city
        density: 1 for about 73 buildings on 450 m x 450 m; 4 leaves hardly a block unbuilt and builds mostly houses
        basins: harbour basins, where nothing stands
    """

    seed: int
    density: float
    basins: tuple[Box, ...] = ()

    def ground(self, bounds: Box) -> Ground:
        """All that reaches into `bounds` (metres, EPSG:32631), in the order in which it is painted."""
        area = box(*bounds)
        indices = [index for index in lattice_around(bounds) if cell(self.seed, *index).intersects(area)]
        pieces = [district(self, *index) for index in indices]
        water = np.random.default_rng((self.seed, 0))
        afloat = [ships_at_anchor(water, basin) for basin in self.basins]
        everything = joined([*pieces, things(water, Cover.WATER, [box(*basin) for basin in self.basins]), *afloat])
        return everything.where(shapely.intersects(everything.shape, area)).in_order()


def lattice_around(bounds: Box) -> Iterator[tuple[int, int]]:
    """Row and column of the districts that may reach into `bounds`: the next but none, given the JITTER."""
    west, south, east, north = (int(edge // SPACING) for edge in bounds)
    for row in range(south - 1, north + 2):
        for column in range(west - 1, east + 2):
            yield row, column


def centre(seed: int, row: int, column: int) -> tuple[float, float]:
    """The point of a district, metres."""
    x, y = np.random.default_rng((seed, 1, row, column)).uniform(0.5 - JITTER, 0.5 + JITTER, 2)
    return SPACING * (column + x), SPACING * (row + y)


@lru_cache(maxsize=256)
def district(scene: Scene, row: int, column: int) -> Ground:
    """All that stands in one district, in metres."""
    rng = np.random.default_rng((scene.seed, 2, row, column))
    here = centre(scene.seed, row, column)
    land = cell(scene.seed, row, column, AVENUE)
    canal = cell(scene.seed, row, column).difference(cell(scene.seed, row, column, CANAL, canals_only=True))
    water = [part for part in shapely.get_parts(canal) if part.area > PUDDLE]
    pieces = [things(rng, Cover.WATER, water)]
    angle = rng.uniform(0.0, np.pi / 2)
    ways, shares = mixture(rng, scene.density)
    for x, y, width, depth in block_grid(rng, scene.density):
        edge = affinity.rotate(box(x, y, x + width, y + depth), angle, origin=(0, 0), use_radians=True)
        inside = affinity.translate(edge, *here).intersection(land).area / edge.area
        if inside == 0.0:
            continue
        way = ways[rng.choice(len(ways), p=shares)] if inside > BUILT_SHARE else park
        block = way(rng, width, depth).placed(0.0, x, y).placed(angle, *here)
        pieces.append(fitted(block, land, scene.basins))
    return joined(pieces)


@lru_cache(maxsize=1024)
def cell(seed: int, row: int, column: int, margin: float = 0.0, canals_only: bool = False) -> Polygon:
    """The Voronoi cell of a district, less `margin` metres along its borders (or those with a canal)."""
    x, y = centre(seed, row, column)
    polygon = shapely.Point(x, y).buffer(2 * SPACING, quad_segs=2)
    for other in [(row + i, column + j) for i in range(-2, 3) for j in range(-2, 3) if (i, j) != (0, 0)]:
        east, north = np.subtract(centre(seed, *other), (x, y))
        away = np.hypot(east, north)
        inset = margin if not canals_only or has_canal(seed, (row, column), other) else 0.0
        near = box(-4 * SPACING, -4 * SPACING, away / 2 - inset, 4 * SPACING)  # the near side, the other one east
        turn = (east / away, -north / away, north / away, east / away)
        polygon = polygon.intersection(affinity.affine_transform(near, [*turn, x, y]))
    return polygon


def has_canal(seed: int, one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether water runs between two districts: one border in six."""
    return bool(np.random.default_rng((seed, 3, *min(one, other), *max(one, other))).random() < 1 / 6)


def mixture(rng: np.random.Generator, density: float) -> tuple[list[Way], Float[np.ndarray, " ways"]]:
    """The ways to build in a district, and the share of each."""
    shares = np.array([kind.share * density**kind.power for kind in KINDS])
    kind = KINDS[rng.choice(len(KINDS), p=shares / shares.sum())]
    weights = [share * (density if way in HOUSES else 1.0) for way, share in kind.ways.items()]
    drawn = np.array(weights) * rng.gamma(4.0, size=len(weights))
    return list(kind.ways), drawn / drawn.sum()


def block_grid(rng: np.random.Generator, density: float) -> Iterator[tuple[float, float, float, float]]:
    """x, y (lower left corner), width and depth of the blocks around a district's centre, before turning."""
    scale = density**-0.3
    reach, depth = 1.1 * SPACING, scale * rng.uniform(54.0, 66.0)
    for y in np.arange(-reach, reach, depth + STREET):
        x = -reach - rng.uniform(0.0, 60.0)
        while x < reach:
            width = scale * rng.uniform(75.0, 115.0)
            yield x, y, width, depth
            x += width + STREET


def fitted(block: Ground, land: Polygon, basins: tuple[Box, ...]) -> Ground:
    """A block within its district: cut at the edge, without things of which little is left, that stand in water, or
    trees that grow out of a roof (a crown may reach over one)."""
    shape = shapely.intersection(block.shape, land)
    stands = block.is_standing
    whole = shapely.area(shape) > np.where(stands, KEPT_SHARE * shapely.area(block.shape), 0.0)
    kept = whole & (shapely.get_type_id(shape) == shapely.GeometryType.POLYGON)
    for basin in basins:
        kept &= ~(stands & shapely.intersects(shape, box(*basin).buffer(BARE)))
    inside, _ = shapely.STRtree(block.shape[block.is_building]).query(shapely.centroid(block.shape), "intersects")
    rooted = np.ones(len(shape), dtype=bool)
    rooted[inside] = False
    return replace(block, shape=shape).where(kept & (rooted | (block.cover != Cover.TREE)))
