"""Polygons to instance masks."""

import json

import numpy as np
import shapely
from jaxtyping import Bool, Int32
from rasterio import features

from sn6.footprints import Polygons


def rasterize_instances(polygons: Polygons, height: int, width: int) -> Int32[np.ndarray, "height width"]:
    """The number of the building on each pixel: 0 is background, i + 1 is `polygons[i]`.

    A polygon has the pixels whose centre lies inside it, outside its holes. Where two overlap, the later one
    has the pixel. An empty polygon has no pixel, and keeps its number.
    """
    found = np.asarray(polygons, dtype=object)
    numbers = np.flatnonzero(~shapely.is_empty(found))
    if not numbers.size:  # rasterio refuses to burn nothing
        return np.zeros((height, width), dtype=np.int32)
    # rasterio would turn each polygon into such a dict, corner by corner
    geometries = map(json.loads, shapely.to_geojson(found[numbers]))
    numbered = zip(geometries, (numbers + 1).tolist(), strict=True)
    # 32 bits: an 8-bit mask loses the 256th building of a tile.
    return features.rasterize(numbered, out_shape=(height, width), dtype="int32")


def drop_unobserved(
    instances: Int32[np.ndarray, "height width"], valid: Bool[np.ndarray, "height width"]
) -> Int32[np.ndarray, "height width"]:
    """The instances that have a valid pixel; the others, which the radar never saw, become background."""
    seen = instances[valid]
    numbers = np.zeros(instances.max(initial=0) + 1, dtype=np.int32)
    numbers[seen] = seen
    return numbers[instances]
