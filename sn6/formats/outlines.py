"""Represent the footprints of a file of any format, grouped by tile."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import shapely
from jaxtyping import Bool, Float64, Int32, Int64, Shaped

from sn6.errors import Kind, UserError, first_line
from sn6.footprints.ground import Corner
from sn6.formats.nesting import MAX_DEPTH, is_too_deep, unpack_collections

POLYGONAL = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)
MAX_COORDINATE = 1e9  # pixels or units of a CRS; no place on the ground has larger ones
CHUNK = 1024  # rows of a file that are read at a time
Corners: TypeAlias = dict[str, Corner | None]
Rows: TypeAlias = tuple[Shaped[np.ndarray, "_"], Float64[np.ndarray, "_"]]  # geometries, and the value of each


@dataclass(frozen=True, eq=False)
class Outlines:
    """Footprints in the order of their file, which decides ties.

    They are stored as WKB, about 100 bytes each; as geometries they would take ten times as much.

    Attributes:
        tiles: image id → corner, for every tile that the file names, with footprints or without; the corner is None
            where unknown
        tile: of each footprint, the position of its tile in `tiles`
        wkb: of all footprints, concatenated: Polygons and MultiPolygons in pixels of the tile, finite and not empty
        ends: position in `wkb` after each footprint
        values: confidences of proposals; mean heights of buildings in m, NaN where unknown
        ignored: number of polygons in rows with the BuildingId -1, which stands for "no building"
        left_out: number of parts of GeometryCollections that are no polygons
    """

    tiles: Corners
    tile: Int32[np.ndarray, "n"]
    wkb: bytes | bytearray
    ends: Int64[np.ndarray, "n"]
    values: Float64[np.ndarray, "n"]
    ignored: int = 0
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.tile)

    def rows(self, image_id: str) -> Rows:
        """Return the footprints of a tile in the order of the file; none for a tile that the file does not name."""
        tile = self._positions.get(image_id)
        order, first = self._by_tile
        rows = order[:0] if tile is None else order[first[tile] : first[tile + 1]]
        starts = np.where(rows > 0, self.ends[rows - 1], 0)
        wkb = [bytes(self.wkb[start:end]) for start, end in zip(starts.tolist(), self.ends[rows].tolist(), strict=True)]
        return shapely.from_wkb(np.array(wkb, dtype=object)), self.values[rows]

    def by_tile(self) -> Iterator[tuple[str, Rows]]:
        """Yield each tile with its footprints."""
        return ((image_id, self.rows(image_id)) for image_id in self.tiles)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {image_id: i for i, image_id in enumerate(self.tiles)}

    @cached_property
    def _by_tile(self) -> tuple[Int32[np.ndarray, "n"], Int64[np.ndarray, "_"]]:
        """Return the rows sorted by tile, and the start of each tile among them."""
        order = np.argsort(self.tile, kind="stable").astype(np.int32)
        return order, np.searchsorted(self.tile[order], np.arange(len(self.tiles) + 1))


def pack(
    tiles: Corners,
    tile: Int64[np.ndarray, "n"],
    geometries: Shaped[np.ndarray, "n"],
    values: Float64[np.ndarray, "n"],
    ignored: int = 0,
    left_out: int = 0,
) -> Outlines:
    """Build Outlines from geometries; the arguments are the attributes of Outlines."""
    wkb = shapely.to_wkb(geometries).tolist()
    ends = np.cumsum([len(one) for one in wkb], dtype=np.int64)
    return Outlines(tiles, tile.astype(np.int32), b"".join(wkb), ends, values, ignored, left_out)


def select_tiles(outlines: Outlines, image_ids: Container[str]) -> Outlines:
    """Return the footprints of those tiles that are among `image_ids`, tile by tile."""
    tiles = {image_id: corner for image_id, corner in outlines.tiles.items() if image_id in image_ids}
    return pack_rows(tiles, [outlines.rows(image_id) for image_id in tiles], outlines.ignored, outlines.left_out)


def pack_rows(tiles: Corners, rows: Sequence[Rows], ignored: int = 0, left_out: int = 0) -> Outlines:
    """Build Outlines from the footprints of each tile, in the order of `tiles`."""
    number = np.repeat(np.arange(len(rows)), [len(values) for _, values in rows])
    geometries = np.concatenate([np.empty(0, dtype=object), *(geometries for geometries, _ in rows)])
    values = np.concatenate([np.empty(0), *(values for _, values in rows)])
    return pack(tiles, number, geometries, values, ignored, left_out)


def concatenate(chunks: Iterable[Outlines]) -> Outlines:
    """Concatenate the chunks of a file, at least one."""
    position: dict[str, int] = {}
    tiles: Corners = {}
    tile, wkb, ends, values, ignored, left_out = [], bytearray(), [], [], 0, 0
    for chunk in chunks:
        tiles |= chunk.tiles
        positions = np.array([position.setdefault(image_id, len(position)) for image_id in chunk.tiles], dtype=np.int32)
        tile.append(positions[chunk.tile])
        ends.append(chunk.ends + len(wkb))
        wkb += chunk.wkb
        values.append(chunk.values)
        ignored += chunk.ignored
        left_out += chunk.left_out
    return Outlines(tiles, np.concatenate(tile), wkb, np.concatenate(ends), np.concatenate(values), ignored, left_out)


def parts(rows: Rows, first_only: bool = False) -> Rows:
    """Split each MultiPolygon into its parts, each with the value of its row, or keep only its first part."""
    geometries, values = rows
    polygons, row = shapely.get_parts(geometries, return_index=True)
    filled = ~shapely.is_empty(polygons)
    polygons, row = polygons[filled], row[filled]
    if first_only:
        row, first = np.unique(row, return_index=True)
        polygons = polygons[first]
    return polygons, values[row]


class InvalidGeometry(ValueError):
    """A geometry that is not a valid polygon.

    Attributes:
        row: its index
        reason: what is wrong, as the predicate of a sentence about it
    """

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(reason)
        self.row = row
        self.reason = reason


def parse_polygons(encoded: Shaped[np.ndarray, "n"], parse: Callable[..., Any]) -> tuple[Shaped[np.ndarray, "n"], int]:
    """Parse Polygons and MultiPolygons, and take the polygons of GeometryCollections.

    Args:
        encoded: WKT, WKB or GeoJSON of each
        parse: shapely's function for this encoding, which returns None for an open ring

    Returns:
        The geometries, and the number of parts of collections that are no polygons.

    Raises:
        InvalidGeometry: the first one that cannot be parsed, is not a polygon, is nested too deeply, has a ring of
            fewer than four points or a coordinate that is not finite or beyond MAX_COORDINATE
    """
    if (deep := next((row for row, one in enumerate(encoded) if is_too_deep(one)), None)) is not None:
        raise InvalidGeometry(deep, f"has more than {MAX_DEPTH} collections in one another")
    try:
        with np.errstate(all="ignore"):  # of NaN and numbers that are too large
            geometries, left_out = unpack_collections(parse(encoded, on_invalid="ignore"))
    except NotImplementedError:  # on_invalid does not hold for the curves that GEOS reads and shapely does not
        raise curve_in(encoded, parse) from None
    finite = is_finite(geometries)
    polygonal = np.isin(shapely.get_type_id(geometries), POLYGONAL)
    long_enough = np.ones(len(geometries), dtype=bool)
    rings, polygon = shapely.get_rings(geometries, return_index=True)
    long_enough[polygon[shapely.get_num_coordinates(rings) < 4]] = False
    valid = polygonal & finite & long_enough
    if valid.all():
        return geometries, left_out
    first = int(valid.argmin())
    if polygonal[first]:
        large = f"a coordinate that is NaN, infinite or beyond {MAX_COORDINATE:g}"
        raise InvalidGeometry(first, f"has {'a ring of fewer than four points' if finite[first] else large}")
    if geometries[first] is not None:
        raise InvalidGeometry(first, f"is a {geometries[first].geom_type}, not a polygon")
    try:
        parse(encoded[first])
    except (shapely.errors.GEOSException, TypeError) as error:
        raise InvalidGeometry(first, f"cannot be parsed ({first_line(error)})") from None
    raise InvalidGeometry(first, "cannot be parsed")


def is_finite(geometries: Shaped[np.ndarray, "n"]) -> Bool[np.ndarray, " n"]:
    """Return which geometries have no coordinate that is NaN, infinite or beyond MAX_COORDINATE."""
    xy, geometry = shapely.get_coordinates(geometries, return_index=True)
    with np.errstate(invalid="ignore"):
        valid = (np.abs(xy) <= MAX_COORDINATE).all(axis=1)
    result = np.ones(len(geometries), dtype=bool)
    result[geometry[~valid]] = False
    return result


def curve_in(encoded: Shaped[np.ndarray, "n"], parse: Callable[..., Any]) -> InvalidGeometry:
    """Return the error of the first geometry with curves."""
    for row, one in enumerate(encoded):
        try:
            unpack_collections(parse(np.array([one], dtype=object), on_invalid="ignore"))
        except NotImplementedError:
            return InvalidGeometry(
                row, "has curves; write it with straight lines, for example by ogr2ogr -nlt CONVERT_TO_LINEAR"
            )
    raise AssertionError("no geometry has curves")


def read_error(path: Path, error: Exception) -> UserError:
    """Return the UserError for a file that cannot be opened or decoded."""
    reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
    kind: Kind = "not_found" if isinstance(error, FileNotFoundError) else "unreadable"
    return UserError(f"cannot read {path} ({reason}); check the path and the file", kind=kind, key=path)
