"""The optical images of a surface: a satellite stands a little south of the zenith, the sun in the south."""

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8, UInt16
from scipy.ndimage import gaussian_filter, uniform_filter

from sn6.datasets.layout import PIXEL
from sn6.simulation.ground import Cover
from sn6.simulation.surface import Surface, rays, skyline, smooth

BRIGHTEST = 2047  # of 11 bits
SUN = 1.0  # metres of shadow for a metre of height
SHADE = 0.35  # of full light, in shadow
SKIM = 0.3  # metres under the skyline that are still in light
SLOPE = 0.45  # of the light, more for a rise of 1 toward the sun's side
LEAN = 0.12  # metres to the north for a metre of height: the satellite is 7 degrees off nadir
FACADE = 0.55  # of the light of a roof, on the wall under its edge
TONE = 0.4  # of the logarithm of the light times the tone: things of one kind differ
GRAIN = 1.0  # pixels
BLUR = 0.6  # pixels: the sharpness of the panchromatic band
COARSE = 4  # pixels: the coloured bands are seen at 2 m
WHITE = np.array([750.0, 650.0, 560.0])  # counts of R, G, B that PS-RGB shows as white
PAN_SHARES = np.array([0.2, 0.3, 0.3, 0.2], dtype=np.float32)  # of B, G, R, NIR in the panchromatic band

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
        (74, 109, 216, 310),  # TILES
        (105, 115, 128, 150),  # BITUMEN
        (238, 274, 317, 350),  # GRAVEL
        (525, 592, 662, 720),  # SHEET
    ],
    dtype=np.float32,
)
ROUGHNESS = np.array(  # of each Cover: deviation of the logarithm of the light
    [0.12, 0.15, 0.10, 0.45, 0.2, 0.05, 0.3, 0.4, 0.35, 0.12, 0.15, 0.12, 0.08], dtype=np.float32
)


def optical_image(surface: Surface, margin: int) -> Float32[np.ndarray, "4 h w"]:
    """B, G, R, NIR as light comes from the ground, at 0.5 m, in counts.

    Args:
        surface: with `margin` rows more than wanted at the north and at the south, for shadows and leaning walls
    """
    height, cover = surface.height, surface.cover
    shaded = (skyline(height[::-1], SUN) > rays(height[::-1], SUN) + SKIM)[::-1]
    falls = np.clip(-np.gradient(height, PIXEL, axis=0), -1.2, 1.2) * (cover == Cover.TILES)
    texture = ROUGHNESS[cover] * smooth(surface.grain[0], GRAIN) + TONE * surface.tone[1]
    light = np.exp(texture) * (1 + SLOPE * falls) * np.where(shaded, SHADE, 1.0)
    source, facade = leaning(height)
    inner = slice(margin, len(cover) - margin)
    source, facade = source[inner], facade[inner]
    columns = np.arange(cover.shape[1])
    light = light[source, columns] * np.where(facade, FACADE, 1.0)
    return (COLOURS.T[:, cover[source, columns]] * light).astype(np.float32)


def leaning(height: Float32[np.ndarray, "h w"]) -> tuple[Int[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """The row of the surface that each pixel shows, and whether it shows the wall below it.

    What is `height` metres high shows LEAN · height metres north of its place. A line of sight meets the
    southernmost row that it passes under.
    """
    shown = np.arange(len(height))[:, None] - height * (LEAN / PIXEL)
    first = np.clip(np.ceil(shown - 0.5).astype(int), 0, None)
    source = np.zeros(height.shape, int)
    columns = np.arange(height.shape[1])
    for row in range(len(height)):  # a later row, further south, hides the earlier ones
        source[first[row], columns] = row
    source = np.maximum.accumulate(source, axis=0)
    facade = np.arange(len(height))[:, None] - shown[source, columns] > 0.75  # no slope of a roof leaves a gap so wide
    return source, facade


def sharpened(image: Float32[np.ndarray, "4 h w"]) -> UInt16[np.ndarray, "4 h w"]:
    """The colours, seen at 2 m, with the detail of the panchromatic band: PS-RGBNIR.

    A. R. Gillespie, A. B. Kahle, R. E. Walker, Color enhancement of highly correlated images II, Remote Sensing of
    Environment 22, 1987: each band times the ratio of the sharp to the coarse panchromatic one.
    """
    pan = light_of_pan(image)
    detail = pan / np.maximum(uniform_filter(pan, COARSE), 1.0)
    return counts(uniform_filter(image, (0, COARSE, COARSE)) * detail)


def natural_colour(image: UInt16[np.ndarray, "4 h w"]) -> UInt8[np.ndarray, "3 h w"]:
    """R, G, B in 8 bits, stretched for the eye; never 0, so that no valid pixel looks like nodata: PS-RGB."""
    return np.round(255 * (image[[2, 1, 0]] / WHITE[:, None, None]) ** 0.6).clip(1, 255).astype(np.uint8)


def panchromatic(image: Float32[np.ndarray, "4 h w"]) -> UInt16[np.ndarray, "1 h w"]:
    """One band over the whole spectrum: PAN."""
    return counts(light_of_pan(image)[None])


def light_of_pan(image: Float32[np.ndarray, "4 h w"]) -> Float32[np.ndarray, "h w"]:
    return gaussian_filter(np.tensordot(PAN_SHARES, image, axes=1), BLUR)


def multispectral(image: Float32[np.ndarray, "4 h w"]) -> UInt16[np.ndarray, "4 h2 w2"]:
    """The bands before pan-sharpening: seen at 2 m, given at 1 m: RGBNIR."""
    return counts(uniform_filter(image, (0, COARSE, COARSE))[:, 1::2, 1::2])


def counts(light: Float32[np.ndarray, "b h w"]) -> UInt16[np.ndarray, "b h w"]:
    """As on disk, 1 to 2047."""
    return np.round(light).clip(1, BRIGHTEST).astype(np.uint16)
