"""Render the optical images of a surface, from a satellite a little south of the zenith, with the sun in the south."""

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8, UInt16
from scipy.ndimage import gaussian_filter, uniform_filter

from sn6.datasets.spacenet6 import PIXEL
from sn6.simulation.ground import Cover
from sn6.simulation.surface import Surface, ray_heights, skyline, smooth_noise

MAX_COUNT = 2047  # of 11 bits
SHADOW_LENGTH = 1.0  # metres of shadow for a metre of height
SHADOW_LIGHT = 0.35  # of full light, in shadow
SHADOW_TOLERANCE = 0.3  # metres under the skyline that are still lit
SLOPE_LIGHT = 0.45  # of the light, added for a slope of 1 toward the sun
RELIEF_DISPLACEMENT = 0.12  # metres to the north for a metre of height: the satellite is 7 degrees off nadir
FACADE_LIGHT = 0.55  # of the light of a roof, on the wall under its edge
TONE = 0.4  # of the logarithm of the light, per unit of an object's tone
GRAIN = 1.0  # pixels
PAN_BLUR = 0.6  # pixels: the sharpness of the panchromatic band
COLOUR_RESOLUTION = 4  # pixels: the coloured bands have a resolution of 2 m
WHITE = np.array([750.0, 650.0, 560.0])  # counts of R, G, B that are white in PS-RGB
PAN_WEIGHTS = np.array([0.2, 0.3, 0.3, 0.2], dtype=np.float32)  # of B, G, R, NIR in the panchromatic band

COLOURS = np.array(  # of each Cover: B, G, R, NIR
    [
        (152, 183, 206, 240),  # STREET
        (201, 248, 288, 330),  # PAVING
        (39, 109, 75, 700),  # LAWN
        (70, 113, 115, 420),  # GARDEN
        (102, 130, 163, 220),  # RAIL
        (49, 68, 48, 28),  # WATER
        (353, 392, 451, 480),  # CAR
        (197, 218, 259, 280),  # METAL
        (25, 65, 43, 520),  # TREE
        (150, 170, 190, 240),  # CORNER
        (75, 105, 112, 260),  # FENCE
        (300, 340, 380, 420),  # FITTING
        (74, 109, 216, 310),  # TILES
        (105, 115, 128, 150),  # BITUMEN
        (238, 274, 317, 350),  # GRAVEL
        (525, 592, 662, 720),  # SHEET
    ],
    dtype=np.float32,
)
ROUGHNESS = np.array(  # of each Cover: standard deviation of the logarithm of the light
    [0.12, 0.15, 0.10, 0.45, 0.2, 0.05, 0.3, 0.4, 0.35, 0.2, 0.2, 0.3, 0.12, 0.15, 0.12, 0.08], dtype=np.float32
)


def optical_image(surface: Surface, margin: int) -> Float32[np.ndarray, "4 h w"]:
    """Render the light in B, G, R, NIR at 0.5 m, in counts.

    Args:
        surface: with `margin` additional rows at the north and at the south, for shadows and displaced walls
        margin: rows
    """
    height, cover = surface.height, surface.cover
    rays = ray_heights(height[::-1], SHADOW_LENGTH)
    shaded = (skyline(height[::-1], SHADOW_LENGTH) > rays + SHADOW_TOLERANCE)[::-1]
    slope = np.clip(-np.gradient(height, PIXEL, axis=0), -1.2, 1.2) * (cover == Cover.TILES)  # toward the south
    texture = ROUGHNESS[cover] * smooth_noise(surface.grain[0], GRAIN) + TONE * surface.tone[1]
    light = np.exp(texture) * (1 + SLOPE_LIGHT * slope) * np.where(shaded, SHADOW_LIGHT, 1.0)
    source, facade = relief_displacement(height)
    inner = slice(margin, len(cover) - margin)
    source, facade = source[inner], facade[inner]
    columns = np.arange(cover.shape[1])
    light = light[source, columns] * np.where(facade, FACADE_LIGHT, 1.0)
    return (COLOURS.T[:, cover[source, columns]] * light).astype(np.float32)


def relief_displacement(height: Float32[np.ndarray, "h w"]) -> tuple[Int[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Compute which row of the surface each pixel shows, and whether it shows the wall below that row.

    A point at `height` metres is imaged RELIEF_DISPLACEMENT · height metres north of its position. A line of sight
    meets the southernmost row that it passes under.
    """
    imaged_row = np.arange(len(height))[:, None] - height * (RELIEF_DISPLACEMENT / PIXEL)
    first = np.clip(np.ceil(imaged_row - 0.5).astype(int), 0, None)
    source = np.zeros(height.shape, int)
    columns = np.arange(height.shape[1])
    for row in range(len(height)):  # a later row, further south, hides the earlier ones
        source[first[row], columns] = row
    source = np.maximum.accumulate(source, axis=0)
    facade = np.arange(len(height))[:, None] - imaged_row[source, columns] > 0.75  # the gap on a sloped roof is smaller
    return source, facade


def pan_sharpen(image: Float32[np.ndarray, "4 h w"]) -> UInt16[np.ndarray, "4 h w"]:
    """Add the detail of the panchromatic band to the colours, which have a resolution of 2 m: PS-RGBNIR.

    A. R. Gillespie, A. B. Kahle, R. E. Walker, Color enhancement of highly correlated images II, Remote Sensing of
    Environment 22, 1987: each band times the ratio of the sharp to the coarse panchromatic one.
    """
    pan = panchromatic_light(image)
    detail = pan / np.maximum(uniform_filter(pan, COLOUR_RESOLUTION), 1.0)
    return to_counts(uniform_filter(image, (0, COLOUR_RESOLUTION, COLOUR_RESOLUTION)) * detail)


def natural_colour(image: UInt16[np.ndarray, "4 h w"]) -> UInt8[np.ndarray, "3 h w"]:
    """Stretch R, G, B to 8 bits for display, without 0, which is nodata: PS-RGB."""
    return np.round(255 * (image[[2, 1, 0]] / WHITE[:, None, None]) ** 0.6).clip(1, 255).astype(np.uint8)


def panchromatic(image: Float32[np.ndarray, "4 h w"]) -> UInt16[np.ndarray, "1 h w"]:
    """Return one band of the whole spectrum: PAN."""
    return to_counts(panchromatic_light(image)[None])


def panchromatic_light(image: Float32[np.ndarray, "4 h w"]) -> Float32[np.ndarray, "h w"]:
    """Average the bands by PAN_WEIGHTS and blur by PAN_BLUR."""
    return gaussian_filter(np.tensordot(PAN_WEIGHTS, image, axes=1), PAN_BLUR)


def multispectral(image: Float32[np.ndarray, "4 h w"]) -> UInt16[np.ndarray, "4 h2 w2"]:
    """Return the bands before pan-sharpening, with a resolution of 2 m, sampled at 1 m: RGBNIR."""
    return to_counts(uniform_filter(image, (0, COLOUR_RESOLUTION, COLOUR_RESOLUTION))[:, 1::2, 1::2])


def to_counts(light: Float32[np.ndarray, "b h w"]) -> UInt16[np.ndarray, "b h w"]:
    """Round to the integers on disk, 1 to 2047."""
    return np.round(light).clip(1, MAX_COUNT).astype(np.uint16)
