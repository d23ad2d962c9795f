"""The optical images of a surface: a satellite above, the sun in the south."""

import numpy as np
from jaxtyping import UInt8, UInt16
from scipy.ndimage import gaussian_filter, uniform_filter

from sn6.simulation.ground import Cover
from sn6.simulation.surface import Surface, in_shadow, smooth_noise

BRIGHTEST = 2047  # of 11 bits
SUN = 1.1  # metres of shadow for a metre of height
SHADE = 0.38  # of full light, in shadow
SLOPE = 0.25  # of the light, more on a roof that slopes to the sun, less on the other side
GREY_SHADE = 0.35  # of the light times the tone: things of one kind differ

COLOURS = np.array(  # of each Cover: B, G, R, NIR
    [
        (122, 152, 166, 205),  # STREET
        (165, 210, 240, 285),  # PAVING
        (88, 165, 142, 700),  # LAWN
        (102, 156, 158, 530),  # GARDEN
        (75, 92, 66, 40),  # WATER
        (320, 350, 370, 380),  # CAR
        (58, 115, 85, 620),  # TREE
        (0, 0, 0, 0),  # ROOF: see ROOFS
    ],
    dtype=np.float32,
)
ROOFS = np.array(  # B, G, R, NIR of roofing, from dark to light
    [
        (80, 85, 85, 95),  # bitumen
        (103, 134, 225, 330),  # old tiles
        (165, 168, 170, 175),  # slate
        (122, 177, 360, 480),  # red tiles
        (290, 300, 300, 310),  # gravel
        (470, 520, 545, 590),  # white sheet
    ],
    dtype=np.float32,
)
GRAIN = 1.2  # pixels
ROUGHNESS = np.array([0.05, 0.07, 0.08, 0.15, 0.04, 0.1, 0.3, 0.05], dtype=np.float32)  # of each Cover


def optical_image(surface: Surface, margin: int, rng: np.random.Generator) -> UInt16[np.ndarray, "4 h w"]:
    """B, G, R, NIR at 0.5 m as on disk: 1 to 2047.

    Args:
        surface: with `margin` rows more than wanted at the north and at the south, for the shadows
        rng: draws the texture
    """
    inner = slice(margin, len(surface.cover) - margin)
    cover, tone, tilt = surface.cover[inner], surface.tone[1, inner], surface.tilt[inner]
    shadow = in_shadow(surface.height[::-1], SUN)[::-1][inner]
    texture = smooth_noise(rng, cover.shape, GRAIN)
    light = (1 + ROUGHNESS[cover] * texture) * (1 - SLOPE * tilt) * np.where(shadow, SHADE, 1.0)
    kind = np.floor((tone + 1) / 2 * len(ROOFS)).astype(int).clip(0, len(ROOFS) - 1)
    roof = cover == Cover.ROOF
    light *= np.where(roof, 1.0, 1 + GREY_SHADE * tone)
    image = np.empty((4, *cover.shape), np.uint16)
    for band in range(4):
        colour = np.where(roof, ROOFS[kind, band], COLOURS[cover, band])
        blurred = gaussian_filter((colour * light).astype(np.float32), 0.6)
        image[band] = np.round(blurred).clip(1, BRIGHTEST)
    return image


def natural_colour(image: UInt16[np.ndarray, "4 h w"]) -> UInt8[np.ndarray, "3 h w"]:
    """R, G, B in 8 bits, stretched for the eye; never 0, so that no valid pixel looks like nodata."""
    return np.round(255 * (image[[2, 1, 0]] / 770.0) ** 0.6).clip(1, 255).astype(np.uint8)


def panchromatic(image: UInt16[np.ndarray, "4 h w"]) -> UInt16[np.ndarray, "1 h w"]:
    """One band over the whole spectrum."""
    return np.round(image.mean(axis=0, keepdims=True, dtype=np.float32)).astype(np.uint16)


def multispectral(image: UInt16[np.ndarray, "4 h w"]) -> UInt16[np.ndarray, "4 h2 w2"]:
    """The bands before pansharpening: seen at 2 m, given at 1 m."""
    seen = uniform_filter(image.astype(np.float32), size=(0, 4, 4))
    return np.round(seen[:, 1::2, 1::2]).astype(np.uint16)
