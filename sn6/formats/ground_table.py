"""Footprints in metres, as GeoJSON and GeoParquet hold them, on the way to the pixels of their tiles."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from jaxtyping import Float64, Int64, Shaped

from sn6.datasets.layout import CRS, PIXEL
from sn6.errors import UserError
from sn6.footprints.ground import Corner, to_pixels
from sn6.formats.outlines import Corners, InvalidGeometry, Outlines, pack, parse_polygons


@dataclass(frozen=True)
class GroundTable:
    """The rows of a file in metres.

    Attributes:
        path: the file
        image_ids: of each row
        written: the geometry of each row in the file's own form, None where there is none
        values: of each row, None where there are none
        crs: of the geometries, as "EPSG:<code>"
        looked_at: what our own writers say of the tiles: `{"pixel": 0.5, "tiles": {"<image id>": [west, north]}}`;
            empty in a file of another program
        first: the number of the first row in the file
    """

    path: Path
    image_ids: Sequence[Any]
    written: Sequence[Any]
    values: Sequence[Any] | None
    crs: str
    looked_at: Mapping[str, Any]
    first: int = 0

    def outlines(self, parse: Callable[..., Any], corners: Mapping[str, Corner]) -> Outlines:
        """As `footprints`, packed."""
        return pack(*self.footprints(parse, corners))

    def footprints(
        self, parse: Callable[..., Any], corners: Mapping[str, Corner]
    ) -> tuple[Corners, Int64[np.ndarray, "n"], Shaped[np.ndarray, "n"], Float64[np.ndarray, "n"]]:
        """The rows as footprints in pixels: the tiles, the place there of each one's, the geometries and the values.

        Args:
            parse: shapely's function for what is written
            corners: of the tiles, for a file that does not tell them

        Raises:
            UserError: a row without image id, value or sound polygon, a tile whose corner is not known
        """
        told, pixel = self._looked_at()
        tiles: Corners = dict(told)
        for row, image_id in enumerate(self.image_ids):
            if not isinstance(image_id, str):
                raise self._error(row, "there is no image_id; name the tile that it lies in")
            if image_id not in tiles:
                tiles[image_id] = self._corner(row, corners)
        rows = [row for row, geometry in enumerate(self.written) if geometry is not None]
        written = np.array([self.written[row] for row in rows], dtype=object)
        try:
            geometries = parse_polygons(written, parse)
        except InvalidGeometry as error:
            raise self._error(rows[error.row], f"the geometry {error.reason}; mend or drop it") from None
        xy = shapely.get_coordinates(geometries)
        if not told and len(xy) and (np.abs(xy) <= (180, 90)).all():
            raise UserError(f"{self.path}: the coordinates look like degrees; reproject the file to {CRS}")
        number = {image_id: i for i, image_id in enumerate(tiles)}
        tile = np.array([number[self.image_ids[row]] for row in rows], dtype=np.int64)
        corner_of_tile = np.array([*tiles.values()], dtype=np.float64).reshape(-1, 2)
        values = np.array([self._value(row) for row in rows], dtype=np.float64)
        there = ~shapely.is_empty(geometries)
        polygons = to_pixels(geometries[there], corner_of_tile[tile[there]], pixel)
        return tiles, tile[there], polygons, values[there]

    def _looked_at(self) -> tuple[dict[str, Corner], float]:
        try:
            told = {str(tile): (float(west), float(north)) for tile, (west, north) in self.looked_at["tiles"].items()}
            return told, float(self.looked_at["pixel"])
        except KeyError:
            return {}, PIXEL
        except (AttributeError, TypeError, ValueError):
            raise UserError(f"{self.path}: its list of tiles is damaged; write the file again") from None

    def _corner(self, row: int, corners: Mapping[str, Corner]) -> Corner:
        if self.image_ids[row] not in corners:
            raise self._error(row, "the file does not tell where this tile lies; give root= of the archive that has it")
        if self.crs != CRS:
            raise UserError(f"{self.path} is in {self.crs}; reproject it to {CRS}")
        return corners[self.image_ids[row]]

    def _value(self, row: int) -> float:
        if self.values is None:
            return np.nan
        value = self.values[row]
        if not isinstance(value, int | float) or not np.isfinite(value):
            raise self._error(row, f"the value {value!r} is no finite number; mend it")
        return float(value)

    def _error(self, row: int, message: str) -> UserError:
        return UserError(f"{self.path}, footprint {self.first + row + 1}, tile {self.image_ids[row]}: {message}")
