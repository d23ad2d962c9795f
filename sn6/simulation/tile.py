"""Render the images of one tile, and cut the footprints that it shows."""

from dataclasses import dataclass
from math import ceil, nan, sqrt

import numpy as np
import shapely
from jaxtyping import Shaped
from shapely import Polygon, box

from sn6.datasets.spacenet6 import PIXEL, PRODUCTS
from sn6.simulation.blocks import MAX_HEIGHT
from sn6.simulation.optical import multispectral, natural_colour, optical_image, pan_sharpen, panchromatic
from sn6.simulation.radar import max_displacement, radar_image
from sn6.simulation.scene import Scene
from sn6.simulation.strips import PlannedTile
from sn6.simulation.surface import MAX_CROWN, rasterize_ground, rasterize_shapes

LABEL_EDGE = 1.5  # metres outside the radar's ground at which labels are cut, so that some are over nodata as published
OPTICAL_EDGE = 1.0  # metres inside the radar's ground at which the optical images are cut
MIN_LABEL_PIXELS = 5.0  # square pixels of a footprint that the radar must show


@dataclass(frozen=True)
class Footprint:
    """One label.

    Attributes:
        polygon: x and y in pixels from the upper left corner of the tile
        height: mean height in metres, NaN where it is unknown
        deviation: standard deviation of the height within the footprint, metres
    """

    polygon: Polygon
    height: float
    deviation: float


def render_products(scene: Scene, tile: PlannedTile) -> dict[str, Shaped[np.ndarray, "bands h w"]]:
    """Render the pixels of each product of a tile as on disk, with 0 for nodata; a test tile has only the radar."""
    shape = (tile.size, tile.size)
    west, south, east, north = tile.bounds
    offset_east, offset_north = tile.strip.offset
    reach = max_displacement(MAX_HEIGHT)
    ground = scene.ground((west - abs(offset_east), south - reach, east + abs(offset_east), north + reach))
    highest = max((ground.height + ground.rise)[ground.is_raised], default=0.0)
    margin = ceil(MAX_CROWN * max_displacement(highest) / PIXEL)  # rows whose objects may be displaced into the tile
    top = north + margin * PIXEL
    padded = (tile.size + 2 * margin, tile.size)
    displaced = rasterize_ground(ground, scene.seed, west - offset_east, top - offset_north, padded)
    rng = np.random.default_rng((scene.seed, 5, tile.number))
    imaged = rasterize_shapes([tile.strip.imaged], west, north, shape)
    radar = radar_image(displaced, margin, tile.strip.orientation, np.array(tile.strip.gain), rng)
    rendered = {"SAR-Intensity": radar * imaged}
    if tile.strip.split == "train":
        image = optical_image(rasterize_ground(ground, scene.seed, west, top, padded), margin)
        colours = pan_sharpen(image)
        optical = {
            "PS-RGB": natural_colour(colours),
            "PS-RGBNIR": colours,
            "RGBNIR": multispectral(image),
            "PAN": panchromatic(image),
        }
        inner = tile.strip.imaged.buffer(-OPTICAL_EDGE, join_style="mitre")
        for product, pixels in optical.items():
            mask = rasterize_shapes([inner], west, north, pixels.shape[1:], PRODUCTS[product].pixel_size)
            rendered[product] = pixels * mask
    return {product: pixels.astype(PRODUCTS[product].dtype) for product, pixels in rendered.items()}


def cut_footprints(scene: Scene, tile: PlannedTile) -> list[Footprint]:
    """Cut the buildings at the edge of a tile and at LABEL_EDGE outside the ground that its strip shows."""
    ground = scene.ground(tile.bounds)
    ground = ground.where(ground.is_building)
    labelled = tile.strip.imaged.buffer(LABEL_EDGE, join_style="mitre")
    parts, owner = shapely.get_parts(
        shapely.intersection(ground.shape, box(*tile.bounds).intersection(labelled)), return_index=True
    )
    shown = shapely.area(shapely.intersection(parts, tile.strip.imaged)) / PIXEL**2
    pixels = shapely.transform(parts, lambda xy: (xy - (tile.x, tile.y)) / (PIXEL, -PIXEL))
    kept = (shapely.get_type_id(pixels) == shapely.GeometryType.POLYGON) & (shown >= MIN_LABEL_PIXELS)
    return [
        Footprint(
            polygon,
            height=ground.height[i] + ground.rise[i] / 2 if ground.surveyed[i] else nan,
            deviation=0.03 * ground.height[i] + ground.rise[i] / sqrt(12),
        )
        for polygon, i in zip(pixels[kept], owner[kept], strict=True)
    ]
