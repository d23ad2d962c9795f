"""Mask to polygons along the edges of the pixels, holes included: against GDAL's polygonizer.

The contours of OpenCV and scikit-image pass through the centres of pixels or cut their corners; the table gives the
resulting error.
"""

from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import shapely
from rasterio import features
from shapely.geometry import shape

from benchmarks.comparison import NotRun, Row, medians, require
from benchmarks.street_map import SIZE, street_map
from sn6.footprints.polygonize import polygonize
from sn6.targets.rasterize import rasterize_instances

GDAL = "rasterio.features.shapes and shapely's shape"


def rows(components: int = 106, repeats: int = 15) -> Iterator[Row | NotRun]:
    """Yield a row for each peer, on a mask of `components` buildings."""
    mask = rasterize_instances(street_map(np.random.default_rng(0), components), SIZE, SIZE) > 0
    polygons = outlines(mask)
    inputs = f"{SIZE}×{SIZE}, {len(polygons)} components, {shapely.get_num_interior_rings(polygons).sum()} holes"
    require(same_sets(polygons, gdal(mask)), f"polygons of {inputs}: those of sn6 and GDAL differ")
    seconds = medians({"ours": lambda: outlines(mask), "gdal": lambda: gdal(mask)}, repeats)
    path = "mask → polygons"
    yield Row(path, inputs, seconds["ours"], GDAL, seconds["gdal"], "equal", min_ratio=1)
    for name, contours in (("cv2.findContours", opencv), ("skimage.measure.find_contours", scikit_image)):
        if find_spec(package := name.partition(".")[0]) is None:
            yield NotRun(f"{path}, {name}", f"{package} is not installed")
            continue
        others = contours(mask)
        seconds = medians({"ours": lambda: outlines(mask), "theirs": lambda trace=contours: trace(mask)}, repeats)
        error = shapely.symmetric_difference(shapely.union_all(polygons), shapely.union_all(others)).area / mask.sum()
        correct = np.isin(shapely.area(others), shapely.area(polygons)).sum()
        agreement = f"no: {correct} have the correct area, {error:.1%} of the area is wrong"
        yield Row(path, inputs, seconds["ours"], name, seconds["theirs"], agreement)


def outlines(mask: np.ndarray) -> np.ndarray:
    """Trace the polygons with sn6."""
    return polygonize(mask.astype(np.int32))[0]


def gdal(mask: np.ndarray) -> np.ndarray:
    """Trace the polygons with GDAL, 4-connected."""
    traced = features.shapes(mask.astype(np.uint8), mask=mask, connectivity=4)
    return np.array([shape(polygon) for polygon, _ in traced], dtype=object)


def opencv(mask: np.ndarray) -> np.ndarray:
    """Trace contours and their holes with OpenCV, through the centres of the pixels."""
    import cv2

    cv2.setNumThreads(1)
    contours, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = [contour[:, 0] for contour in contours]
    holes: dict[int, list[np.ndarray]] = {}
    for ring, (_, _, _, parent) in zip(rings, tree.reshape(-1, 4), strict=True):
        if parent >= 0 and len(ring) > 2:
            holes.setdefault(parent, []).append(ring)
    outer = [number for number, links in enumerate(tree.reshape(-1, 4)) if links[3] < 0 and len(rings[number]) > 2]
    return np.array([shapely.Polygon(rings[number], holes.get(number)) for number in outer], dtype=object)


def scikit_image(mask: np.ndarray) -> np.ndarray:
    """Trace contours with scikit-image: marching squares, which cut corners, 4-connected; clockwise rings are holes."""
    from skimage import measure

    contours = measure.find_contours(np.pad(mask, 1).astype(float), 0.5, fully_connected="low")
    rings = np.array([shapely.linearrings(contour[:, ::-1]) for contour in contours])
    polygons, is_hole = shapely.polygons(rings), ~shapely.is_ccw(rings)
    shells, holes = polygons[~is_hole], polygons[is_hole]
    hole, shell = shapely.STRtree(shells).query(holes, predicate="within")
    for number in np.unique(shell):
        shells[number] = shapely.difference(shells[number], shapely.union_all(holes[hole[shell == number]]))
    return shells


def same_sets(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether both contain the same polygons, in any order and with any vertices on their straight edges."""
    if len(one) != len(other):
        return False
    orders = [np.lexsort((shapely.area(polygons), *shapely.bounds(polygons).T)) for polygons in (one, other)]
    return bool(shapely.equals(one[orders[0]], other[orders[1]]).all())
