"""What the radar gets back from each material: tables in decibels, chosen so that an archive's values spread as the
published ones do (`sn6.simulation.published`)."""

import numpy as np
from jaxtyping import Float, Float32, Int

FLOOR = 1e-5  # dB: the lowest that a valid pixel holds, since 0 is nodata
BRIGHTEST = 92.9  # dB: the published maximum
STEP = 1 / 64  # dB: the grid of values, far below the speckle; a tile takes half the room on disk
NOISE = np.array([16.5, 27.0, 24.0, 13.5])  # of the receiver: HH, HV, VH, VV; what shadow and calm water show

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
        (28.0, 34.0, 32.5, 25.0),  # SHEET: a mirror, but for its ribs
    ],
    dtype=np.float32,
)
# Of each Cover: dB times the tone of the thing, dB between its parts, and by how many standard deviations a pixel's
# grain has to lie above 0 for a single strong scatterer to stand there.
SPREAD = np.array([3.0, 4.0, 3.5, 3.5, 2.0, 1.5, 3.0, 4.0, 3.0, 4.0, 4.5, 4.5, 5.0], dtype=np.float32)
CLUTTER = np.array([1.5, 1.5, 1.0, 2.5, 2.0, 0.5, 2.0, 3.0, 3.0, 2.5, 2.5, 2.5, 2.5], dtype=np.float32)
POINTS = np.array([3.0, 2.9, 3.6, 2.5, 2.6, 9.0, 1.8, 1.7, 3.2, 2.6, 2.3, 2.4, 2.2], dtype=np.float32)
CLUTTER_SIZE = 2.0  # pixels

HAZE = 0.01  # of the power around, from sidelobes and echoes of echoes: it fills shadows
HAZE_SIZE = 61  # pixels

WALL = np.array([38.0, 43.0, 42.0, 36.0])  # of a metre of wall's height
WALL_SPREAD = 6.0  # dB times the tone of the building
WALL_CLUTTER = 8.0  # dB between windows, balconies and drainpipes
DOUBLE_BOUNCE = np.array([49.0, 47.0, 46.0, 45.0])  # of a metre of a wall along the flight line
GLINT = 15.0  # dB more where a roof lies square to the wave
GLINT_WIDTH = 9.0  # degrees

OPAQUE = 0.45  # of a tree's height; what is higher lets the wave through

POINT = np.array([47.0, 45.0, 43.0, 45.0])  # of the weakest of the strong scatterers
POINT_TAIL = 14.0  # dB for a standard deviation of its grain more
SIDE = np.arange(-24, 25) / 1.25  # of a point's response, in resolution cells
SIDELOBES = (np.sinc(SIDE) ** 2 * np.where(np.abs(SIDE) < 1, 1.0, 0.25)).astype(np.float32)  # -19 dB and falling


def misalignment(
    built: Float32[np.ndarray, "h w"], row: Int[np.ndarray, " n"], column: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """dB that the double bounce loses as a wall turns out of the flight line: 0, 9 at 10 degrees, 19 at 45.

    Args:
        built: heights of what has walls, smoothed
        row, column: pixels of walls, with rows that go away from the sensor
    """
    up, down = np.maximum(row - 1, 0), np.minimum(row + 1, len(built) - 1)
    left, right = np.maximum(column - 1, 0), np.minimum(column + 1, built.shape[1] - 1)
    across, along = built[row, right] - built[row, left], built[down, column] - built[up, column]
    angle = np.degrees(np.arctan2(np.abs(across), np.abs(along)))
    return 14 * (1 - np.exp(-((angle / 10) ** 2))) + 5 * np.minimum(angle / 45, 1)
