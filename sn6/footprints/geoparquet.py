"""Footprints as GeoParquet 1.1: a table with a CRS that QGIS, geopandas and DuckDB open.

Columns: `image_id`, `confidence`, `area_m2` and `geometry` (WKB). The file's metadata hold under the key `sn6` the
size of a pixel and the tiles that were looked at, each with its corner, so that the file can be scored.
"""

import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from sn6.data.layout import CRS, PIXEL
from sn6.footprints import Footprints
from sn6.footprints.ground import Corner, to_ground
from sn6.whole import whole

KEY = "sn6"  # of our own entry in the file's metadata
SCHEMA = pa.schema(
    {"image_id": pa.string(), "confidence": pa.float64(), "area_m2": pa.float64(), "geometry": pa.binary()}
)
GROUP = 16_384  # footprints that are held before they go to the file as a row group


class GeoParquetWriter:
    """A context manager that takes the footprints tile by tile; the file is there, whole, once all went well.

    Memory holds one row group and the names of the tiles.

    Args:
        path: the file
        crs: of the tiles, such as "EPSG:32631"; None where they have none, so that the file does not claim one
        pixel: size of a pixel in the units of the CRS
    """

    def __init__(self, path: Path, crs: str | None = CRS, pixel: float = PIXEL) -> None:
        self.path = path
        self.crs = crs
        self.pixel = pixel

    def __enter__(self) -> "GeoParquetWriter":
        self._tiles: dict[str, Corner] = {}
        self._rows: list[pa.RecordBatch] = []
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
        with ExitStack() as stack:
            file = stack.enter_context(stack.enter_context(whole(self.path)).open("wb"))
            self._file = stack.enter_context(pq.ParquetWriter(file, SCHEMA, compression="zstd"))
            stack.push(self._finish)
            self._opened = stack.pop_all()
        return self

    def write(self, image_id: str, corner: Corner, footprints: Footprints) -> None:
        """Adds a tile, with footprints or without.

        Args:
            image_id: of the tile
            corner: its west and north edge in metres
            footprints: in pixels of the tile
        """
        self._tiles[image_id] = corner
        if not len(footprints):
            return
        polygons = to_ground(footprints.polygons, corner, self.pixel)
        west, south, east, north = shapely.total_bounds(polygons)
        np.minimum(self._bounds[:2], (west, south), out=self._bounds[:2])
        np.maximum(self._bounds[2:], (east, north), out=self._bounds[2:])
        columns = {
            "image_id": [image_id] * len(footprints),
            "confidence": footprints.confidences,
            "area_m2": shapely.area(footprints.polygons) * self.pixel**2,
            "geometry": shapely.to_wkb(polygons),
        }
        self._rows.append(pa.RecordBatch.from_pydict(columns, schema=SCHEMA))
        if sum(len(rows) for rows in self._rows) >= GROUP:
            self._flush()

    def _flush(self) -> None:
        self._file.write_table(pa.Table.from_batches(self._rows, schema=SCHEMA))
        self._rows = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, trace)

    def _finish(self, kind: type[BaseException] | None, *_: Any) -> None:
        """What is left to write, where nothing went wrong; what goes wrong here keeps the file from its place too."""
        if kind is None:
            self._flush()
            self._file.add_key_value_metadata({"geo": json.dumps(self._geo()), KEY: json.dumps(self._looked_at())})

    def _looked_at(self) -> dict[str, Any]:
        return {"pixel": self.pixel, "tiles": self._tiles}

    def _geo(self) -> dict[str, Any]:
        """The member `geo` of the file's metadata, as GeoParquet 1.1 demands it."""
        from rasterio.crs import CRS as RasterioCRS

        column: dict[str, Any] = {"encoding": "WKB", "geometry_types": ["Polygon"]}
        column["crs"] = None if self.crs is None else RasterioCRS.from_string(self.crs).to_dict(projjson=True)
        if np.isfinite(self._bounds).all():
            column["bbox"] = self._bounds.tolist()
        return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
