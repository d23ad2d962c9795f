"""The footprints of a file, whatever its format, on the way to the tiles that they lie in."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from jaxtyping import Bool, Float64, Int64, Shaped

from sn6.errors import first_line
from sn6.footprints.ground import Corner
from sn6.footprints.matching import repaired

POLYGONAL = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)


@dataclass(frozen=True, eq=False)
class Outlines:
    """Footprints in the order of their file, which settles ties.

    Attributes:
        tiles: the image id of every tile that the file names, with footprints or without → its west and north edge
            in metres, None where that is not known
        tile: of each footprint, the position of its tile in `tiles`
        geometries: Polygons and MultiPolygons in pixels of the tile, finite and not empty
        values: confidences of proposals; mean heights of buildings in metres, NaN where not known
        unread: polygons in rows that say that there is none, by the BuildingId -1
    """

    tiles: dict[str, Corner | None]
    tile: Int64[np.ndarray, "n"]
    geometries: Shaped[np.ndarray, "n"]
    values: Float64[np.ndarray, "n"]
    unread: int = 0

    def __len__(self) -> int:
        return len(self.geometries)

    def split(self, first_only: bool = False) -> "Outlines":
        """Each part of a MultiPolygon as a footprint of its own, or its first part alone."""
        parts, row = shapely.get_parts(self.geometries, return_index=True)
        there = ~shapely.is_empty(parts)
        parts, row = parts[there], row[there]
        if first_only:
            row, first = np.unique(row, return_index=True)
            parts = parts[first]
        return replace(self, tile=self.tile[row], geometries=parts, values=self.values[row])

    @property
    def crossing(self) -> Bool[np.ndarray, "n"]:
        """Which polygons are not valid, such as those with a ring that crosses itself."""
        return ~shapely.is_valid(self.geometries)

    def repaired(self) -> "Outlines":
        """With what the rings fill (even-odd) in the place of Polygons that are not valid."""
        return replace(self, geometries=repaired(self.geometries))

    def by_tile(self) -> dict[str, tuple[Shaped[np.ndarray, "_"], Float64[np.ndarray, "_"]]]:
        """The geometries and values of each tile, in the order of the file."""
        order = np.argsort(self.tile, kind="stable")
        ends = np.searchsorted(self.tile[order], np.arange(len(self.tiles)), side="right")
        geometries, values = np.split(self.geometries[order], ends), np.split(self.values[order], ends)
        return dict(zip(self.tiles, zip(geometries[:-1], values[:-1], strict=True), strict=True))


class UnsoundGeometry(ValueError):
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
        raise UnsoundGeometry(first, f"has {fault}")
    if geometries[first] is not None:
        raise UnsoundGeometry(first, f"is a {geometries[first].geom_type}, no polygon")
    try:
        parse(written[first])
    except (shapely.errors.GEOSException, TypeError) as error:
        raise UnsoundGeometry(first, f"does not parse ({first_line(error)})") from None
    raise UnsoundGeometry(first, "does not parse")
