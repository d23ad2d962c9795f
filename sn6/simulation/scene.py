"""Generate a city as a function of the seed and the coordinates, so that any part can be generated separately.

The ground is divided into districts, the Voronoi cells of a jittered lattice. Each has a type, its own street direction
and its own mixture of the block types of its type, and is drawn from (seed, row, column) of its lattice point; streets
or canals separate the districts.

The types and their fractions follow from: more than 48,000 footprints on about 120 km² and 63 label rows per tile of
450 m (SpaceNet 6); two dwellings of five in the Netherlands are terraced houses, about one in five detached or
semi-detached, the rest flats (Statistics Netherlands, housing stock by type).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import shapely
from jaxtyping import Float
from shapely import Polygon, affinity, box

from sn6.simulation.blocks import BlockBuilder, courtyard, detached, hall, perimeter, slabs, terraces, towers
from sn6.simulation.ground import Cover, Ground, concatenate, make_objects
from sn6.simulation.parcels import car_park, park, pond
from sn6.simulation.port import quay, rail_yard, ships_at_anchor, tank_farm, warehouses

SPACING = 320.0  # metres between lattice points
JITTER = 0.25  # of SPACING, the largest distance between a lattice point and the centre of its district, on each axis
STREET_INSET = 11.0  # metres from the border of a district to its first block
CANAL_INSET = 7.0  # metres, half the width of a canal
MIN_CANAL_AREA = 200.0  # square metres: smaller pieces of a canal are left out
STREET_WIDTH = 9.0  # metres between blocks
MIN_FRACTION_INSIDE = 0.35  # of a block within its district; a block with less of it there becomes a park
MIN_FRACTION_KEPT = 0.4  # of a raised object that the edge of its district cuts; one with less left is removed
MAX_GROUND_FITTING = 3.3  # metres: higher fittings are on a roof, and removed with it
BASIN_CLEARANCE = 3.0  # metres around a basin without raised objects


@dataclass(frozen=True)
class DistrictType:
    """A type of district.

    Attributes:
        fraction: of the districts of a scene of density 1
        power: of the density by which the fraction is multiplied
        blocks: block types and their fractions
    """

    fraction: float
    power: float
    blocks: dict[BlockBuilder, float]


DISTRICT_TYPES = (
    DistrictType(0.16, 0.0, {terraces: 0.24, detached: 0.24, slabs: 0.17, hall: 0.13, courtyard: 0.06, park: 0.14}),
    DistrictType(0.07, 0.0, {perimeter: 0.18, courtyard: 0.34, towers: 0.08, hall: 0.16, car_park: 0.08, park: 0.12}),
    DistrictType(0.26, -2.0, {slabs: 0.40, towers: 0.10, courtyard: 0.10, hall: 0.12, park: 0.20, pond: 0.08}),
    DistrictType(0.22, -2.0, {warehouses: 0.38, tank_farm: 0.14, quay: 0.30, rail_yard: 0.10, hall: 0.08}),
    DistrictType(0.28, -2.0, {park: 0.70, pond: 0.20, detached: 0.10}),
)

CENTRE: dict[BlockBuilder, float] = {perimeter: 0.80, courtyard: 0.14, hall: 0.06}  # block types of a dense centre
CENTRE_SIZE = 2  # rows and columns of districts in it
CENTRE_FRACTION = 0.045  # of all groups of so many districts

HOUSE_BLOCKS = (terraces, perimeter, detached)  # their fractions grow with the density

Box = tuple[float, float, float, float]  # west, south, east, north in metres


@dataclass(frozen=True)
class Scene:
    """A city of unlimited extent.

    Attributes:
        seed: of all random numbers
        density: 1 for about 73 buildings on 450 m x 450 m; at 4 nearly all blocks have buildings, mostly houses
        basins: harbour basins, without buildings
    """

    seed: int
    density: float
    basins: tuple[Box, ...] = ()

    def ground(self, bounds: Box) -> Ground:
        """Return all objects that intersect `bounds` (metres, EPSG:32631), in the order of rasterizing."""
        area = box(*bounds)
        indices = [index for index in districts_near(bounds) if district_cell(self.seed, *index).intersects(area)]
        districts = [district_ground(self, *index) for index in indices]
        rng = np.random.default_rng((self.seed, 0))
        ships = [ships_at_anchor(rng, basin) for basin in self.basins]
        water = make_objects(rng, Cover.WATER, [box(*basin) for basin in self.basins])
        ground = concatenate([*districts, water, *ships])
        return ground.where(shapely.intersects(ground.shape, area)).in_paint_order()


def districts_near(bounds: Box) -> Iterator[tuple[int, int]]:
    """Yield row and column of the districts that may intersect `bounds`: at most one lattice point away, by JITTER."""
    west, south, east, north = (int(edge // SPACING) for edge in bounds)
    for row in range(south - 1, north + 2):
        for column in range(west - 1, east + 2):
            yield row, column


def district_centre(seed: int, row: int, column: int) -> tuple[float, float]:
    """Return x and y of the jittered lattice point of a district, metres."""
    x, y = np.random.default_rng((seed, 1, row, column)).uniform(0.5 - JITTER, 0.5 + JITTER, 2)
    return SPACING * (column + x), SPACING * (row + y)


@lru_cache(maxsize=256)
def district_ground(scene: Scene, row: int, column: int) -> Ground:
    """Build all objects of one district, in metres."""
    rng = np.random.default_rng((scene.seed, 2, row, column))
    centre = district_centre(scene.seed, row, column)
    land = district_cell(scene.seed, row, column, STREET_INSET)
    bank = district_cell(scene.seed, row, column, CANAL_INSET, canals_only=True)
    canal = district_cell(scene.seed, row, column).difference(bank)
    parts = [make_objects(rng, Cover.WATER, [part for part in shapely.get_parts(canal) if part.area > MIN_CANAL_AREA])]
    angle = rng.uniform(0.0, np.pi / 2)
    builders, fractions = draw_mixture(rng, scene.density, is_centre(scene.seed, row, column))
    for x, y, width, depth in block_grid(rng, scene.density):
        edge = affinity.rotate(box(x, y, x + width, y + depth), angle, origin=(0, 0), use_radians=True)
        inside = affinity.translate(edge, *centre).intersection(land).area / edge.area
        if inside == 0.0:
            continue
        build = builders[rng.choice(len(builders), p=fractions)] if inside > MIN_FRACTION_INSIDE else park
        block = build(rng, width, depth).transformed(0.0, x, y).transformed(angle, *centre)
        parts.append(clip_block(block, land, scene.basins))
    return concatenate(parts)


@lru_cache(maxsize=1024)
def district_cell(seed: int, row: int, column: int, inset: float = 0.0, canals_only: bool = False) -> Polygon:
    """Return the Voronoi cell of a district, less `inset` metres along its borders (or those with a canal)."""
    x, y = district_centre(seed, row, column)
    polygon = shapely.Point(x, y).buffer(2 * SPACING, quad_segs=2)
    for other in [(row + i, column + j) for i in range(-2, 3) for j in range(-2, 3) if (i, j) != (0, 0)]:
        east, north = np.subtract(district_centre(seed, *other), (x, y))
        distance = np.hypot(east, north)
        margin = inset if not canals_only or has_canal(seed, (row, column), other) else 0.0
        # the half plane on this side of the border, in a frame whose x axis points to the other centre
        near = box(-4 * SPACING, -4 * SPACING, distance / 2 - margin, 4 * SPACING)
        rotation = (east / distance, -north / distance, north / distance, east / distance)
        polygon = polygon.intersection(affinity.affine_transform(near, [*rotation, x, y]))
    return polygon


def has_canal(seed: int, one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether a canal separates two districts: one border in six."""
    return bool(np.random.default_rng((seed, 3, *min(one, other), *max(one, other))).random() < 1 / 6)


def is_centre(seed: int, row: int, column: int) -> bool:
    """Return whether a district belongs to a dense centre."""
    group = row // CENTRE_SIZE, column // CENTRE_SIZE
    return bool(np.random.default_rng((seed, 8, *group)).random() < CENTRE_FRACTION)


def draw_mixture(
    rng: np.random.Generator, density: float, centre: bool
) -> tuple[list[BlockBuilder], Float[np.ndarray, " builders"]]:
    """Draw the type of a district; return its block types and their fractions, which vary around those of the type."""
    fractions = np.array([kind.fraction * density**kind.power for kind in DISTRICT_TYPES])
    kind = DISTRICT_TYPES[rng.choice(len(DISTRICT_TYPES), p=fractions / fractions.sum())]
    blocks = CENTRE if centre else kind.blocks
    weights = [fraction * (density if builder in HOUSE_BLOCKS else 1.0) for builder, fraction in blocks.items()]
    drawn = np.array(weights) * rng.gamma(4.0, size=len(weights))
    return list(blocks), drawn / drawn.sum()


def block_grid(rng: np.random.Generator, density: float) -> Iterator[tuple[float, float, float, float]]:
    """Yield x, y (lower left corner), width and depth of the blocks around a district's centre, before rotation."""
    scale = density**-0.3
    reach, depth = 1.1 * SPACING, scale * rng.uniform(54.0, 66.0)
    for y in np.arange(-reach, reach, depth + STREET_WIDTH):
        x = -reach - rng.uniform(0.0, 60.0)
        while x < reach:
            width = scale * rng.uniform(75.0, 115.0)
            yield x, y, width, depth
            x += width + STREET_WIDTH


def clip_block(block: Ground, land: Polygon, basins: tuple[Box, ...]) -> Ground:
    """Clip a block to the land of its district.

    Raised objects of which too little is left or that would be in a basin are removed, and so are trees that would
    grow out of a roof (a crown may overhang one).
    """
    shape = shapely.intersection(block.shape, land)
    raised = block.is_raised
    large_enough = shapely.area(shape) > np.where(raised, MIN_FRACTION_KEPT * shapely.area(block.shape), 0.0)
    kept = large_enough & (shapely.get_type_id(shape) == shapely.GeometryType.POLYGON)
    for basin in basins:
        kept &= ~(raised & shapely.intersects(shape, box(*basin).buffer(BASIN_CLEARANCE)))
    on_roofs = (block.cover == Cover.FITTING) & (block.height > MAX_GROUND_FITTING)
    if on_roofs.any():
        lost = block.shape[block.is_building & ~kept]
        if len(lost):
            of_lost, _ = shapely.STRtree(lost).query(shapely.centroid(block.shape), "intersects")
            kept[of_lost] &= ~on_roofs[of_lost]
    inside, _ = shapely.STRtree(block.shape[block.is_building]).query(shapely.centroid(block.shape), "intersects")
    beside_roofs = np.ones(len(shape), dtype=bool)
    beside_roofs[inside] = False
    return replace(block, shape=shape).where(kept & (beside_roofs | (block.cover != Cover.TREE)))
