"""Footprints as GeoParquet 1.1: a table with a CRS that QGIS, geopandas and DuckDB open.

Columns: `image_id`, `confidence`, `area_m2` and `geometry` (WKB). The file's metadata hold under the key `sn6` the
size of a pixel and the tiles that were looked at, each with its corner, so that the file can be scored.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from sn6.errors import UserError, first_line
from sn6.footprints import Footprints
from sn6.footprints.ground import Corner, to_ground
from sn6.formats.ground_table import GroundTable
from sn6.formats.outlines import CHUNK, Outlines, concatenate
from sn6.formats.writer import FootprintWriter

KEY = b"sn6"  # of our own entry in the file's metadata
SCHEMA = pa.schema(
    {"image_id": pa.string(), "confidence": pa.float64(), "area_m2": pa.float64(), "geometry": pa.binary()}
)
GROUP = 16_384  # footprints that are held before they go to the file as a row group


class GeoParquetWriter(FootprintWriter):
    """Memory holds one row group and the names of the tiles."""

    def _begin(self, stack: ExitStack) -> None:
        self._parquet = stack.enter_context(pq.ParquetWriter(self._file, SCHEMA, compression="zstd"))
        self._rows: list[pa.RecordBatch] = []
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])

    def _add(self, image_id: str, corner: Corner, footprints: Footprints) -> None:
        if not len(footprints):
            return
        polygons = to_ground(footprints.polygons, corner, self.pixel)
        bounds = shapely.total_bounds(polygons)
        self._bounds = np.r_[np.minimum(self._bounds, bounds)[:2], np.maximum(self._bounds, bounds)[2:]]
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
        self._parquet.write_table(pa.Table.from_batches(self._rows, schema=SCHEMA))
        self._rows = []

    def _end(self) -> None:
        if self._rows:
            self._flush()
        self._parquet.add_key_value_metadata({"geo": json.dumps(self._geo()), KEY: json.dumps(self.looked_at())})

    def _geo(self) -> dict[str, Any]:
        """The member `geo` of the file's metadata, as GeoParquet 1.1 demands it."""
        from rasterio.crs import CRS

        column: dict[str, Any] = {"encoding": "WKB", "geometry_types": ["Polygon"]}
        column["crs"] = None if self.crs is None else CRS.from_string(self.crs).to_dict(projjson=True)
        if np.isfinite(self._bounds).all():
            column["bbox"] = self._bounds.tolist()
        return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}


def read_geoparquet(path: Path, corners: Mapping[str, Corner], value: str | None) -> Outlines:
    """The footprints of a table that names the tile of each in the column `image_id`.

    Args:
        path: the file
        corners: of tiles, for a file of another program, which does not tell them
        value: the column of the values; None where there are none, which are NaN then

    Raises:
        UserError: a file that cannot be read, a column that is missing, a row without a sound polygon, a tile
            whose corner is not known, another CRS where the file does not tell the corners
    """
    return concatenate(table.outlines(shapely.from_wkb, corners) for table in _tables(path, value))


def _tables(path: Path, value: str | None) -> Iterator[GroundTable]:
    """The file in pieces, the first of them without rows."""
    try:
        with pq.ParquetFile(path) as file:
            metadata = file.metadata.metadata or {}
            geo = json.loads(metadata[b"geo"])
            primary = geo["primary_column"]
            column = geo["columns"][primary]
            there = file.schema_arrow.names
            wanted = ["image_id", primary, *([value] if value else [])]
            if missing := set(wanted) - set(there):
                raise UserError(f"{path}: there is no column {min(missing)}, but {', '.join(there)}; add it")
            if (encoding := column.get("encoding")) != "WKB":
                raise UserError(f"{path} holds geometries as {encoding}; write it again with the encoding WKB")
            looked_at = json.loads(metadata.get(KEY, b"{}"))
            first = 0
            for batch in chain([file.schema_arrow.empty_table()], file.iter_batches(CHUNK, columns=wanted)):
                image_ids, written = batch["image_id"].to_pylist(), batch[primary].to_pylist()
                values = batch[value].to_pylist() if value else None
                yield GroundTable(path, image_ids, written, values, crs_of(column), looked_at, first)
                first += len(image_ids)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}); check the path and the file") from None
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no GeoParquet file ({first_line(error)}); check the file") from None


def crs_of(column: Mapping[str, Any]) -> str:
    """The CRS of a column as "EPSG:<code>", or what there is to say of it."""
    crs = column.get("crs", {"id": {"authority": "OGC", "code": "CRS84"}})  # the specification's default
    if crs is None:
        return "no CRS"
    identity = crs.get("id", {})
    return f"{identity['authority']}:{identity['code']}" if identity else str(crs.get("name"))
