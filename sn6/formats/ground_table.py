"""Convert footprints in metres, as GeoJSON and GeoParquet contain them, to the pixels of their tiles."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from jaxtyping import Float64, Int64, Shaped

from sn6.errors import Kind, UserError
from sn6.footprints.ground import Corner, TileGrid, to_pixels
from sn6.formats.outlines import Corners, InvalidGeometry, Outlines, pack, parse_polygons

MAX_VALUE = float(np.finfo(np.float64).max)
MARGIN, MAX_TILE = 1000, 200_000  # pixels by which a footprint may extend beyond its tile; edge length of a tile


@dataclass(frozen=True)
class GroundTable:
    """The rows of a file in metres.

    Attributes:
        path: file that was read
        image_ids: of each row
        geometries: of each row in the encoding of the file, None where there is none
        values: of each row, None if the file has none
        crs: of the geometries, as "EPSG:<code>"
        evaluated_tiles: members that GroundWriter adds, `{"pixel_size": 0.5, "tiles": {"<image id>": [west, north]}}`;
            empty in a file of another program
        first: number of the first row in the file, from 0
    """

    path: Path
    image_ids: Sequence[Any]
    geometries: Sequence[Any]
    values: Sequence[Any] | None
    crs: str
    evaluated_tiles: Mapping[str, Any]
    first: int = 0

    def outlines(self, parse: Callable[..., Any], grid: TileGrid | None) -> Outlines:
        """Return the rows as Outlines; see `footprints`."""
        tiles, tile, polygons, values, left_out = self.footprints(parse, grid)
        return pack(tiles, tile, polygons, values, left_out=left_out)

    def footprints(
        self, parse: Callable[..., Any], grid: TileGrid | None
    ) -> tuple[Corners, Int64[np.ndarray, "n"], Shaped[np.ndarray, "n"], Float64[np.ndarray, "n"], int]:
        """Return the corners of the tiles and, for each footprint, the position of its tile, its polygon, its value.

        The last is the number of parts of collections that are no polygons. Polygons are in pixels. Rows without a
        geometry name their tile and have no footprint.

        Args:
            parse: shapely's function for the encoding of the geometries
            grid: of the tiles, for a file without evaluated tiles

        Raises:
            UserError: a row without image id, value or valid polygon; a tile whose corner is unknown; another CRS
        """
        own_tiles, own_pixel_size = self._read_evaluated_tiles()
        tiles: Corners = dict(own_tiles)
        for row, image_id in enumerate(self.image_ids):
            if not isinstance(image_id, str):
                raise self._error(row, "image_id is missing; add it", "wrong_data", "image_id")
            if image_id not in tiles:
                tiles[image_id] = self._corner(row, grid)
        rows = [row for row, geometry in enumerate(self.geometries) if geometry is not None]
        encoded = np.array([self.geometries[row] for row in rows], dtype=object)
        try:
            geometries, left_out = parse_polygons(encoded, parse)
        except InvalidGeometry as error:
            message = f"the geometry {error.reason}; correct or remove it"
            raise self._error(rows[error.row], message, value=encoded[error.row]) from None
        if grid is not None and own_tiles:
            self._check_grid(own_tiles, own_pixel_size, grid)
        xy = shapely.get_coordinates(geometries)
        if grid is not None and not own_tiles and len(xy) and (np.abs(xy) <= (180, 90)).all():
            raise UserError(
                f"{self.path}: the coordinates seem to be in degrees; reproject the file to {grid.crs}",
                kind="wrong_data",
                key=self.path,
            )
        number = {image_id: i for i, image_id in enumerate(tiles)}
        tile = np.array([number[self.image_ids[row]] for row in rows], dtype=np.int64)
        corner_of_tile = np.array([*tiles.values()], dtype=np.float64).reshape(-1, 2)
        values = np.array([self._value(row) for row in rows], dtype=np.float64)
        filled = ~shapely.is_empty(geometries)
        pixel_size = own_pixel_size or (grid.pixel_size if grid else np.nan)  # NaN only where there are no rows
        polygons = to_pixels(geometries[filled], corner_of_tile[tile[filled]], pixel_size)
        self._check_on_tiles(polygons)
        return tiles, tile[filled], polygons, values[filled], left_out

    def _read_evaluated_tiles(self) -> tuple[dict[str, Corner], float | None]:
        try:
            corners = self.evaluated_tiles["tiles"].items()
            tiles = {str(tile): (float(west), float(north)) for tile, (west, north) in corners}
            pixel_size = float(self.evaluated_tiles["pixel_size"])
            if not (np.isfinite([*tiles.values()]).all() and 0 < pixel_size < np.inf):
                raise ValueError
            return tiles, pixel_size
        except KeyError:
            return {}, None
        except (AttributeError, TypeError, ValueError, OverflowError):
            raise UserError(
                f"{self.path}: the list of evaluated tiles is malformed; write the file again",
                kind="unreadable",
                key=self.path,
                value="tiles",
            ) from None

    def _corner(self, row: int, grid: TileGrid | None) -> Corner:
        image_id = self.image_ids[row]
        if grid is None or image_id not in grid.corners:
            message = "the position of the tile is unknown; give root= (the archive that contains it)"
            raise self._error(row, message, "missing_value", image_id, key="root")
        if self.crs != grid.crs:
            raise UserError(
                f"{self.path}: the CRS is {self.crs}; reproject the file to {grid.crs}",
                kind="wrong_data",
                key=self.path,
                value=self.crs,
            )
        return grid.corners[image_id]

    def _check_grid(self, own_tiles: Mapping[str, Corner], own_pixel_size: float | None, grid: TileGrid) -> None:
        """Raise a UserError where tiles are elsewhere, or their pixels of another size, than in the archive."""
        if own_pixel_size and abs(own_pixel_size - grid.pixel_size) > 0.01 * grid.pixel_size:
            raise UserError(
                f"{self.path}: the pixels are of {own_pixel_size:g}, the archive has {grid.pixel_size:g} m; give "
                "footprints of the archive's tiles",
                kind="wrong_data",
                key=self.path,
                value=own_pixel_size,
            )
        for image_id, corner in own_tiles.items():
            expected = grid.corners.get(image_id, corner)
            if np.abs(np.subtract(corner, expected)).max() > grid.pixel_size:
                raise UserError(
                    f"{self.path}: the tile {image_id} is at {corner}, in the archive at {expected} in {grid.crs}; "
                    "reproject the file to that CRS, without its list of tiles",
                    kind="wrong_data",
                    key=self.path,
                    value=image_id,
                )

    def _check_on_tiles(self, polygons: Shaped[np.ndarray, "n"]) -> None:
        """Raise a UserError where half of the coordinates are on no tile: they are in another CRS than the tiles."""
        xy = shapely.get_coordinates(polygons)
        if len(xy) and not ((xy >= -MARGIN) & (xy <= MAX_TILE)).all(axis=1).mean() > 0.5:
            raise UserError(
                f"{self.path}: the footprints are not on their tiles; reproject the file to the CRS of the tiles",
                kind="wrong_data",
                key=self.path,
                value=self.crs,
            )

    def _value(self, row: int) -> float:
        if self.values is None:
            return np.nan
        value = self.values[row]
        if not isinstance(value, int | float) or not abs(value) <= MAX_VALUE:
            raise self._error(row, f"invalid value {value!r}: must be a finite number", value=value)
        return float(value)

    def _error(
        self, row: int, message: str, kind: Kind = "invalid_value", value: Any = None, key: str | None = None
    ) -> UserError:
        where = f"{self.path}, footprint {self.first + row + 1}, tile {self.image_ids[row]}"
        return UserError(f"{where}: {message}", kind=kind, key=key or self.path, value=value)
