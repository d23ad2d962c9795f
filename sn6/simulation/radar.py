"""The radar's image of a surface: an aircraft looks sideways, from the north or from the south.

A first model: each cover has its backscatter, walls that face the sensor lie over the ground before them (layover)
with a bright line at their foot (double bounce), shadow lies behind, and speckle is a gamma variable. Roofs stay
where they are on the ground.
"""

from typing import TypeVar

import numpy as np
from jaxtyping import Float, Float32
from scipy.ndimage import gaussian_filter

from sn6.data.layout import PIXEL
from sn6.simulation.ground import Cover
from sn6.simulation.surface import Surface, in_shadow, smooth_noise

T = TypeVar("T", float, np.ndarray)

OFF_NADIR = np.radians(35.0)  # look angle
LAYOVER = 1 / np.tan(OFF_NADIR)  # metres toward the sensor for a metre of height
SHADOW = np.tan(OFF_NADIR)  # metres behind for a metre of height
LOOKS = 4.0
FLOOR = 1e-5  # dB: the lowest that a valid pixel holds, since 0 is nodata
STEP = 1 / 64  # dB: the grid of values, far below the speckle; a tile takes half the room on disk

BACKSCATTER = np.array(  # decibels of each Cover: HH, HV, VH, VV
    [
        (26.5, 34.7, 32.4, 23.5),  # STREET
        (29.5, 36.7, 34.9, 26.5),  # PAVING
        (31.0, 38.2, 35.9, 28.0),  # LAWN
        (33.0, 39.7, 37.9, 30.0),  # GARDEN
        (16.8, 25.0, 22.2, 13.3),  # WATER
        (39.5, 44.7, 42.9, 36.5),  # CAR
        (35.5, 44.7, 42.9, 32.5),  # TREE
        (33.0, 39.5, 37.7, 30.0),  # ROOF
    ],
    dtype=np.float32,
)
# Of each Cover: dB times the tone of the thing; dB between its parts; share of pixels with a single strong scatterer.
SPREAD = np.array([3.5, 4.5, 4.0, 4.0, 1.0, 3.0, 3.0, 6.0], dtype=np.float32)
CLUTTER = np.array([3.0, 4.0, 3.0, 4.5, 1.5, 3.0, 4.5, 5.0], dtype=np.float32)
POINTS = np.array([0.001, 0.002, 0.0005, 0.004, 0.0, 0.02, 0.002, 0.004], dtype=np.float32)
CLUTTER_SIZE = 2.0  # pixels
WALL = np.array([45.0, 47.0, 45.0, 43.0])  # the foot of a wall that faces the sensor
NOISE = np.array([15.5, 23.5, 20.5, 12.5])  # what shadow shows
SLOPE = 2.0  # dB more on the half of a roof that faces the sensor, less on the other
FOOT = 6.0  # dB: the double bounce at the foot of a wall over the wall itself
TOP = -14.0  # dB: the top of a wall against its foot
OBLIQUE = -7.0  # dB: a wall at 45 degrees against one that faces the sensor
WALL_SPREAD = 6.0  # dB times the tone of the building
WALL_CLUTTER = 5.0  # dB between the windows, balconies and drainpipes of a wall
POINT = 10.0  # dB: a strong scatterer over a wall's foot
POINT_SIZE = 0.7  # pixels: what the sensor makes of a point


def reach(height: float) -> float:
    """How far, in metres, something of `height` metres can show beside its place."""
    return float(height * max(LAYOVER, SHADOW))


def radar_image(
    surface: Surface, margin: int, orientation: int, rng: np.random.Generator
) -> Float32[np.ndarray, "4 h w"]:
    """HH, HV, VH, VV in decibels.

    Args:
        surface: with `margin` rows more than wanted at the north and at the south, enough for the `reach` of
            the highest building
        orientation: 0: the sensor is in the north; 1: in the south
        rng: draws the speckle
    """
    if orientation:
        surface = surface.mirrored()  # from here on the rows go away from the sensor
    cover, tone = surface.cover, surface.tone[0]
    roofs = np.where(cover == Cover.ROOF, surface.height, np.float32(0))
    shadow = in_shadow(roofs, SHADOW)
    clutter = smooth_noise(rng, cover.shape, CLUTTER_SIZE)
    deviation = SPREAD[cover] * tone + SLOPE * surface.tilt + CLUTTER[cover] * clutter
    points = rng.random(cover.shape, dtype=np.float32) < POINTS[cover]
    bright = wall_power(roofs, tone, surface.square) * linear(WALL_CLUTTER * clutter)
    bright += linear(POINT) * gaussian_filter(points.astype(np.float32), POINT_SIZE)
    image = np.empty((4, len(cover) - 2 * margin, cover.shape[1]), np.float32)
    inner = slice(margin, len(cover) - margin)
    for band in range(4):
        level = np.where(shadow, NOISE[band], BACKSCATTER[cover, band] + deviation)[inner]
        power = linear(level) + linear(WALL[band]) * bright[inner]
        speckle = rng.standard_gamma(LOOKS, power.shape, dtype=np.float32) / LOOKS
        image[band] = 10 * np.log10(power * speckle)
    image = np.maximum(np.round(image / STEP) * STEP, FLOOR, dtype=np.float32)
    return image[:, ::-1] if orientation else image


def wall_power(
    roofs: Float32[np.ndarray, "h w"], tone: Float32[np.ndarray, "h w"], square: Float32[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w"]:
    """What the walls add, as a multiple of WALL's power; the rows go away from the sensor.

    A wall stands where the roofs rise from one row to the next. Its point at height z shows z * LAYOVER before
    its foot.
    """
    rise = np.diff(roofs, axis=0, prepend=0.0)
    row, column = np.nonzero(rise > 2.0)
    pixels = np.round(rise[row, column] * LAYOVER / PIXEL).astype(int)
    wall = np.repeat(np.arange(len(row)), pixels)
    step = np.arange(len(wall)) - np.repeat(np.cumsum(pixels) - pixels, pixels)  # 0 at the foot
    strength = WALL_SPREAD * tone[row, column] + OBLIQUE * (1 - square[row, column])
    level = strength[wall] + TOP * step / pixels[wall] + FOOT * (step < 2)
    target = row[wall] - 1 - step
    seen = target >= 0
    flat = target[seen] * roofs.shape[1] + column[wall][seen]
    return np.bincount(flat, linear(level[seen]), roofs.size).reshape(roofs.shape)


def linear(decibels: T) -> T:
    """Power from decibels."""
    return 10 ** (decibels / 10)
