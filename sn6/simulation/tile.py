"""What one tile holds: its images, and the footprints of what it shows."""

from dataclasses import dataclass
from math import ceil, nan, sqrt

import numpy as np
import shapely
from jaxtyping import Shaped
from shapely import Polygon, box

from sn6.datasets.layout import PIXEL, PRODUCTS
from sn6.simulation.blocks import HIGHEST
from sn6.simulation.optical import multispectral, natural_colour, optical_image, panchromatic, sharpened
from sn6.simulation.radar import radar_image, reach
from sn6.simulation.scene import Scene
from sn6.simulation.strips import Tile
from sn6.simulation.surface import TALLEST, painted, surface_of

LABEL_EDGE = 1.5  # metres: the labels are cut a little outside the radar's ground, so some lie over nodata
OPTICAL_EDGE = 1.0  # metres: the optical images are cut to about the radar's ground, here a little within it
SMALLEST = 5.0  # square pixels: a piece of a building of which less is shown is no label


@dataclass(frozen=True)
class Footprint:
    """A label.

    Attributes:
        polygon: x and y in pixels from the upper left corner of the tile
        height: mean height in metres, NaN where it is not known
        deviation: of the heights within the footprint, metres
    """

    polygon: Polygon
    height: float
    deviation: float


def images(scene: Scene, tile: Tile) -> dict[str, Shaped[np.ndarray, "bands h w"]]:
    """The pixels of each product of a tile as on disk; a test tile has no optical ones. Nodata is 0."""
    shape = (tile.size, tile.size)
    west, south, east, north = tile.bounds
    away_east, away_north = tile.strip.offset
    far, beside = reach(HIGHEST), abs(away_east)
    ground = scene.ground((west - beside, south - far, east + beside, north + far))
    highest = max((ground.height + ground.rise)[ground.is_standing], default=0.0)
    margin = ceil(TALLEST * reach(highest) / PIXEL)  # rows from which something shows in the tile
    top = north + margin * PIXEL
    padded = (tile.size + 2 * margin, tile.size)
    shifted = surface_of(ground, scene.seed, west - away_east, top - away_north, padded)
    noise = np.random.default_rng((scene.seed, 5, tile.number))
    seen = painted([tile.strip.seen], west, north, shape)
    radar = radar_image(shifted, margin, tile.strip.orientation, np.array(tile.strip.gain), noise)
    made = {"SAR-Intensity": radar * seen}
    if tile.strip.split == "train":
        image = optical_image(surface_of(ground, scene.seed, west, top, padded), margin)
        colours = sharpened(image)
        optical = {
            "PS-RGB": natural_colour(colours),
            "PS-RGBNIR": colours,
            "RGBNIR": multispectral(image),
            "PAN": panchromatic(image),
        }
        for product, pixels in optical.items():
            inner = tile.strip.seen.buffer(-OPTICAL_EDGE, join_style="mitre")
            mask = painted([inner], west, north, pixels.shape[1:], PRODUCTS[product].pixel)
            made[product] = pixels * mask
    return {product: pixels.astype(PRODUCTS[product].dtype) for product, pixels in made.items()}


def footprints(scene: Scene, tile: Tile) -> list[Footprint]:
    """The buildings of a tile, cut at its edge and LABEL_EDGE outside what its strip shows."""
    ground = scene.ground(tile.bounds)
    ground = ground.where(ground.is_building)
    labelled = tile.strip.seen.buffer(LABEL_EDGE, join_style="mitre")
    pieces, owner = shapely.get_parts(
        shapely.intersection(ground.shape, box(*tile.bounds).intersection(labelled)), return_index=True
    )
    shown = shapely.area(shapely.intersection(pieces, tile.strip.seen)) / PIXEL**2
    pixels = shapely.transform(pieces, lambda xy: (xy - (tile.x, tile.y)) / (PIXEL, -PIXEL))
    large = (shapely.get_type_id(pixels) == shapely.GeometryType.POLYGON) & (shown >= SMALLEST)
    return [
        Footprint(
            polygon,
            height=ground.height[i] + ground.rise[i] / 2 if ground.surveyed[i] else nan,
            deviation=0.03 * ground.height[i] + ground.rise[i] / sqrt(12),
        )
        for polygon, i in zip(pixels[large], owner[large], strict=True)
    ]
