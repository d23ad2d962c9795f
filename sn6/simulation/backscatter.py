"""Tabulate the backscatter of each material in decibels.

The values are chosen so that those of a simulated archive are distributed as the published ones (see
`sn6.inspection.reference`).
"""

import numpy as np
from jaxtyping import Float, Float32, Int

MIN_VALUE = 1e-5  # dB: of a valid pixel, since 0 is nodata
MAX_VALUE = 92.9  # dB: the published maximum
STEP = 1 / 64  # dB: values are multiples of it, far below the speckle, which halves the size of a tile on disk
NOISE = np.array([20.8, 31.9, 28.4, 17.8])  # of the receiver: HH, HV, VH, VV; most of a cross-polarised image
# dB of HH that the antenna lets into HV, and of VV into VH, in the units of these bands: 12 dB under the copolar gain.
CROSSTALK = np.array([-3.9, -3.2])

BACKSCATTER = np.array(  # of each Cover: HH, HV, VH, VV
    [
        (27.9, 32.2, 30.4, 25.4),  # STREET
        (28.9, 33.6, 31.8, 26.4),  # PAVING
        (30.2, 34.9, 33.1, 27.7),  # LAWN
        (31.4, 36.2, 34.4, 28.9),  # GARDEN
        (30.9, 35.1, 33.3, 28.4),  # RAIL
        (17.2, 20.1, 17.9, 14.1),  # WATER
        (35.4, 38.3, 36.7, 32.9),  # CAR
        (38.9, 41.3, 39.7, 36.4),  # METAL
        (32.9, 39.9, 38.3, 30.4),  # TREE: volume scattering
        (71.4, 57.6, 56.0, 68.9),  # CORNER
        (31.9, 37.4, 35.8, 29.4),  # FENCE
        (33.9, 38.3, 36.7, 31.4),  # FITTING
        (31.4, 36.4, 34.8, 28.9),  # TILES
        (28.4, 33.9, 32.3, 25.9),  # BITUMEN
        (30.9, 36.9, 35.3, 28.4),  # GRAVEL
        (26.9, 32.4, 30.8, 24.4),  # SHEET: specular except for its ribs
    ],
    dtype=np.float32,
)
# Of each Cover: dB per unit of the object's tone, dB of variation within an object, and how many standard deviations
# above 0 the grain of a pixel must be for a single strong scatterer there.
SPREAD = np.array([2.0, 2.5, 2.0, 2.0, 2.0, 1.5, 3.0, 4.0, 2.0, 3.0, 3.0, 4.0, 3.5, 3.5, 3.5, 3.5], dtype=np.float32)
CLUTTER = np.array([2.5, 2.5, 2.0, 2.5, 3.0, 0.5, 2.0, 3.0, 2.0, 2.0, 3.0, 3.0, 2.0, 2.0, 2.0, 2.0], dtype=np.float32)
POINTS = np.array([3.4, 3.2, 3.9, 3.0, 2.9, 9.0, 2.0, 1.8, 3.6, 9.0, 2.4, 1.2, 3.0, 2.6, 2.7, 2.5], dtype=np.float32)
CROSS_TONE, COPOLAR_TONE = 5.0, 3.0  # dB per unit of an object's tones for HV and VH, and for HH against VV
CLUTTER_SIZE = 2.0  # pixels

HAZE = 0.005  # of the surrounding power, from sidelobes and multiple scattering: it brightens shadows
HAZE_SIZE = 61  # pixels

WALL = np.array([41.9, 41.4, 39.7, 40.4])  # per metre of a wall's height
WALL_SPREAD = 6.0  # dB per unit of the building's tone
SILLS = 0.5  # of the power of a wall, from a line of windows and balconies on each storey
WALL_CLUTTER = 8.0  # dB of variation along these lines
DOUBLE_BOUNCE = np.array([51.2, 46.4, 44.7, 49.6])  # per metre of height of a wall along the flight line
DOUBLE_BOUNCE_CLUTTER = 3.0  # dB of variation along its line: doors, bicycles, uneven paving
GLINT = 15.0  # dB more where a roof is perpendicular to the wave
GLINT_WIDTH = 9.0  # degrees

OPAQUE = 0.45  # of a tree's height; the part above it lets the wave through

POINT = np.array([52.2, 46.4, 44.2, 51.1])  # of the weakest strong scatterer
POINT_SPREAD = 6.0  # dB: standard deviations of its ratios of HV to HH and of HH to VV
POINT_TAIL = 14.0  # dB per standard deviation of grain above the threshold
OFFSETS = np.arange(-12, 13) / 1.25  # from a point, in resolution cells
POINT_RESPONSE = (np.sinc(OFFSETS) ** 2 * np.where(np.abs(OFFSETS) < 1, 1.0, 0.03)).astype(
    np.float32
)  # sidelobes of -28 dB and less


def misalignment_loss(
    built: Float32[np.ndarray, "h w"], row: Int[np.ndarray, " n"], column: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Compute the dB by which the double bounce decreases with the angle between wall and flight line.

    It is 0 at 0 degrees, 9 at 10 degrees and 19 at 45 degrees.

    Args:
        built: smoothed heights of objects with walls
        row, column: pixels of walls; the rows lead away from the sensor
    """
    up, down = np.maximum(row - 1, 0), np.minimum(row + 1, len(built) - 1)
    left, right = np.maximum(column - 1, 0), np.minimum(column + 1, built.shape[1] - 1)
    across, along = built[row, right] - built[row, left], built[down, column] - built[up, column]
    angle = np.degrees(np.arctan2(np.abs(across), np.abs(along)))
    return 14 * (1 - np.exp(-((angle / 10) ** 2))) + 5 * np.minimum(angle / 45, 1)


def polarisation(tone: Float32[np.ndarray, "4 n"]) -> Float32[np.ndarray, "4 n"]:
    """Return the dB by which objects differ in each band beside their common tone.

    Args:
        tone: see `sn6.simulation.ground.Ground.tone`
    """
    cross, copolar = CROSS_TONE * tone[2], COPOLAR_TONE * tone[3]
    return np.stack([copolar, cross, cross, -copolar])
