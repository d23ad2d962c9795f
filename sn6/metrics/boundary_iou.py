"""Measure how well outlines agree: the IoU of the bands along them."""

import numpy as np
import shapely
from jaxtyping import Float64, Shaped


def boundary_ious(
    polygons: Shaped[np.ndarray, "pairs"], others: Shaped[np.ndarray, "pairs"], distance: float
) -> Float64[np.ndarray, "pairs"]:
    """Compute the boundary IoU of each pair: that of the parts of both that are within `distance` of their outlines.

    With A° the part of A that is further than `distance` from the outline of A, the bands are A − A° and B − B°, and
    share |A ∩ B| − |A° ∩ B| − |A ∩ B°| + |A° ∩ B°|, which needs no polygon with a hole.

    Args:
        polygons: valid Polygons with an area
        others: the same of the other side of each pair
        distance: width of the bands, in the units of the polygons

    Source: Cheng, Girshick, Dollár, Berg, Kirillov 2021, Boundary IoU: Improving Object-Centric Image Segmentation
    Evaluation.
    """
    inner, other_inner = shapely.buffer(polygons, -distance), shapely.buffer(others, -distance)
    shared = overlap(polygons, others) - overlap(inner, others) - overlap(polygons, other_inner)
    shared = np.maximum(shared + overlap(inner, other_inner), 0.0)
    bands = shapely.area(polygons) - shapely.area(inner) + shapely.area(others) - shapely.area(other_inner)
    return shared / (bands - shared)


def overlap(polygons: Shaped[np.ndarray, "pairs"], others: Shaped[np.ndarray, "pairs"]) -> Float64[np.ndarray, "pairs"]:
    """Return the area that both polygons of each pair cover."""
    return shapely.area(shapely.intersection(polygons, others))
