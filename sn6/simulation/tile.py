"""What one tile holds: its images, and the footprints of what it shows."""

from dataclasses import dataclass
from math import ceil, nan

import numpy as np
import shapely
from jaxtyping import Shaped
from shapely import Polygon, box

from sn6.data.layout import PIXEL, PRODUCTS
from sn6.simulation.blocks import HIGHEST
from sn6.simulation.optical import multispectral, natural_colour, optical_image, panchromatic
from sn6.simulation.radar import radar_image, reach
from sn6.simulation.scene import Scene
from sn6.simulation.strips import Tile
from sn6.simulation.surface import painted, surface_of

MARGIN = ceil(reach(HIGHEST) / PIXEL)  # rows around a tile from which a wall or a shadow reaches into it
OPTICAL_EDGE = 1.0  # metres: the optical images are cut to about the radar's ground, here a little within it
SMALLEST = 5.0  # square pixels: a smaller piece of a building is no label


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
    shape, pad = (tile.size, tile.size), MARGIN * PIXEL
    west, south, east, north = tile.bounds
    ground = scene.ground((west, south - pad, east, north + pad))
    surface = surface_of(ground, west, north + pad, (tile.size + 2 * MARGIN, tile.size))
    noise = [np.random.default_rng((scene.seed, 5, tile.number, i)) for i in range(2)]
    seen = painted([tile.strip.seen], west, north, shape)
    radar = radar_image(surface, MARGIN, tile.strip.orientation, noise[0])
    made = {"SAR-Intensity": radar * seen}
    if tile.strip.split == "train":
        image = optical_image(surface, MARGIN, noise[1])
        optical = {
            "PS-RGB": natural_colour(image),
            "PS-RGBNIR": image,
            "RGBNIR": multispectral(image),
            "PAN": panchromatic(image),
        }
        for product, pixels in optical.items():
            inner = tile.strip.seen.buffer(-OPTICAL_EDGE, join_style="mitre")
            mask = painted([inner], west, north, pixels.shape[1:], PRODUCTS[product].pixel)
            made[product] = pixels * mask
    return {product: pixels.astype(PRODUCTS[product].dtype) for product, pixels in made.items()}


def footprints(scene: Scene, tile: Tile) -> list[Footprint]:
    """The buildings of a tile, cut at its edge and at the edge of what its strip shows."""
    ground = scene.ground(tile.bounds)
    ground = ground.where(ground.is_building)
    pieces, owner = shapely.get_parts(
        shapely.intersection(ground.shape, box(*tile.bounds).intersection(tile.strip.seen)), return_index=True
    )
    pixels = shapely.transform(pieces, lambda xy: (xy - (tile.x, tile.y)) / (PIXEL, -PIXEL))
    large = (shapely.get_type_id(pixels) == shapely.GeometryType.POLYGON) & (shapely.area(pixels) >= SMALLEST)
    return [
        Footprint(
            polygon,
            height=ground.height[i] if ground.surveyed[i] else nan,
            deviation=ground.height[i] * (0.15 if ground.pitched[i] else 0.03),
        )
        for polygon, i in zip(pixels[large], owner[large], strict=True)
    ]
