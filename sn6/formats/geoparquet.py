"""Read and write footprints as GeoParquet 1.1: a table with a CRS that QGIS, geopandas and DuckDB open.

Columns: the attributes of `sn6.formats.writer.COLUMN_TYPES` that footprints have, `geometry` (WKB) and `bbox`, its
bounds, by which readers skip row groups: rows are sorted by place. The metadata of the file contain under the key `sn6`
the members `tiles` and `pixel_size` of `sn6.formats.geojson`, so that the file can be scored.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from sn6.errors import UserError, first_line
from sn6.footprints.ground import TileGrid
from sn6.formats.ground_table import GroundTable
from sn6.formats.layer import GEOMETRY, LayerWriter
from sn6.formats.outlines import CHUNK, Outlines, concatenate, read_error

KEY = b"sn6"  # of the evaluated tiles in the metadata of the file
EDGES = ("xmin", "ymin", "xmax", "ymax")
BBOX = pa.field("bbox", pa.struct([pa.field(edge, pa.float64(), nullable=False) for edge in EDGES]))


class GeoParquetWriter(LayerWriter):
    """Write a GeoParquet table, a row group for each batch of rows.

    The metadata are those of the Arrow schema too, which geopandas, dask-geopandas and lonboard read.
    """

    def _write(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        geometry = schema.field(GEOMETRY).with_metadata(self._extension())
        schema = schema.set(schema.get_field_index(GEOMETRY), geometry).append(BBOX)
        metadata = {"geo": json.dumps(self._geo()), KEY: json.dumps(self.evaluated_tiles())}
        with pq.ParquetWriter(self._part, schema.with_metadata(metadata), compression="zstd") as table:
            for batch in batches:
                bounds = shapely.bounds(shapely.from_wkb(batch[GEOMETRY].to_numpy(zero_copy_only=False)))
                bbox = pa.StructArray.from_arrays([pa.array(edge) for edge in bounds.T], fields=list(BBOX.type))
                table.write_table(pa.Table.from_arrays([*batch.columns, bbox], schema=table.schema))

    def _projjson(self) -> dict[str, Any] | None:
        from rasterio.crs import CRS

        return None if self.crs is None else CRS.from_string(self.crs).to_dict(projjson=True)

    def _extension(self) -> dict[str, str]:
        """Return the metadata of the column of geometries by the specification of GeoArrow."""
        crs = {} if self.crs is None else {"crs": self._projjson(), "crs_type": "projjson"}
        return {"ARROW:extension:name": "geoarrow.wkb", "ARROW:extension:metadata": json.dumps(crs)}

    def _geo(self) -> dict[str, Any]:
        """Return the metadata entry `geo` that GeoParquet 1.1 requires."""
        column: dict[str, Any] = {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": self._projjson()}
        column["covering"] = {"bbox": {edge: [BBOX.name, edge] for edge in EDGES}}
        if np.isfinite(self.bounds).all():
            column["bbox"] = self.bounds.tolist()
        return {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}


def read_outlines(path: Path, value: str | None = None, grid: TileGrid | None = None) -> Outlines:
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


def names_tiles(path: Path) -> bool:
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
    except (pa.ArrowException, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
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
