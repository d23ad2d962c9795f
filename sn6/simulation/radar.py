"""Simulate the radar image of a surface, from an aircraft that looks sideways from the north or from the south.

A column of pixels is a profile of heights across the flight line, divided into facets between one row and the next.
Each facet that the wave front reaches returns power according to its material, its area across the wave and its slope,
and is imaged at the row of its distance from the sensor: displaced LAYOVER metres toward the sensor per metre of
height. So walls and roofs that face the sensor are imaged over the ground before them, slopes are foreshortened, and
what no ray reaches is in shadow. The corner of wall and ground adds its double bounce in one line, single strong
scatterers their sidelobes; the receiver's noise and the speckle follow. The geometry is that of C. Oliver and S.
Quegan, Understanding Synthetic Aperture Radar Images, 2004, chapter 1.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy.ndimage import convolve1d, gaussian_filter, uniform_filter
from scipy.special import ndtr

from sn6.datasets.spacenet6 import PIXEL
from sn6.simulation.backscatter import (
    BACKSCATTER,
    CLUTTER,
    CLUTTER_SIZE,
    CROSSTALK,
    DOUBLE_BOUNCE,
    DOUBLE_BOUNCE_CLUTTER,
    GLINT,
    GLINT_WIDTH,
    HAZE,
    HAZE_SIZE,
    MAX_VALUE,
    MIN_VALUE,
    NOISE,
    OPAQUE,
    POINT,
    POINT_RESPONSE,
    POINT_SPREAD,
    POINT_TAIL,
    POINTS,
    SILLS,
    SPREAD,
    STEP,
    WALL,
    WALL_CLUTTER,
    WALL_SPREAD,
    misalignment_loss,
    polarisation,
)
from sn6.simulation.blocks import STOREY
from sn6.simulation.ground import Cover
from sn6.simulation.speckle import add_speckle
from sn6.simulation.surface import Surface, ray_heights, skyline, smooth_noise

T = TypeVar("T", float, np.ndarray)

OFF_NADIR = np.radians(35.0)  # look angle
LAYOVER = 1 / np.tan(OFF_NADIR)  # metres toward the sensor per metre of height
SHADOW = np.tan(OFF_NADIR)  # metres away from the sensor per metre of height
FLAT_RISE = PIXEL / SHADOW  # metres by which the skyline rises per row of flat ground
MIN_WALL_RISE = 1.2  # metres of height from one row to the next; less is a slope
MIN_FITTING_RISE = 0.3  # metres: the sides of fittings are vertical
MIN_EXTENT = 0.7  # rows of a facet in the image, the resolution


class Facets(NamedTuple):
    """Parts of profiles in the image, `n` of them.

    Attributes:
        column: of the profile
        start, end: rows between which the power is spread evenly, in any order, fractions included
        power: of each in each band
    """

    column: Int[np.ndarray, " n"]
    start: Float[np.ndarray, " n"]
    end: Float[np.ndarray, " n"]
    power: Float[np.ndarray, "4 n"]


def max_displacement(height: float) -> float:
    """Return the largest distance, in metres, from an object of `height` metres to its layover or its shadow."""
    return float(height * max(LAYOVER, SHADOW))


def radar_image(
    surface: Surface, margin: int, orientation: int, gain: Float[np.ndarray, "4"], rng: np.random.Generator
) -> Float32[np.ndarray, "4 h w"]:
    """Simulate HH, HV, VH, VV in decibels.

    Args:
        surface: with `margin` additional rows at the north and at the south
        margin: rows, at least the `max_displacement` of the highest building
        orientation: look direction: 0 from the north, 1 from the south
        gain: dB by which the pass deviates from the calibration, of each band
        rng: draws the details of walls and the speckle
    """
    if orientation:
        surface = surface.flipped()  # from here on the rows lead away from the sensor
    signal, points = echoes(surface, rng)
    signal[1:3] += power_of(CROSSTALK)[:, None, None] * signal[[0, 3]]
    inner = slice(margin, len(surface.cover) - margin)
    around = uniform_filter(signal, (0, HAZE_SIZE, HAZE_SIZE))
    signal += HAZE * np.maximum(around, 0)  # the filter's running sums can be slightly negative beside strong echoes
    power = add_speckle(signal[:, inner].astype(np.float32), power_of(NOISE).astype(np.float32), rng)
    power += points[:, inner]
    decibels = 10 * np.log10(power) + gain.astype(np.float32)[:, None, None]
    image = np.clip(np.round(decibels / STEP) * STEP, MIN_VALUE, MAX_VALUE, dtype=np.float32)
    return image[:, ::-1] if orientation else image


def echoes(
    surface: Surface, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "4 h w"], Float32[np.ndarray, "4 h w"]]:
    """Compute the power of each band before noise and speckle, of fields of scatterers and of the strong points.

    Args:
        surface: row 0 is nearest to the sensor
        rng: draws the details of walls
    """
    height = surface.height
    tree = surface.cover == Cover.TREE
    ray = ray_heights(height, SHADOW)
    sky = skyline(np.where(tree, np.float32(OPAQUE) * height, height), SHADOW)
    lit = np.diff(sky, axis=0, prepend=sky[:1] - FLAT_RISE)  # metres of skyline that the facet before each row adds
    lit = np.where(tree & (ray >= sky), FLAT_RISE, lit)
    level = np.where(tree, height * ndtr(surface.grain[0]), height)  # a crown scatters from random heights within it
    image_row = np.arange(1, len(height) + 1)[:, None] - level * (LAYOVER / PIXEL)  # of the far edge of each pixel
    previous = np.concatenate([image_row[:1] - 1, image_row[:-1]])
    rise = np.diff(height, axis=0, prepend=0.0)
    ray_rise = np.diff(ray, axis=0, prepend=ray[:1] - FLAT_RISE)
    lit_fraction = np.clip(lit / np.maximum(ray_rise, 1e-6), 0, 1)  # of each facet; the rest is in shadow
    start = image_row - (image_row - previous) * lit_fraction
    wall = is_wall(surface, rise) & (lit > 0)
    slope = (lit > 0) & ~wall
    facets = [
        slope_facets(surface, slope, start, image_row, lit / FLAT_RISE, rise / PIXEL),
        *wall_facets(surface, wall, start, image_row, lit, rng),
    ]
    return project(facets, height.shape), strong_points(surface, slope, image_row)


def slope_facets(
    surface: Surface,
    selected: Bool[np.ndarray, "h w"],
    start: Float[np.ndarray, "h w"],
    end: Float[np.ndarray, "h w"],
    lit: Float[np.ndarray, "h w"],
    slope: Float[np.ndarray, "h w"],
) -> Facets:
    """Make the facets of ground, roofs and trees. Roofs perpendicular to the wave glint.

    Args:
        surface: the rows lead away from the sensor
        selected: pixels to make facets of
        start, end: rows in the image
        lit: area across the wave, 1 for flat ground
        slope: rise over run, away from the sensor
    """
    clutter = smooth_noise(surface.grain[0], CLUTTER_SIZE)[selected]
    cover, tone = surface.cover[selected], surface.tone[0][selected]
    strength = lit[selected] * power_of(SPREAD[cover] * tone + CLUTTER[cover] * clutter)
    deviation = (OFF_NADIR - np.arctan(slope[selected])) / np.radians(GLINT_WIDTH)  # from the perpendicular
    strength *= np.where(surface.is_roof[selected], 1 + power_of(GLINT) * np.exp(-(deviation**2)), 1)
    column = np.broadcast_to(np.arange(selected.shape[1]), selected.shape)[selected]
    power = power_of(BACKSCATTER.T[:, cover] + polarisation(surface.tone[:, selected])) * strength
    return Facets(column, start[selected], end[selected], power)


def wall_facets(
    surface: Surface,
    wall: Bool[np.ndarray, "h w"],
    start: Float[np.ndarray, "h w"],
    end: Float[np.ndarray, "h w"],
    lit: Float[np.ndarray, "h w"],
    rng: np.random.Generator,
) -> list[Facets]:
    """Make the facets of the storeys of walls, of random strength, and of the double bounce at the foot of walls.

    Args:
        surface: the rows lead away from the sensor
        wall: pixels of walls
        start, end: rows in the image
        lit: metres of the wall's height that are not in shadow
        rng: draws the strength of the storeys
    """
    row, column = np.nonzero(wall)
    tone, metres, foot, top = surface.tone[0][wall], lit[wall], start[wall], end[wall]
    built = np.where(has_walls(surface), surface.height, np.float32(0))
    loss = misalignment_loss(gaussian_filter(built, 1.5), row, column)
    strength, bands = metres * power_of(WALL_SPREAD * tone), polarisation(surface.tone[:, wall])
    storeys = np.ceil(metres / STOREY).astype(int)
    owner = np.repeat(np.arange(len(row)), storeys)  # the wall of each storey
    storey = np.arange(len(owner)) - np.repeat(np.cumsum(storeys) - storeys, storeys)
    length = ((top - foot) / storeys)[owner]
    detail = power_of(WALL_CLUTTER * rng.standard_normal(len(owner)))
    power = (power_of(WALL[:, None] + bands) * strength / storeys * power_of(-0.15 * loss))[:, owner]
    low, high = foot[owner] + length * storey, foot[owner] + length * (storey + 1)
    sill = (low + high) / 2
    masonry = Facets(column[owner], low, high, (1 - SILLS) * power)
    windows = Facets(column[owner], sill, sill, SILLS * power * detail)
    uneven = DOUBLE_BOUNCE_CLUTTER * rng.standard_normal(len(row)) - loss
    corners = Facets(column, foot, foot - 1.0, power_of(DOUBLE_BOUNCE[:, None] + bands) * strength * power_of(uneven))
    return [masonry, windows, corners]


def is_wall(surface: Surface, rise: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Return where the profile rises as a wall, `rise` metres from the row before."""
    fitting = surface.cover == Cover.FITTING
    side = fitting & ~np.concatenate([fitting[:1], fitting[:-1]])
    return (rise > np.where(side, MIN_FITTING_RISE, MIN_WALL_RISE)) & has_walls(surface)


def has_walls(surface: Surface) -> Bool[np.ndarray, "h w"]:
    """Return where an object with vertical walls is, unlike trees and cars."""
    return (surface.cover >= Cover.FENCE) | (surface.cover == Cover.METAL)


def project(facets: Sequence[Facets], shape: tuple[int, int]) -> Float[np.ndarray, "4 h w"]:
    """Sum the power of facets, which may overlap, in an image of `shape`; power outside of it is lost.

    A facet is a box in its column: its density rises at one end and falls at the other. Each step is divided between
    the two nearest rows, and the running sum of the steps is the image.
    """
    column, start, end = (np.concatenate([getattr(f, name) for f in facets]) for name in ("column", "start", "end"))
    power = np.concatenate([f.power for f in facets], axis=1)
    middle, half = (start + end) / 2, np.maximum(np.abs(end - start), MIN_EXTENT) / 2
    rows = shape[0] + 2
    cell, weight = [], []
    for edge, sign in ((middle - half, 1.0), (middle + half, -1.0)):
        edge = np.clip(edge, 0.0, shape[0])
        row = np.floor(edge).astype(int)
        for offset, fraction in ((0, 1 - (edge - row)), (1, edge - row)):
            cell.append((row + offset) * shape[1] + column)
            weight.append(sign * fraction / (2 * half))
    flat = np.concatenate(cell)
    image = np.empty((4, *shape))
    for band in range(4):
        steps = np.bincount(flat, np.concatenate([w * power[band] for w in weight]), rows * shape[1])
        image[band] = np.maximum(steps.reshape(rows, shape[1]).cumsum(axis=0)[: shape[0]], 0)
    return image


def strong_points(
    surface: Surface, selected: Bool[np.ndarray, "h w"], image_row: Float[np.ndarray, "h w"]
) -> Float32[np.ndarray, "4 h w"]:
    """Compute the image of single scatterers in each band: masts, railings, gutters, cars, parts of buildings.

    A pixel has one where its grain exceeds the threshold of its material; the excess determines its strength, the grain
    of the pixel and of the next one its polarisation.

    Args:
        surface: the rows lead away from the sensor
        selected: pixels that may have one
        image_row: where each pixel is imaged
    """
    excess = surface.grain[1] - POINTS[surface.cover]
    row, column = np.nonzero(selected & (excess > 0))
    imaged_at = np.floor(image_row[row, column] - 0.5).astype(int)
    inside = (imaged_at >= 0) & (imaged_at < selected.shape[0])
    row, column, flat = row[inside], column[inside], imaged_at[inside] * selected.shape[1] + column[inside]
    grain = surface.grain[0]
    cross, copolar = POINT_SPREAD * grain[row, column], POINT_SPREAD * grain[row, column - 1]
    bands = POINT[:, None] + np.stack([copolar / 2, cross, cross, -copolar / 2])
    strength = power_of(bands + POINT_TAIL * excess[row, column])
    points = np.stack([np.bincount(flat, one, selected.size) for one in strength]).astype(np.float32)
    points = points.reshape(4, *selected.shape)
    points[1:3] += power_of(CROSSTALK)[:, None, None] * points[[0, 3]]
    return convolve1d(convolve1d(points, POINT_RESPONSE, axis=1), POINT_RESPONSE, axis=2)


def power_of(decibels: T) -> T:
    """Convert decibels to power."""
    return 10 ** (decibels / 10)
