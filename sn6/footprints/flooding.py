"""Divide components of building pixels by flooding a surface from seeds."""

import numpy as np
from jaxtyping import Bool, Float32, Int32
from scipy import ndimage
from skimage.segmentation import watershed


def connected_seeds(
    is_seed: Bool[np.ndarray, "height width"], min_pixels: float = 0.0
) -> Int32[np.ndarray, "height width"]:
    """Return the numbers of the 4-connected parts of at least `min_pixels` pixels, from 1; 0 elsewhere."""
    seeds, count = ndimage.label(is_seed)
    kept = np.bincount(seeds[is_seed], minlength=count + 1) >= min_pixels
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[seeds]


def flood_components(
    components: Int32[np.ndarray, "height width"],
    seeds: Int32[np.ndarray, "height width"],
    surface: Float32[np.ndarray, "height width"],
) -> Int32[np.ndarray, "height width"]:
    """Divide the components with two seeds or more by a watershed of the surface (Meyer 1991).

    Each component is flooded by itself, in its bounding box: the order in which equal heights are flooded then depends
    on no other component. A component with one seed or none stays one region.

    Args:
        components: numbers of 4-connected components, from 1; 0 elsewhere
        seeds: numbers of 4-connected seeds inside of components, from 1; 0 elsewhere
        surface: heights; the lowest are flooded first

    Returns:
        Numbers of 4-connected regions, from 1 and with gaps.
    """
    boxes, is_seed = ndimage.find_objects(components), seeds > 0
    component_of_seed = np.zeros(seeds.max(initial=0) + 1, dtype=np.int64)
    component_of_seed[seeds[is_seed]] = components[is_seed]
    seeds_of_component = np.bincount(component_of_seed[1:], minlength=1)
    regions = components.copy()
    for number in np.flatnonzero(seeds_of_component > 1).tolist():
        box = boxes[number - 1]
        inside = components[box] == number
        flooded = watershed(surface[box], np.where(inside, seeds[box], 0), mask=inside)
        regions[box][inside] = flooded[inside] + len(boxes)
    return regions
