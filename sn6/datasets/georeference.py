"""Measure the units of a CRS at a place, and advise how to warp an image that cannot be used as it is placed.

A "metre" of a projected CRS is a metre on the ground only where the projection's scale is 1: in Web Mercator
(EPSG:3857) it is 0.62 m at 52° N, and an area of 100 m² is 38 m².
"""

import math
import shlex
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform

WGS84 = CRS.from_epsg(4326)
TOLERANCE = 0.01  # of the scale; at the edge of a UTM zone it is 1.001
STEP = 100.0  # units of the CRS on either side of a point, over which the scale is measured
DEGREE_STEP = 1e-3  # of a CRS in degrees
Place = tuple[float, float]  # longitude and latitude in degrees


def utm_zone(place: Place) -> CRS:
    """Return the UTM zone of a place in WGS 84; beyond 84° N and 80° S the polar stereographic grid."""
    longitude, latitude = place
    if latitude > 84:
        return CRS.from_epsg(32661)
    if latitude < -80:
        return CRS.from_epsg(32761)
    number = min(int((longitude + 180) % 360 // 6) + 1, 60)
    return CRS.from_epsg((32600 if latitude >= 0 else 32700) + number)


@lru_cache(maxsize=64)  # an image's grid asks for its centre several times
def place_of(crs: CRS, x: float, y: float) -> Place | None:
    """Return longitude and latitude of a point in a CRS; None where the point is outside of the CRS's range."""
    longitude, latitude = convert(crs, WGS84, x, y)
    back = convert(WGS84, crs, longitude, latitude)
    tolerance = 1e-6 * 360 if crs.is_geographic else 1.0
    differences = [back[0] - x, back[1] - y]
    if crs.is_geographic:
        differences[0] = (differences[0] + 180) % 360 - 180
    if not abs(latitude) <= 90 or not all(abs(difference) <= tolerance for difference in differences):
        return None
    return longitude, latitude


def convert(source: CRS, target: CRS, x: float, y: float) -> tuple[float, float]:
    """Return a point in another CRS, NaN where it has no place there; x is the easting or the longitude."""
    try:
        (to_x,), (to_y,) = transform(source, target, [x], [y])
    except Exception:  # rasterio's classes of PROJ's errors are private and have no class in common with RasterioError
        return math.nan, math.nan
    return to_x, to_y


def convert_all(source: CRS, target: CRS, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return points in another CRS as `convert` does, in one call of PROJ where all have a place there."""
    try:
        return list(zip(*transform(source, target, *map(list, zip(*points, strict=True))), strict=True))
    except Exception:  # as in `convert`
        return [convert(source, target, x, y) for x, y in points]


def metres_per_unit(crs: CRS, x: float, y: float) -> tuple[float, float]:
    """Return the metres on the ground of one unit of a CRS along x and y at a point; NaN outside of its range.

    They are measured in the point's UTM zone, which is true to 0.1%.
    """
    place = place_of(crs, x, y)
    if place is None:
        return math.nan, math.nan
    zone = utm_zone(place)
    step = DEGREE_STEP if crs.is_geographic else STEP
    around = [(x - step, y), (x + step, y), (x, y - step), (x, y + step)]
    west, east, south, north = convert_all(crs, zone, around)
    return math.dist(west, east) / (2 * step), math.dist(south, north) / (2 * step)


def warp_advice(path: str, place: Place | None, pixel: float, option: str = "") -> str:
    """Return the command that warps an image to the UTM zone of its place, or what is known of the command.

    Args:
        path: the image
        place: of its centre, None where it is unknown
        pixel: size to warp to in m
        option: of gdalwarp, which selects how the image is placed
    """
    zone = "UTM_ZONE" if place is None else utm_zone(place).to_string()
    words = ["gdalwarp", *option.split(), "-t_srs", zone, "-tr", f"{pixel:g}", f"{pixel:g}"]
    return f"{' '.join(words)} {shlex.quote(path)} WARPED.tif"


def centre(grid: Affine, height: int, width: int) -> tuple[float, float]:
    """Return the centre of an image of `height` × `width` pixels in the units of its CRS."""
    x, y = grid @ (width / 2, height / 2)
    return x, y


def indirect_placement(raster: rasterio.DatasetReader) -> tuple[str, str, Place | None] | None:
    """Return how an image without an affine transform is placed; None where it is not placed at all.

    Returns:
        What places it, the option of gdalwarp, and its place (None where unknown).
    """
    points, crs = raster.gcps
    if points:
        return "ground control points", "", place_of_points(points, crs)
    if raster.rpcs is not None:
        return "rational polynomial coefficients (RPC)", "-rpc", (raster.rpcs.long_off, raster.rpcs.lat_off)
    if raster.tags(ns="GEOLOCATION"):
        return "a geolocation array", "-geoloc", None
    return None


def place_of_points(points: list[GroundControlPoint], crs: CRS | None) -> Place | None:
    """Return the middle of ground control points; None where they have no CRS or are outside of its range."""
    if crs is None:
        return None
    places = [place for point in points if (place := place_of(crs, point.x, point.y)) is not None]
    if not places:
        return None
    longitudes, latitudes = np.array(places).T
    first = longitudes[0]  # near the antimeridian, -179.9° is near 179.9°
    middle = float(first + np.mean((longitudes - first + 180) % 360 - 180))
    return middle, float(latitudes.mean())
