"""The ground as pixels: what the sensors look at."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Bool, Float32, Int, Shaped
from rasterio.features import rasterize
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter
from shapely.geometry.base import BaseGeometry

from sn6.data.layout import PIXEL
from sn6.simulation.ground import Ground


@dataclass(frozen=True)
class Surface:
    """Rasters of one piece of ground, north up, 0.5 m a pixel.

    Attributes:
        cover: a Cover
        height: metres above the ground
        tilt: how far a roof slopes down to the north: -1 (to the south) to 1, 0 where flat
        square: how squarely walls face north and south: 1, down to 0 for walls at 45 degrees
        tone: two random numbers a thing, -1 to 1: for the radar, for the optical images
    """

    cover: Int[np.ndarray, "h w"]
    height: Float32[np.ndarray, "h w"]
    tilt: Float32[np.ndarray, "h w"]
    square: Float32[np.ndarray, "h w"]
    tone: Float32[np.ndarray, "2 h w"]

    def mirrored(self) -> "Surface":
        """The same with south up."""
        return type(self)(self.cover[::-1], self.height[::-1], -self.tilt[::-1], self.square[::-1], self.tone[:, ::-1])


def surface_of(ground: Ground, x: float, y: float, shape: tuple[int, int]) -> Surface:
    """Paints the things of `ground` in their order.

    Args:
        ground: as Scene.ground gives it
        x, y: the upper left corner, metres
        shape: height and width in pixels
    """
    thing = painted(ground.shape, x, y, shape)

    def raster(values: Shaped[np.ndarray, " n"]) -> Float32[np.ndarray, "h w"]:
        return np.concatenate([[0], values]).astype(np.float32)[thing]  # 0 where there is only street

    normal_x, normal_y = -np.sin(ground.angle), np.cos(ground.angle)  # of the ridge
    middle = shapely.centroid(ground.shape)
    middle_along = normal_x * (shapely.get_x(middle) - x) + normal_y * (shapely.get_y(middle) - y)
    rows, columns = np.indices(shape, dtype=np.float32, sparse=True)
    along = raster(normal_x) * (columns + 0.5) * PIXEL - raster(normal_y) * (rows + 0.5) * PIXEL
    return Surface(
        cover=raster(ground.cover).astype(np.int8),
        height=raster(ground.height),
        tilt=np.sign(along - raster(middle_along)) * raster(normal_y * ground.pitched),
        square=raster(np.cos(2 * ground.angle) ** 2),
        tone=np.stack([raster(ground.tone[:, 0]), raster(ground.tone[:, 1])]),
    )


def in_shadow(height: Float32[np.ndarray, "h w"], length: float) -> Bool[np.ndarray, "h w"]:
    """Where rays that come from row 0 are cut off by something higher.

    Args:
        height: metres; the rows go away from the source
        length: of the shadow, in metres for a metre of height
    """
    fall = np.arange(len(height), dtype=np.float32)[:, None] * (PIXEL / length)
    above = height + fall  # a ray sinks by PIXEL / length a row, so along it this sum is constant
    return np.maximum.accumulate(above, axis=0) > above + 0.3


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], size: float) -> Float32[np.ndarray, "h w"]:
    """Gaussian noise of variance 1 with grains of `size` pixels."""
    noise = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), size)
    return noise * np.float32(2 * np.sqrt(np.pi) * size)


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
