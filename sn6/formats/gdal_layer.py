"""Write footprints as layers by GDAL's drivers: GeoPackage and FlatGeobuf."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar
from zlib import crc32

import pyarrow as pa
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError

from sn6.errors import UserError
from sn6.formats.geotiff import silent_libtiff
from sn6.formats.layer import GEOMETRY, LayerWriter

DATE = "1970-01-01T00:00:00.000Z"  # of the last change of each layer, so that the same footprints give the same bytes


class GDALWriter(LayerWriter):
    """Write a layer, named as its file, by a driver of GDAL.

    Attributes:
        driver: its name in GDAL
    """

    driver: ClassVar[str]

    def _write(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        checksums: list[int] = []
        stops: list[BaseException] = []  # GDAL reports what a batch raises as an error of its own

        def rows() -> Iterator[pa.RecordBatch]:
            try:
                for batch in batches:
                    checksums.append(checksum(batch[GEOMETRY]))
                    yield batch
            except GeneratorExit:  # GDAL wants no more
                raise
            except BaseException as stop:
                stops.append(stop)
                raise

        is_written = False
        with fixed_date(), silent_libtiff(), warnings.catch_warnings(), suppress(DataLayerError, DataSourceError):
            warnings.simplefilter("ignore")  # no CRS, or what suppressed errors did not write
            pyogrio.write_arrow(
                pa.RecordBatchReader.from_batches(schema, rows()),
                self._part,
                layer=self.path.stem,
                driver=self.driver,
                geometry_name=GEOMETRY,
                geometry_type="Polygon",
                crs=self.crs,
            )
            is_written = True
        if stops:
            raise stops[0]
        if not is_written or checksum_of_file(self._part) != sum(checksums):
            raise UserError(
                f"cannot write {self.path}, most likely because the disk is full; free some space and run the same "
                "command again",
                kind="unwritable",
                key=self.path,
            )


class GeoPackageWriter(GDALWriter):
    """Write a GeoPackage, a database of SQLite with an index of places, which QGIS and ArcGIS edit."""

    driver = "GPKG"


class FlatGeobufWriter(GDALWriter):
    """Write a FlatGeobuf, which programs read by place from a web server."""

    driver = "FlatGeobuf"


@contextmanager
def fixed_date() -> Iterator[None]:
    """Let GDAL write DATE in place of the time."""
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": DATE})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def checksum(geometries: pa.Array) -> int:
    """Return a checksum of geometries (WKB) that does not depend on their order; that of two arrays is the sum."""
    return sum(map(crc32, geometries.to_pylist()))


def checksum_of_file(path: Path) -> int | None:
    """Return the checksum of all geometries of a file; None where it cannot be read to its end, or by place.

    A driver writes the index of places when it closes the file, and GDAL does not tell that this has failed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            info = pyogrio.read_info(path)
            if info["features"] > 0 and not info["capabilities"]["fast_spatial_filter"]:
                return None
            with pyogrio.open_arrow(path, columns=[], use_pyarrow=True) as (metadata, batches):
                return sum(checksum(batch[metadata["geometry_name"] or "wkb_geometry"]) for batch in batches)
    except (DataLayerError, DataSourceError, OSError, pa.ArrowException):
        return None
