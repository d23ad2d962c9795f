"""Read vector files of any format, whose readers raise errors of many types or crash on hostile files."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import geopandas
import pyogrio
from pyarrow import parquet
from pyarrow.types import is_binary, is_large_binary

from sn6.errors import UserError, first_line
from sn6.formats.nesting import MAX_DEPTH, is_too_deep
from sn6.formats.outlines import CHUNK


def read_frame(path: Path, wanted: Sequence[str], where: str | None) -> geopandas.GeoDataFrame:
    """Read the geometries of a vector file, and some of its attributes.

    Args:
        path: of any format that pyogrio reads, or GeoParquet; of a file with several layers the first
        wanted: names of attributes
        where: SQL condition on the attributes; None for all features

    Raises:
        UserError: it cannot be read, or has no such attribute
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; give a file of polygons", kind="not_found", key=path)
    try:
        fields = attributes(path)
        if missing := [name for name in wanted if name not in fields]:
            raise UserError(
                f"{path} has no attribute {missing[0]!r}; its attributes: {', '.join(fields) or 'none'}",
                kind="not_found",
                key=path,
                value=missing[0],
            )
        if is_geoparquet(path):
            frame = read_geoparquet(path, where)
        else:
            frame = geopandas.read_file(path, columns=[*wanted], where=where, engine="pyogrio")
    except UserError:
        raise
    except Exception as error:  # pyogrio, pyarrow, shapely and pyproj raise errors of many types on a broken file
        advice = "correct the condition" if where else "give another file"
        raise unreadable(path, error, advice) from None
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise UserError(f"{path} has no geometries; give a file of polygons", kind="wrong_data", key=path)
    return frame


def attributes(path: Path) -> list[str]:
    """Return the names of the attributes of a file; raise a UserError where it cannot be read."""
    try:
        names = parquet.read_schema(path).names if is_geoparquet(path) else pyogrio.read_info(path)["fields"]
    except Exception as error:  # of many types
        raise unreadable(path, error, "give another file") from None
    return [str(name) for name in names]


def unreadable(path: Path, error: Exception, advice: str) -> UserError:
    """Return the UserError for a vector file that a library refuses."""
    return UserError(f"{path} cannot be read ({first_line(error)}); {advice}", kind="unreadable", key=path)


def is_geoparquet(path: Path) -> bool:
    """Return whether a file is GeoParquet by its name; pyogrio's wheels are built without this format."""
    return path.suffix.lower() in (".parquet", ".geoparquet")


def read_geoparquet(path: Path, where: str | None) -> geopandas.GeoDataFrame:
    """Read a GeoParquet file; a condition is evaluated by GDAL as for other formats, on a copy in memory.

    Raises:
        UserError: a geometry is nested too deeply
    """
    check_nesting(path)
    frame = geopandas.read_parquet(path)
    if where is None:
        return frame
    copy = BytesIO()
    pyogrio.write_dataframe(frame, copy, driver="FlatGeobuf", spatial_index=False, geometry_type="Unknown")
    copy.seek(0)
    return geopandas.read_file(copy, where=where, engine="pyogrio")


def check_nesting(path: Path) -> None:
    """Raise a UserError where a column of a GeoParquet file has a geometry that would crash GEOS."""
    with parquet.ParquetFile(path) as file:
        columns = [field.name for field in file.schema_arrow if is_binary(field.type) or is_large_binary(field.type)]
        for batch in file.iter_batches(CHUNK, columns=columns):
            for column in batch.columns:
                if any(is_too_deep(one) for one in column.to_pylist() if one is not None):
                    message = f"{path} has a geometry of more than {MAX_DEPTH} collections in one another; remove it"
                    raise UserError(message, kind="wrong_data", key=path)
