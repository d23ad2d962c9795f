"""The radar's image of a surface: an aircraft looks sideways, from the north or from the south.

A column of pixels is a profile of heights across the flight line, cut into facets between one row and the next. Each
facet that the wave front reaches sends back power by its material, its area across the wave and its slope, and shows
where its distance from the sensor puts it: LAYOVER metres toward the sensor for each metre of height. So the walls
and roofs that face the sensor lie over the ground before them, slopes are foreshortened, and what no ray reaches is
shadow. The corner of wall and ground adds its double bounce in one line, single strong scatterers their sidelobes;
then come the receiver's noise and the speckle. The geometry is that of C. Oliver and S. Quegan, Understanding
Synthetic Aperture Radar Images, 2004, chapter 1.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy.ndimage import convolve1d, gaussian_filter, uniform_filter
from scipy.special import ndtr

from sn6.datasets.layout import PIXEL
from sn6.simulation.backscatter import (
    BACKSCATTER,
    BRIGHTEST,
    CLUTTER,
    CLUTTER_SIZE,
    DOUBLE_BOUNCE,
    FLOOR,
    GLINT,
    GLINT_WIDTH,
    HAZE,
    HAZE_SIZE,
    NOISE,
    OPAQUE,
    POINT,
    POINT_TAIL,
    POINTS,
    SIDELOBES,
    SPREAD,
    STEP,
    WALL,
    WALL_CLUTTER,
    WALL_SPREAD,
    misalignment,
)
from sn6.simulation.blocks import STOREY
from sn6.simulation.ground import Cover
from sn6.simulation.speckle import speckled
from sn6.simulation.surface import Surface, rays, skyline, smooth

T = TypeVar("T", float, np.ndarray)

OFF_NADIR = np.radians(35.0)  # look angle
LAYOVER = 1 / np.tan(OFF_NADIR)  # metres toward the sensor for a metre of height
SHADOW = np.tan(OFF_NADIR)  # metres behind for a metre of height
FLAT = PIXEL / SHADOW  # metres by which the skyline rises over a row of flat ground
WALL_FROM = 1.2  # metres of height from one row to the next, by which a wall is known from a slope
FINEST = 0.7  # rows: nothing shows sharper


class Facets(NamedTuple):
    """Pieces of a profile in the image, `n` of them.

    Attributes:
        column: that they lie in
        start, end: rows between which their power is spread evenly, in any order, fractions included
        power: of each in each band
    """

    column: Int[np.ndarray, " n"]
    start: Float[np.ndarray, " n"]
    end: Float[np.ndarray, " n"]
    power: Float[np.ndarray, "4 n"]


def reach(height: float) -> float:
    """How far, in metres, something of `height` metres can show beside its place."""
    return float(height * max(LAYOVER, SHADOW))


def radar_image(
    surface: Surface, margin: int, orientation: int, gain: Float[np.ndarray, "4"], rng: np.random.Generator
) -> Float32[np.ndarray, "4 h w"]:
    """HH, HV, VH, VV in decibels.

    Args:
        surface: with `margin` rows more than wanted at the north and at the south, enough for the `reach` of
            the highest building
        orientation: 0: the sensor is in the north; 1: in the south
        gain: dB by which the pass departs from the calibration, of each band
        rng: draws the walls' details and the speckle
    """
    if orientation:
        surface = surface.mirrored()  # from here on the rows go away from the sensor
    signal, points = echoes(surface, rng)
    inner = slice(margin, len(surface.cover) - margin)
    around = uniform_filter(signal, (0, HAZE_SIZE, HAZE_SIZE))
    signal += HAZE * np.maximum(around, 0)  # its running sums end a little below 0 beside strong echoes
    power = speckled(signal[:, inner].astype(np.float32), linear(NOISE).astype(np.float32), rng)
    power += linear(POINT.astype(np.float32))[:, None, None] * points[inner]
    decibels = 10 * np.log10(power) + gain.astype(np.float32)[:, None, None]
    image = np.clip(np.round(decibels / STEP) * STEP, FLOOR, BRIGHTEST, dtype=np.float32)
    return image[:, ::-1] if orientation else image


def echoes(surface: Surface, rng: np.random.Generator) -> tuple[Float[np.ndarray, "4 h w"], Float32[np.ndarray, "h w"]]:
    """The mean power of each band before noise and speckle, and that of the strong points; row 0 is nearest."""
    height = surface.height
    tree = surface.cover == Cover.TREE
    ray = rays(height, SHADOW)
    sky = skyline(np.where(tree, np.float32(OPAQUE) * height, height), SHADOW)
    lit = np.diff(sky, axis=0, prepend=sky[:1] - FLAT)  # metres of skyline that the facet before each row adds
    lit = np.where(tree & (ray >= sky), FLAT, lit)
    level = np.where(tree, height * ndtr(surface.grain[0]), height)  # a crown scatters from anywhere in it
    shown = np.arange(1, len(height) + 1)[:, None] - level * (LAYOVER / PIXEL)  # where a pixel's far edge shows
    before = np.concatenate([shown[:1] - 1, shown[:-1]])  # where each facet starts
    rise = np.diff(height, axis=0, prepend=0.0)
    climbs = np.diff(ray, axis=0, prepend=ray[:1] - FLAT)
    start = shown - (shown - before) * np.clip(lit / np.maximum(climbs, 1e-6), 0, 1)  # the rest is in shadow
    wall = (rise > WALL_FROM) & (lit > 0) & has_walls(surface)
    slope = (lit > 0) & ~wall
    facets = [
        slope_facets(surface, slope, start, shown, lit / FLAT, rise / PIXEL),
        *wall_facets(surface, wall, start, shown, lit, rng),
    ]
    return projected(facets, height.shape), strong_points(surface, slope, shown)


def slope_facets(
    surface: Surface,
    seen: Bool[np.ndarray, "h w"],
    start: Float[np.ndarray, "h w"],
    end: Float[np.ndarray, "h w"],
    lit: Float[np.ndarray, "h w"],
    slope: Float[np.ndarray, "h w"],
) -> Facets:
    """Ground, roofs, trees. Roofs that lie square to the wave glint.

    Args:
        surface: with rows that go away from the sensor
        seen: which pixels are meant
        start, end: rows in the image
        lit: area across the wave, flat ground being 1
        slope: rise over run, away from the sensor
    """
    clutter = smooth(surface.grain[0], CLUTTER_SIZE)[seen]
    cover, tone = surface.cover[seen], surface.tone[0][seen]
    strength = lit[seen] * linear(SPREAD[cover] * tone + CLUTTER[cover] * clutter)
    away = (OFF_NADIR - np.arctan(slope[seen])) / np.radians(GLINT_WIDTH)
    strength *= np.where(surface.is_roof[seen], 1 + linear(GLINT) * np.exp(-(away**2)), 1)
    column = np.broadcast_to(np.arange(seen.shape[1]), seen.shape)[seen]
    return Facets(column, start[seen], end[seen], linear(BACKSCATTER.T)[:, cover] * strength)


def wall_facets(
    surface: Surface,
    wall: Bool[np.ndarray, "h w"],
    start: Float[np.ndarray, "h w"],
    end: Float[np.ndarray, "h w"],
    lit: Float[np.ndarray, "h w"],
    rng: np.random.Generator,
) -> list[Facets]:
    """The storeys of walls, each of its own strength, and the double bounce at the foot of walls."""
    row, column = np.nonzero(wall)
    tone, metres, foot, top = surface.tone[0][wall], lit[wall], start[wall], end[wall]
    built = np.where(has_walls(surface), surface.height, np.float32(0))
    away = misalignment(gaussian_filter(built, 1.5), row, column)
    strength = metres * linear(WALL_SPREAD * tone)
    storeys = np.ceil(metres / STOREY).astype(int)
    of = np.repeat(np.arange(len(row)), storeys)
    number = np.arange(len(of)) - np.repeat(np.cumsum(storeys) - storeys, storeys)
    length = ((top - foot) / storeys)[of]
    detail = linear(WALL_CLUTTER * rng.standard_normal(len(of)))
    fronts = Facets(
        column[of],
        foot[of] + length * number,
        foot[of] + length * (number + 1),
        linear(WALL)[:, None] * (strength / storeys * linear(-0.15 * away))[of] * detail,
    )
    corners = Facets(column, foot, foot - 1.0, linear(DOUBLE_BOUNCE)[:, None] * strength * linear(-away))
    return [fronts, corners]


def has_walls(surface: Surface) -> Bool[np.ndarray, "h w"]:
    """Where something stands that is no tree and no car."""
    return surface.is_roof | (surface.cover == Cover.METAL)


def projected(facets: Sequence[Facets], shape: tuple[int, int]) -> Float[np.ndarray, "4 h w"]:
    """The image of facets, which may lie over each other; what falls outside is lost.

    A facet is a box in its column: its density rises at one end and falls at the other. The steps are put between
    the two nearest rows each, and their running sum is the image.
    """
    column, start, end = (np.concatenate([getattr(f, name) for f in facets]) for name in ("column", "start", "end"))
    power = np.concatenate([f.power for f in facets], axis=1)
    middle, half = (start + end) / 2, np.maximum(np.abs(end - start), FINEST) / 2
    rows = shape[0] + 2
    cell, weight = [], []
    for edge, sign in ((middle - half, 1.0), (middle + half, -1.0)):
        edge = np.clip(edge, 0.0, shape[0])
        whole = np.floor(edge).astype(int)
        for offset, share in ((0, 1 - (edge - whole)), (1, edge - whole)):
            cell.append((whole + offset) * shape[1] + column)
            weight.append(sign * share / (2 * half))
    flat = np.concatenate(cell)
    image = np.empty((4, *shape))
    for band in range(4):
        steps = np.bincount(flat, np.concatenate([w * power[band] for w in weight]), rows * shape[1])
        image[band] = np.maximum(steps.reshape(rows, shape[1]).cumsum(axis=0)[: shape[0]], 0)
    return image


def strong_points(
    surface: Surface, seen: Bool[np.ndarray, "h w"], shown: Float[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w"]:
    """Single scatterers (masts, railings, gutters, cars) as multiples of POINT, through the sensor's response.

    A pixel holds one where its grain lies above its material's share; the further above, the stronger it is.
    """
    above = surface.grain[1] - POINTS[surface.cover]
    row, column = np.nonzero(seen & (above > 0))
    strength = linear(POINT_TAIL * above[row, column])
    at = np.floor(shown[row, column] - 0.5).astype(int)
    inside = (at >= 0) & (at < seen.shape[0])
    flat = at[inside] * seen.shape[1] + column[inside]
    points = np.bincount(flat, strength[inside], seen.size).reshape(seen.shape).astype(np.float32)
    return convolve1d(convolve1d(points, SIDELOBES, axis=0), SIDELOBES, axis=1)


def linear(decibels: T) -> T:
    """Power from decibels."""
    return 10 ** (decibels / 10)
