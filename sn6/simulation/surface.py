"""Rasterize the ground to the surface that the sensors image."""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
import shapely
from jaxtyping import Bool, Float, Float32, Int, Shaped
from rasterio.features import rasterize
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter
from shapely.geometry.base import BaseGeometry

from sn6.datasets.spacenet6 import PIXEL
from sn6.simulation.ground import FIRST_ROOF, Cover, Ground

BLOCK = 256  # pixels of grain that are drawn at a time
ROW_ORIGIN = 10_000_000.0  # metres north; rows are counted from here, so that none is negative
CROWN_ROUGHNESS = 0.12  # of a tree's height
MAX_CROWN = 1.3  # of a tree's height, the top of its rough crown
CROWN_GRAIN = 1.5  # pixels


@dataclass(frozen=True)
class Surface:
    """Rasters of one part of the ground, north up, 0.5 m per pixel.

    Attributes:
        cover: a Cover
        height: metres above the ground, with the slopes of roofs and the crowns of trees
        tone: random numbers of the object, -1 to 1, see Ground.tone
        grain: two random numbers per pixel, Gaussian of variance 1, that depend only on the coordinates, so that every
            pass sees the same details: chimneys, gutters, leaves, stones
    """

    cover: Int[np.ndarray, "h w"]
    height: Float32[np.ndarray, "h w"]
    tone: Float32[np.ndarray, "4 h w"]
    grain: Float32[np.ndarray, "2 h w"]

    def flipped(self) -> "Surface":
        """Return the surface with south up."""
        return type(self)(**{f.name: getattr(self, f.name)[..., ::-1, :] for f in fields(self)})

    @property
    def is_roof(self) -> Bool[np.ndarray, "h w"]:
        return self.cover >= FIRST_ROOF


def rasterize_ground(ground: Ground, seed: int, x: float, y: float, shape: tuple[int, int]) -> Surface:
    """Rasterize the objects of `ground` in their order.

    Args:
        ground: as Scene.ground returns it
        seed: of the scene, for the grain
        x, y: the upper left corner, metres
        shape: height and width in pixels
    """
    number = rasterize_shapes(ground.shape, x, y, shape)

    def raster(values: Shaped[np.ndarray, " n"]) -> Float32[np.ndarray, "h w"]:
        return np.concatenate([[0], values]).astype(np.float32)[number]  # 0 on the street, which is no object

    cover = raster(ground.cover).astype(np.int8)
    grain = np.stack([grain_at((seed, 6, channel), x, y, shape) for channel in range(2)])
    height = raster(ground.height)
    tree = np.nonzero(cover == Cover.TREE)
    coordinates = (x + (tree[1] + 0.5) * PIXEL, y - (tree[0] + 0.5) * PIXEL)
    height[tree] *= crown_profile(ground, number[tree] - 1, coordinates)
    height[tree] *= np.clip(1 + CROWN_ROUGHNESS * smooth_noise(grain[1], CROWN_GRAIN)[tree], 0.5, MAX_CROWN)
    pitched = ground.rise > 0
    if pitched.any():
        owner = np.concatenate([[0], np.cumsum(pitched) * pitched])[number]
        height += roof_slopes(ground.where(pitched), owner, x, y)
    return Surface(cover, height, np.stack([raster(tone) for tone in ground.tone.T]), grain)


def crown_profile(
    ground: Ground, owner: Int[np.ndarray, " n"], coordinates: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]
) -> Float[np.ndarray, " n"]:
    """Compute the height of round crowns as a fraction of the tree's height: 1 in the centre, 0.3 at the rim.

    Args:
        ground: with the trees
        owner: the row of the tree at each point
        coordinates: easting and northing of each point, metres
    """
    centre, radius2 = shapely.centroid(ground.shape), shapely.area(ground.shape) / np.pi
    x, y = coordinates
    distance2 = (x - shapely.get_x(centre)[owner]) ** 2 + (y - shapely.get_y(centre)[owner]) ** 2
    return 1 - 0.7 * np.clip(distance2 / radius2[owner], 0, 1)


def roof_slopes(roofs: Ground, owner: Int[np.ndarray, "h w"], x: float, y: float) -> Float32[np.ndarray, "h w"]:
    """Compute the metres above the eaves of gable roofs, which fall evenly from the ridge in the middle to both sides.

    Args:
        roofs: the pitched ones
        owner: row + 1 of the roof at each pixel; 0 where there is none
        x, y: the upper left corner, metres
    """
    normal_x, normal_y = -np.sin(roofs.angle), np.cos(roofs.angle)
    vertices, roof = shapely.get_coordinates(roofs.shape, return_index=True)
    across = vertices[:, 0] * normal_x[roof] + vertices[:, 1] * normal_y[roof]
    start = np.flatnonzero(np.diff(roof, prepend=-1))
    low, high = np.minimum.reduceat(across, start), np.maximum.reduceat(across, start)
    row, column = np.nonzero(owner)
    i = owner[row, column] - 1
    pixel_across = (x + (column + 0.5) * PIXEL) * normal_x[i] + (y - (row + 0.5) * PIXEL) * normal_y[i]
    from_ridge = np.abs(pixel_across - (low + high)[i] / 2) / ((high - low)[i] / 2)
    slopes = np.zeros(owner.shape, np.float32)
    slopes[row, column] = roofs.rise[i] * np.clip(1 - from_ridge, 0, 1)
    return slopes


def grain_at(key: tuple[int, ...], x: float, y: float, shape: tuple[int, int]) -> Float32[np.ndarray, "h w"]:
    """Draw Gaussian noise of variance 1 as a function of the coordinates, to the nearest pixel.

    Args:
        key: seed of the noise
        x, y: the upper left corner, metres
        shape: height and width in pixels
    """
    row, column = round((ROW_ORIGIN - y) / PIXEL), round(x / PIXEL)
    rows = range(row // BLOCK, (row + shape[0] - 1) // BLOCK + 1)
    columns = range(column // BLOCK, (column + shape[1] - 1) // BLOCK + 1)
    size = (BLOCK, BLOCK)
    blocks = [[np.random.default_rng((*key, r, c)).standard_normal(size, "f4") for c in columns] for r in rows]
    inner = np.s_[row % BLOCK : row % BLOCK + shape[0], column % BLOCK : column % BLOCK + shape[1]]
    return np.block(blocks)[inner]


def smooth_noise(noise: Float32[np.ndarray, "h w"], size: float) -> Float32[np.ndarray, "h w"]:
    """Filter white noise by a Gaussian of `size` pixels and rescale it to variance 1."""
    return gaussian_filter(noise, size) * np.float32(2 * np.sqrt(np.pi) * size)


def skyline(height: Float32[np.ndarray, "h w"], length: float) -> Float[np.ndarray, "h w"]:
    """Compute for each row the highest ray that meets the surface up to it; the rays descend from beyond row 0.

    A ray descends by PIXEL / length per row and is identified by its height above row 0. A surface under the skyline is
    in shadow; flat ground is lit where the skyline rises by that much per row.

    Args:
        height: metres; the rows lead away from the source
        length: of the shadow, in metres for a metre of height
    """
    return np.maximum.accumulate(ray_heights(height, length), axis=0)


def ray_heights(height: Float32[np.ndarray, "h w"], length: float) -> Float[np.ndarray, "h w"]:
    """Compute the ray (see `skyline`) that meets the surface at each pixel."""
    return height + np.arange(len(height))[:, None] * (PIXEL / length)


def rasterize_shapes(
    shapes: Iterable[BaseGeometry], x: float, y: float, shape: tuple[int, int], pixel: float = PIXEL
) -> Int[np.ndarray, "h w"]:
    """Rasterize shapes; each pixel holds the number, from 1, of the last shape that contains its centre, or 0.

    Args:
        shapes: metres
        x, y: the upper left corner, metres
        shape: height and width in pixels
        pixel: metres
    """
    numbered = [(one, number) for number, one in enumerate(shapes, start=1)]
    if not numbered:  # rasterio accepts no empty list
        return np.zeros(shape, dtype=np.int32)
    return rasterize(numbered, out_shape=shape, transform=from_origin(x, y, pixel, pixel), dtype=np.int32)
