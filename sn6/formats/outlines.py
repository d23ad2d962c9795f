"""The footprints of a file, whatever its format, on the way to the tiles that they lie in."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import shapely
from jaxtyping import Float64, Int32, Int64, Shaped

from sn6.errors import first_line
from sn6.footprints.ground import Corner

POLYGONAL = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)
CHUNK = 1024  # rows of a file that are read at a time
Corners: TypeAlias = dict[str, Corner | None]
Rows: TypeAlias = tuple[Shaped[np.ndarray, "_"], Float64[np.ndarray, "_"]]  # geometries, and a value of each


@dataclass(frozen=True, eq=False)
class Outlines:
    """Footprints in the order of their file, which settles ties.

    They are kept as WKB, about 100 bytes each; as geometries they would take ten times that.

    Attributes:
        tiles: the image id of every tile that the file names, with footprints or without → its west and north edge
            in metres, None where that is not known
        tile: of each footprint, the position of its tile in `tiles`
        wkb: of all, one after another: Polygons and MultiPolygons in pixels of the tile, finite and not empty
        ends: where the WKB of each ends
        values: confidences of proposals; mean heights of buildings in metres, NaN where not known
        unread: polygons in rows that say that there is none, by the BuildingId -1
    """

    tiles: Corners
    tile: Int32[np.ndarray, "n"]
    wkb: bytes | bytearray
    ends: Int64[np.ndarray, "n"]
    values: Float64[np.ndarray, "n"]
    unread: int = 0

    def __len__(self) -> int:
        return len(self.tile)

    def rows(self, image_id: str) -> Rows:
        """The footprints of a tile, in the order of the file; none of a tile that is not named."""
        place = self._places.get(image_id)
        order, first = self._by_tile
        rows = order[:0] if place is None else order[first[place] : first[place + 1]]
        starts = np.where(rows > 0, self.ends[rows - 1], 0)
        wkb = [bytes(self.wkb[start:end]) for start, end in zip(starts.tolist(), self.ends[rows].tolist(), strict=True)]
        return shapely.from_wkb(np.array(wkb, dtype=object)), self.values[rows]

    def by_tile(self) -> Iterator[tuple[str, Rows]]:
        """All tiles and their footprints, one at a time."""
        return ((image_id, self.rows(image_id)) for image_id in self.tiles)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {image_id: place for place, image_id in enumerate(self.tiles)}

    @cached_property
    def _by_tile(self) -> tuple[Int32[np.ndarray, "n"], Int64[np.ndarray, "_"]]:
        """The rows sorted by tile, and where those of each tile start."""
        order = np.argsort(self.tile, kind="stable").astype(np.int32)
        return order, np.searchsorted(self.tile[order], np.arange(len(self.tiles) + 1))


def pack(
    tiles: Corners,
    tile: Int64[np.ndarray, "n"],
    geometries: Shaped[np.ndarray, "n"],
    values: Float64[np.ndarray, "n"],
    unread: int = 0,
) -> Outlines:
    """Outlines of geometries; the arguments are as the attributes there."""
    wkb = shapely.to_wkb(geometries).tolist()
    ends = np.cumsum([len(one) for one in wkb], dtype=np.int64)
    return Outlines(tiles, tile.astype(np.int32), b"".join(wkb), ends, values, unread)


def concatenate(pieces: Iterable[Outlines]) -> Outlines:
    """The pieces of a file, at least one, as a whole."""
    place: dict[str, int] = {}
    tiles: Corners = {}
    tile, wkb, ends, values, unread = [], bytearray(), [], [], 0
    for piece in pieces:
        tiles |= piece.tiles
        places = np.array([place.setdefault(image_id, len(place)) for image_id in piece.tiles], dtype=np.int32)
        tile.append(places[piece.tile])
        ends.append(piece.ends + len(wkb))
        wkb += piece.wkb
        values.append(piece.values)
        unread += piece.unread
    return Outlines(tiles, np.concatenate(tile), wkb, np.concatenate(ends), np.concatenate(values), unread)


def parts(rows: Rows, first_only: bool = False) -> Rows:
    """Each part of a MultiPolygon as a footprint of its own, or its first part alone."""
    geometries, values = rows
    found, row = shapely.get_parts(geometries, return_index=True)
    there = ~shapely.is_empty(found)
    found, row = found[there], row[there]
    if first_only:
        row, first = np.unique(row, return_index=True)
        found = found[first]
    return found, values[row]


class InvalidGeometry(ValueError):
    """One that is no sound polygon.

    Attributes:
        row: which one
        reason: as the end of a sentence that names it
    """

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(reason)
        self.row = row
        self.reason = reason


def parse_polygons(written: Shaped[np.ndarray, "n"], parse: Callable[..., Any]) -> Shaped[np.ndarray, "n"]:
    """Polygons and MultiPolygons from what a file holds.

    Args:
        written: WKT, WKB or GeoJSON of each
        parse: shapely's function for it, which makes nothing of a ring that is open

    Raises:
        UnsoundGeometry: the first that does not parse, is no polygon, has a ring of less than four points, or a
            coordinate that is not finite
    """
    with np.errstate(invalid="ignore"):  # a coordinate may be NaN, and its area then is
        geometries = parse(written, on_invalid="ignore")
        finite = np.isfinite(shapely.area(geometries))
    polygonal = np.isin(shapely.get_type_id(geometries), POLYGONAL)
    long = np.ones(len(geometries), dtype=bool)
    rings, polygon = shapely.get_rings(geometries, return_index=True)
    long[polygon[shapely.get_num_coordinates(rings) < 4]] = False
    sound = polygonal & finite & long
    if sound.all():
        return geometries
    first = int(sound.argmin())
    if polygonal[first]:
        fault = "a ring of less than four points" if finite[first] else "a coordinate that is NaN or infinite"
        raise InvalidGeometry(first, f"has {fault}")
    if geometries[first] is not None:
        raise InvalidGeometry(first, f"is a {geometries[first].geom_type}, no polygon")
    try:
        parse(written[first])
    except (shapely.errors.GEOSException, TypeError) as error:
        raise InvalidGeometry(first, f"does not parse ({first_line(error)})") from None
    raise InvalidGeometry(first, "does not parse")
