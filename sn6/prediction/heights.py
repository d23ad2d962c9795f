"""Read the heights of footprints from the map of a head that learns them."""

from collections.abc import Iterator
from dataclasses import replace
from math import ceil, floor

import numpy as np
import shapely
from rasterio.features import geometry_mask
from rasterio.transform import Affine

from sn6.footprints import Footprints
from sn6.footprints.blocks import Read
from sn6.heads import Heads
from sn6.targets.height import UNIT, Height


def height_head(heads: Heads) -> str | None:
    """Return the name of the head that learns heights; None where there is none."""
    return next((name for name, target in heads.items() if isinstance(target, Height)), None)


def with_heights(chunks: Iterator[Footprints], read: Read, name: str, size: tuple[int, int]) -> Iterator[Footprints]:
    """Yield footprints with their heights.

    Args:
        chunks: of footprints in pixels of the maps
        read: function that returns the maps of a rectangle, and where they are valid
        name: of the map of heights
        size: rows and columns of the maps
    """
    for chunk in chunks:
        heights = [mean_height(polygon, read, name, size) for polygon in chunk.polygons]
        yield replace(chunk, heights=np.array(heights, dtype=np.float64))


def mean_height(polygon: shapely.Polygon, read: Read, name: str, size: tuple[int, int]) -> float:
    """Return the mean height in m at the valid pixels whose centre is in a polygon; NaN where there is none."""
    left, top, right, bottom = polygon.bounds
    rows = slice(max(floor(top), 0), min(ceil(bottom), size[0]))
    columns = slice(max(floor(left), 0), min(ceil(right), size[1]))
    maps, valid = read(rows, columns)
    to_polygon = Affine.translation(columns.start, rows.start)
    inside = geometry_mask([polygon], valid.shape, to_polygon, invert=True) & valid
    return float(maps[name][0][inside].mean()) * UNIT if inside.any() else np.nan
