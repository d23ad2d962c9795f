"""The ground as pixels: what the sensors look at."""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
import shapely
from jaxtyping import Bool, Float, Float32, Int, Shaped
from rasterio.features import rasterize
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter
from shapely.geometry.base import BaseGeometry

from sn6.datasets.layout import PIXEL
from sn6.simulation.ground import ROOFS, Cover, Ground

BLOCK = 256  # pixels of grain that are drawn at a time
FAR_NORTH = 10_000_000.0  # metres; rows are counted from here, so that none is negative
CROWN = 0.12  # of a tree's height, the roughness of its crown
TALLEST = 1.3  # of a tree's height, the top of its crown
CROWN_GRAIN = 1.5  # pixels


@dataclass(frozen=True)
class Surface:
    """Rasters of one piece of ground, north up, 0.5 m a pixel.

    Attributes:
        cover: a Cover
        height: metres above the ground, with the slopes of roofs and the crowns of trees
        tone: two random numbers a thing, -1 to 1: for the radar, for the optical images
        grain: two random numbers a pixel, Gaussian of variance 1, that belong to the place: what every pass sees of
            chimneys, gutters, leaves and stones
    """

    cover: Int[np.ndarray, "h w"]
    height: Float32[np.ndarray, "h w"]
    tone: Float32[np.ndarray, "2 h w"]
    grain: Float32[np.ndarray, "2 h w"]

    def mirrored(self) -> "Surface":
        """The same with south up."""
        return type(self)(**{f.name: getattr(self, f.name)[..., ::-1, :] for f in fields(self)})

    @property
    def is_roof(self) -> Bool[np.ndarray, "h w"]:
        return self.cover >= ROOFS


def surface_of(ground: Ground, seed: int, x: float, y: float, shape: tuple[int, int]) -> Surface:
    """Paints the things of `ground` in their order.

    Args:
        ground: as Scene.ground gives it
        seed: of the scene, for the grain
        x, y: the upper left corner, metres
        shape: height and width in pixels
    """
    thing = painted(ground.shape, x, y, shape)

    def raster(values: Shaped[np.ndarray, " n"]) -> Float32[np.ndarray, "h w"]:
        return np.concatenate([[0], values]).astype(np.float32)[thing]  # 0 where there is only street

    cover = raster(ground.cover).astype(np.int8)
    grain = np.stack([grain_of((seed, 6, channel), x, y, shape) for channel in range(2)])
    height = raster(ground.height)
    tree = np.nonzero(cover == Cover.TREE)
    height[tree] *= crowns(ground, thing[tree] - 1, (x + (tree[1] + 0.5) * PIXEL, y - (tree[0] + 0.5) * PIXEL))
    height[tree] *= np.clip(1 + CROWN * smooth(grain[1], CROWN_GRAIN)[tree], 0.5, TALLEST)
    sloped = ground.where(ground.rise > 0)
    if len(sloped.rise):
        owner = np.concatenate([[0], np.cumsum(ground.rise > 0) * (ground.rise > 0)])[thing]
        height += roof_slopes(sloped, owner, x, y)
    return Surface(cover, height, np.stack([raster(ground.tone[:, 0]), raster(ground.tone[:, 1])]), grain)


def crowns(
    ground: Ground, owner: Int[np.ndarray, " n"], place: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]
) -> Float[np.ndarray, " n"]:
    """The height of round crowns at some places, as a share of the whole tree's: 1 in the middle, 0.3 at the rim.

    Args:
        ground: with the trees
        owner: the row of the tree at each place
        place: easting and northing, metres
    """
    middle, radius2 = shapely.centroid(ground.shape), shapely.area(ground.shape) / np.pi
    away2 = (place[0] - shapely.get_x(middle)[owner]) ** 2 + (place[1] - shapely.get_y(middle)[owner]) ** 2
    return 1 - 0.7 * np.clip(away2 / radius2[owner], 0, 1)


def roof_slopes(roofs: Ground, owner: Int[np.ndarray, "h w"], x: float, y: float) -> Float32[np.ndarray, "h w"]:
    """Metres over the eaves: a gable roof falls evenly from the ridge, in the middle, to both sides.

    Args:
        roofs: pitched ones
        owner: which of them, from 1, a pixel belongs to; 0 to none
        x, y: the upper left corner, metres
    """
    normal_x, normal_y = -np.sin(roofs.angle), np.cos(roofs.angle)
    corners, of = shapely.get_coordinates(roofs.shape, return_index=True)
    across = corners[:, 0] * normal_x[of] + corners[:, 1] * normal_y[of]
    start = np.flatnonzero(np.diff(of, prepend=-1))
    low, high = np.minimum.reduceat(across, start), np.maximum.reduceat(across, start)
    row, column = np.nonzero(owner)
    i = owner[row, column] - 1
    here = (x + (column + 0.5) * PIXEL) * normal_x[i] + (y - (row + 0.5) * PIXEL) * normal_y[i]
    from_ridge = np.abs(here - (low + high)[i] / 2) / ((high - low)[i] / 2)
    slopes = np.zeros(owner.shape, np.float32)
    slopes[row, column] = roofs.rise[i] * np.clip(1 - from_ridge, 0, 1)
    return slopes


def grain_of(key: tuple[int, ...], x: float, y: float, shape: tuple[int, int]) -> Float32[np.ndarray, "h w"]:
    """Gaussian noise of variance 1 as a function of the place, to the nearest pixel.

    Args:
        key: another key is another noise
        x, y: the upper left corner, metres
        shape: height and width in pixels
    """
    row, column = round((FAR_NORTH - y) / PIXEL), round(x / PIXEL)
    rows = range(row // BLOCK, (row + shape[0] - 1) // BLOCK + 1)
    columns = range(column // BLOCK, (column + shape[1] - 1) // BLOCK + 1)
    size = (BLOCK, BLOCK)
    blocks = [[np.random.default_rng((*key, r, c)).standard_normal(size, "f4") for c in columns] for r in rows]
    inner = np.s_[row % BLOCK : row % BLOCK + shape[0], column % BLOCK : column % BLOCK + shape[1]]
    return np.block(blocks)[inner]


def smooth(noise: Float32[np.ndarray, "h w"], size: float) -> Float32[np.ndarray, "h w"]:
    """White noise with grains of `size` pixels, of variance 1 again."""
    return gaussian_filter(noise, size) * np.float32(2 * np.sqrt(np.pi) * size)


def skyline(height: Float32[np.ndarray, "h w"], length: float) -> Float[np.ndarray, "h w"]:
    """The highest ray that meets anything up to each row, of rays that come down from beyond row 0.

    A ray falls by PIXEL / length a row, so it is named by its height over row 0. What lies under the skyline is in
    shadow; where the skyline rises by that much a row, flat ground is in light.

    Args:
        height: metres; the rows go away from the source
        length: of the shadow, in metres for a metre of height
    """
    return np.maximum.accumulate(rays(height, length), axis=0)


def rays(height: Float32[np.ndarray, "h w"], length: float) -> Float[np.ndarray, "h w"]:
    """The ray (see `skyline`) that meets the surface at each pixel."""
    return height + np.arange(len(height))[:, None] * (PIXEL / length)


def painted(
    shapes: Iterable[BaseGeometry], x: float, y: float, shape: tuple[int, int], pixel: float = PIXEL
) -> Int[np.ndarray, "h w"]:
    """Each pixel holds the number, from 1, of the last of `shapes` that its centre lies in; 0 in none.

    Args:
        shapes: metres
        x, y: the upper left corner, metres
        shape: height and width in pixels
        pixel: metres
    """
    numbered = [(one, number) for number, one in enumerate(shapes, start=1)]
    if not numbered:  # rasterize takes no empty list
        return np.zeros(shape, dtype=np.int32)
    return rasterize(numbered, out_shape=shape, transform=from_origin(x, y, pixel, pixel), dtype=np.int32)
