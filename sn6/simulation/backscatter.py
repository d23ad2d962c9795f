"""Tabulate the backscatter of each material in decibels.

The values are chosen so that those of a simulated archive are distributed as the published ones (see
`sn6.inspection.reference`).
"""

import numpy as np
from jaxtyping import Float, Float32, Int

MIN_VALUE = 1e-5  # dB: of a valid pixel, since 0 is nodata
MAX_VALUE = 92.9  # dB: the published maximum
STEP = 1 / 64  # dB: values are multiples of it, far below the speckle, which halves the size of a tile on disk
NOISE = np.array([16.5, 27.0, 24.0, 13.5])  # of the receiver: HH, HV, VH, VV; visible in shadow and on calm water

BACKSCATTER = np.array(  # of each Cover: HH, HV, VH, VV
    [
        (28.0, 34.0, 32.5, 25.0),  # STREET
        (30.5, 36.5, 35.0, 27.5),  # PAVING
        (33.5, 39.5, 38.0, 30.5),  # LAWN
        (35.0, 41.5, 40.0, 32.0),  # GARDEN
        (34.0, 38.5, 37.0, 31.0),  # RAIL
        (13.0, 18.0, 15.5, 12.0),  # WATER
        (38.0, 42.0, 40.0, 35.0),  # CAR
        (39.0, 43.0, 41.0, 36.0),  # METAL
        (36.0, 45.5, 44.0, 33.0),  # TREE: volume scattering
        (34.5, 40.5, 39.0, 31.5),  # TILES
        (31.5, 37.5, 36.0, 28.5),  # BITUMEN
        (34.5, 41.0, 39.5, 31.5),  # GRAVEL
        (28.0, 34.0, 32.5, 25.0),  # SHEET: specular except for its ribs
    ],
    dtype=np.float32,
)
# Of each Cover: dB per unit of the object's tone, dB of variation within an object, and how many standard deviations
# above 0 the grain of a pixel must be for a single strong scatterer there.
SPREAD = np.array([3.0, 4.0, 3.5, 3.5, 2.0, 1.5, 3.0, 4.0, 3.0, 4.0, 4.5, 4.5, 5.0], dtype=np.float32)
CLUTTER = np.array([1.5, 1.5, 1.0, 2.5, 2.0, 0.5, 2.0, 3.0, 3.0, 2.5, 2.5, 2.5, 2.5], dtype=np.float32)
POINTS = np.array([3.0, 2.9, 3.6, 2.5, 2.6, 9.0, 1.8, 1.7, 3.2, 2.6, 2.3, 2.4, 2.2], dtype=np.float32)
CLUTTER_SIZE = 2.0  # pixels

HAZE = 0.01  # of the surrounding power, from sidelobes and multiple scattering: it brightens shadows
HAZE_SIZE = 61  # pixels

WALL = np.array([38.0, 43.0, 42.0, 36.0])  # per metre of a wall's height
WALL_SPREAD = 6.0  # dB per unit of the building's tone
WALL_CLUTTER = 8.0  # dB of variation by windows, balconies and drainpipes
DOUBLE_BOUNCE = np.array([49.0, 47.0, 46.0, 45.0])  # per metre of height of a wall along the flight line
GLINT = 15.0  # dB more where a roof is perpendicular to the wave
GLINT_WIDTH = 9.0  # degrees

OPAQUE = 0.45  # of a tree's height; the part above it lets the wave through

POINT = np.array([47.0, 45.0, 43.0, 45.0])  # of the weakest strong scatterer
POINT_TAIL = 14.0  # dB per standard deviation of grain above the threshold
OFFSETS = np.arange(-24, 25) / 1.25  # from a point, in resolution cells
POINT_RESPONSE = (np.sinc(OFFSETS) ** 2 * np.where(np.abs(OFFSETS) < 1, 1.0, 0.25)).astype(
    np.float32
)  # sidelobes of -19 dB and less


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
