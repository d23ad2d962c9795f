"""Tabulate the backscatter of each material in decibels.

The values are chosen so that those of a simulated archive are distributed as the published ones (see
`sn6.inspection.reference`).
"""

import numpy as np
from jaxtyping import Float, Float32, Int

MIN_VALUE = 1e-5  # dB: of a valid pixel, since 0 is nodata
MAX_VALUE = 92.9  # dB: the published maximum
STEP = 1 / 64  # dB: values are multiples of it, far below the speckle, which halves the size of a tile on disk
NOISE = np.array([20.6, 32.4, 29.0, 17.2])  # of the receiver: HH, HV, VH, VV; most of a cross-polarised image
# dB of HH that the antenna lets into HV, and of VV into VH, in the units of these bands: 12 dB under the copolar gain.
CROSSTALK = np.array([-4.6, -3.8])

BACKSCATTER = np.array(  # of each Cover: HH, HV, VH, VV
    [
        (30.0, 34.0, 32.1, 27.0),  # STREET
        (31.0, 35.5, 33.6, 28.0),  # PAVING
        (32.5, 37.0, 35.1, 29.5),  # LAWN
        (34.0, 38.5, 36.6, 31.0),  # GARDEN
        (33.0, 37.0, 35.1, 30.0),  # RAIL
        (18.5, 20.7, 18.7, 15.5),  # WATER
        (36.5, 38.9, 37.0, 33.5),  # CAR
        (40.0, 41.9, 40.0, 37.0),  # METAL
        (34.0, 40.5, 38.6, 31.0),  # TREE: volume scattering
        (70.0, 55.7, 53.8, 67.0),  # CORNER
        (33.0, 38.0, 36.1, 30.0),  # FENCE
        (35.0, 38.9, 37.0, 32.0),  # FITTING
        (32.5, 37.0, 35.1, 29.5),  # TILES
        (29.5, 34.5, 32.6, 26.5),  # BITUMEN
        (32.0, 37.5, 35.6, 29.0),  # GRAVEL
        (28.0, 33.0, 31.1, 25.0),  # SHEET: specular except for its ribs
    ],
    dtype=np.float32,
)
# Of each Cover: dB per unit of the object's tone, dB of variation within an object, and how many standard deviations
# above 0 the grain of a pixel must be for a single strong scatterer there.
SPREAD = np.array([2.0, 2.5, 2.0, 2.0, 2.0, 1.5, 3.0, 4.0, 2.0, 3.0, 3.0, 4.0, 3.5, 3.5, 3.5, 3.5], dtype=np.float32)
CLUTTER = np.array([1.5, 1.5, 1.0, 2.0, 2.0, 0.5, 2.0, 3.0, 2.0, 2.0, 3.0, 3.0, 2.0, 2.0, 2.0, 2.0], dtype=np.float32)
POINTS = np.array([3.4, 3.2, 3.9, 3.0, 2.9, 9.0, 2.0, 1.8, 3.6, 9.0, 2.4, 1.2, 3.0, 2.6, 2.7, 2.5], dtype=np.float32)
CROSS_TONE, COPOLAR_TONE = 5.0, 3.0  # dB per unit of an object's tones for HV and VH, and for HH against VV
CLUTTER_SIZE = 2.0  # pixels

HAZE = 0.005  # of the surrounding power, from sidelobes and multiple scattering: it brightens shadows
HAZE_SIZE = 61  # pixels

WALL = np.array([43.0, 42.0, 39.8, 41.0])  # per metre of a wall's height
WALL_SPREAD = 6.0  # dB per unit of the building's tone
SILLS = 0.5  # of the power of a wall, from a line of windows and balconies on each storey
WALL_CLUTTER = 8.0  # dB of variation along these lines
DOUBLE_BOUNCE = np.array([53.0, 48.0, 46.0, 51.0])  # per metre of height of a wall along the flight line
GLINT = 15.0  # dB more where a roof is perpendicular to the wave
GLINT_WIDTH = 9.0  # degrees

OPAQUE = 0.45  # of a tree's height; the part above it lets the wave through

POINT = np.array([53.5, 47.0, 44.0, 52.0])  # of the weakest strong scatterer
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
