"""Read and write footprints as GeoParquet 1.1: a table with a CRS that QGIS, geopandas and DuckDB open.

Columns: `image_id`, `confidence` (0 to 1), `area_m2`, with several classes `category`, the name of the class, where
images were fused `looks`, their number, and `geometry` (WKB, metres). The metadata of the file contain under the key
`sn6` the members `tiles` and `pixel_size` of `sn6.formats.geojson`, so that the file can be scored.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from jaxtyping import Float64

from sn6.errors import UserError, first_line
from sn6.footprints import Footprints
from sn6.footprints.ground import TileGrid
from sn6.formats.ground_table import GroundTable
from sn6.formats.outlines import CHUNK, Outlines, concatenate, read_error
from sn6.formats.writer import GroundWriter

KEY = b"sn6"  # of the evaluated tiles in the metadata of the file
COLUMNS = {"image_id": pa.string(), "confidence": pa.float64(), "area_m2": pa.float64()}
GROUP = 16_384  # footprints per row group


class GeoParquetWriter(GroundWriter):
    """Write a GeoParquet table; memory contains one row group and the names of the tiles."""

    def _begin(self, stack: ExitStack) -> None:
        further = ({"category": pa.string()} if self.classes else {}) | (
            {"looks": pa.int64()} if self.has_looks else {}
        )
        self._schema = pa.schema(COLUMNS | further | {"geometry": pa.binary()})
        self._parquet = stack.enter_context(pq.ParquetWriter(self._file, self._schema, compression="zstd"))
        self._rows: list[pa.RecordBatch] = []
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])

    def _add(self, image_id: str, footprints: Footprints, areas: Float64[np.ndarray, "n"]) -> None:
        if not len(footprints):
            return
        bounds = shapely.total_bounds(footprints.polygons)
        self._bounds = np.r_[np.minimum(self._bounds, bounds)[:2], np.maximum(self._bounds, bounds)[2:]]
        columns = {
            "image_id": [image_id] * len(footprints),
            "confidence": footprints.confidences,
            "area_m2": areas,
            "geometry": shapely.to_wkb(footprints.polygons),
        }
        if self.classes:
            columns["category"] = self.categories(footprints)
        if self.has_looks:
            columns["looks"] = self.numbers_of_looks(footprints)
        self._rows.append(pa.RecordBatch.from_pydict(columns, schema=self._schema))
        if sum(len(rows) for rows in self._rows) >= GROUP:
            self._flush()

    def _flush(self) -> None:
        self._parquet.write_table(pa.Table.from_batches(self._rows, schema=self._schema))
        self._rows = []

    def _end(self) -> None:
        if self._rows:
            self._flush()
        self._parquet.add_key_value_metadata({"geo": json.dumps(self._geo()), KEY: json.dumps(self.evaluated_tiles())})

    def _geo(self) -> dict[str, Any]:
        """Return the metadata entry `geo` that GeoParquet 1.1 requires."""
        from rasterio.crs import CRS

        column: dict[str, Any] = {"encoding": "WKB", "geometry_types": ["Polygon"]}
        column["crs"] = None if self.crs is None else CRS.from_string(self.crs).to_dict(projjson=True)
        if np.isfinite(self._bounds).all():
            column["bbox"] = self._bounds.tolist()
        return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}


def read_geoparquet(path: Path, value: str | None = None, grid: TileGrid | None = None) -> Outlines:
    """Read the footprints of a table that names the tile of each in the column `image_id`.

    Args:
        path: file to read
        value: column of the values; None where there are none, which makes them NaN
        grid: of the tiles, for a file without metadata under the key `sn6`

    Raises:
        UserError: a file that cannot be read, a column that is missing, a row without a valid polygon, a tile whose
            corner is unknown, another CRS than that of the grid
    """
    return concatenate(table.outlines(shapely.from_wkb, grid) for table in _read_tables(path, value))


def geoparquet_names_tiles(path: Path) -> bool:
    """Return whether a table lists its tiles, or has a column that names them; raise a UserError for a broken file."""
    try:
        with pq.ParquetFile(path) as file:
            return "image_id" in file.schema_arrow.names or KEY in (file.metadata.metadata or {})
    except OSError as error:
        raise read_error(path, error) from None
    except pa.ArrowException as error:
        raise UserError(
            f"{path} is not a GeoParquet file ({first_line(error)}); check the file", kind="unreadable", key=path
        ) from None


def _read_tables(path: Path, value: str | None) -> Iterator[GroundTable]:
    """Yield the file in chunks, the first of them without rows."""
    try:
        with pq.ParquetFile(path) as file:
            metadata = file.metadata.metadata or {}
            geo = json.loads(metadata[b"geo"])
            primary = geo["primary_column"]
            column = geo["columns"][primary]
            names = ["image_id", primary, *([value] if value else [])]
            _check_columns(path, names, file.schema_arrow.names, column.get("encoding"))
            evaluated_tiles = json.loads(metadata.get(KEY, b"{}"))
            first = 0
            for batch in chain([file.schema_arrow.empty_table()], file.iter_batches(CHUNK, columns=names)):
                image_ids, geometries = batch["image_id"].to_pylist(), batch[primary].to_pylist()
                values = batch[value].to_pylist() if value else None
                yield GroundTable(path, image_ids, geometries, values, _crs_of(column), evaluated_tiles, first)
                first += len(image_ids)
    except OSError as error:
        raise read_error(path, error) from None
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is not a GeoParquet file ({first_line(error)}); check the file", kind="unreadable", key=path
        ) from None


def _check_columns(path: Path, names: Sequence[str], available: Sequence[str], encoding: str | None) -> None:
    """Raise a UserError if a column is missing or the geometries are not WKB."""
    for name in names:
        if name not in available:
            raise UserError(
                f"{path}: the column {name} is missing; available columns: {', '.join(available)}",
                kind="wrong_data",
                key=path,
                value=name,
            )
    if encoding != "WKB":
        raise UserError(
            f"{path}: the geometries are encoded as {encoding}; write the file again with the encoding WKB",
            kind="wrong_data",
            key=path,
            value=encoding,
        )


def _crs_of(column: Mapping[str, Any]) -> str:
    """Return the CRS of a column as "EPSG:<code>", or its name."""
    crs = column.get("crs", {"id": {"authority": "OGC", "code": "CRS84"}})  # the specification's default
    if crs is None:
        return "unknown"
    identity = crs.get("id", {})
    return f"{identity['authority']}:{identity['code']}" if identity else str(crs.get("name"))
