"""Look at encoded geometries before GEOS does, which overflows its stack on deeply nested ones, and unpack collections.

A collection of ordinary artefacts, such as a polygon with a stray point, has its polygons taken.
"""

import re
import struct
from typing import Any

import numpy as np
import shapely
from jaxtyping import Shaped

MAX_DEPTH = 32  # collections in collections, as GDAL has it
HEADER = re.compile(  # of what contains geometries, in WKB, EWKB and ISO WKB; coordinates may look alike
    rb"\x01(?:[\x04-\x07\x09-\x0c\x0f\x10]|[\xe8-\xff]\x03|[\xd0-\xe7]\x07|[\xb8-\xcf]\x0b)"
    rb"|\x00[^\x01]\x00(?:\x00[\x04-\x07\x09-\x0c\x0f\x10]|\x03[\xe8-\xff]|\x07[\xd0-\xe7]|\x0b[\xb8-\xcf])"
)
POINT, RING, POLYGONS, COLLECTIONS = (1,), (2, 8), (3, 17), (4, 5, 6, 7, 9, 10, 11, 12, 15, 16)  # types of WKB
HAS_Z, HAS_M, HAS_SRID = 0x80000000, 0x40000000, 0x20000000  # bits of the types of EWKB


def is_too_deep(encoded: str | bytes) -> bool:
    """Return whether a geometry is nested by more than MAX_DEPTH.

    Args:
        encoded: WKT, GeoJSON or WKB
    """
    if isinstance(encoded, str):  # in text nothing else can contain itself
        return encoded.upper().count("GEOMETRYCOLLECTION") > MAX_DEPTH
    several = any(number > MAX_DEPTH for number, _ in enumerate(HEADER.finditer(encoded), start=1))
    return several and is_deep_wkb(encoded)


def is_deep_wkb(encoded: bytes) -> bool:
    """Return whether WKB is nested by more than MAX_DEPTH; of a broken one only what is before the fault counts."""
    position, remaining = 0, [1]  # geometries to come, of each level
    try:
        while remaining:
            if remaining[-1] == 0:
                remaining.pop()
                continue
            if len(remaining) > MAX_DEPTH + 1:
                return True
            remaining[-1] -= 1
            position, children = skip_geometry(encoded, position)
            if children:
                remaining.append(children)
    except (struct.error, IndexError, ValueError):
        return False
    return False


def skip_geometry(encoded: bytes, position: int) -> tuple[int, int]:
    """Return the position after a geometry in WKB and 0, or that of its first part and how many parts it has.

    Raises:
        struct.error, IndexError, ValueError: it is broken
    """
    order = "<" if encoded[position] == 1 else ">"

    def read(at: int) -> int:
        (number,) = struct.unpack_from(f"{order}I", encoded, at)
        return int(number)

    code = read(position + 1)
    position += 9 if code & HAS_SRID else 5
    dimension, kind = divmod(code & 0xFFFF, 1000)
    has_z, has_m = dimension in (1, 3) or bool(code & HAS_Z), dimension in (2, 3) or bool(code & HAS_M)
    size = 8 * (2 + has_z + has_m)
    if kind in POINT:
        return position + size, 0
    number, position = read(position), position + 4
    if kind in COLLECTIONS:
        return position, number
    if kind in RING:
        return position + size * number, 0
    if kind not in POLYGONS:
        raise ValueError(f"type {kind}")
    for _ in range(number):
        position += 4 + size * read(position)
    return position, 0


def unpack_collections(geometries: Shaped[np.ndarray, "n"]) -> tuple[Shaped[np.ndarray, "n"], int]:
    """Replace each GeometryCollection by its polygons; return also how many other parts are left out.

    A collection without a polygon stays as it is.
    """
    result, left_out = geometries.copy(), 0
    for row in np.flatnonzero(shapely.get_type_id(geometries) == shapely.GeometryType.GEOMETRYCOLLECTION):
        parts: Any = shapely.get_parts([geometries[row]])
        while (shapely.get_type_id(parts) >= shapely.GeometryType.MULTIPOINT).any():
            parts = shapely.get_parts(parts)
        is_polygon = (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(parts)
        if is_polygon.any():
            left_out += int((~is_polygon).sum())
            result[row] = shapely.multipolygons(parts[is_polygon])
    return result, left_out
