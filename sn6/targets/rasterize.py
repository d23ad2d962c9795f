"""Rasterize polygons to instances: the number of the building at each pixel."""

import json

import numpy as np
import shapely
from jaxtyping import Bool, Int32, UInt8, UInt16, UInt32
from rasterio import features

from sn6.footprints import Polygons


def rasterize_instances(polygons: Polygons, height: int, width: int) -> Int32[np.ndarray, "height width"]:
    """Return the number of the building at each pixel: 0 is background, i + 1 is `polygons[i]`.

    A polygon covers the pixels whose centre is inside it and outside its holes. Where two overlap, the later one
    takes the pixel. An empty polygon covers no pixel and keeps its number.
    """
    shapes = np.asarray(polygons, dtype=object)
    numbers = np.flatnonzero(~shapely.is_empty(shapes))
    if not numbers.size:  # rasterio raises an error on an empty list
        return np.zeros((height, width), dtype=np.int32)
    # Faster than rasterio's own conversion of polygons to such dicts, which goes vertex by vertex.
    geometries = map(json.loads, shapely.to_geojson(shapes[numbers]))
    numbered = zip(geometries, (numbers + 1).tolist(), strict=True)
    # 32 bits: an 8-bit mask loses the 256th building of a tile.
    return features.rasterize(numbered, out_shape=(height, width), dtype="int32")


def drop_unobserved(
    instances: Int32[np.ndarray, "height width"], valid: Bool[np.ndarray, "height width"]
) -> Int32[np.ndarray, "height width"]:
    """Set instances without a valid pixel to background: the sensor did not observe them."""
    observed = instances[valid]
    numbers = np.zeros(instances.max(initial=0) + 1, dtype=np.int32)
    numbers[observed] = observed
    return numbers[instances]


def smallest_unsigned(
    instances: Int32[np.ndarray, "height width"],
) -> UInt8[np.ndarray, "height width"] | UInt16[np.ndarray, "height width"] | UInt32[np.ndarray, "height width"]:
    """Convert instances to the fewest bits that keep every number, which are fastest to compare."""
    return instances.astype(np.min_scalar_type(instances.max(initial=0)))
