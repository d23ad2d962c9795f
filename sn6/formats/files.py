"""Write files of footprints by the name of their format, and read them by their suffix."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from sn6.errors import UserError
from sn6.footprints.ground import TileGrid
from sn6.formats.outlines import Outlines
from sn6.formats.writer import FootprintWriter

# Name of the format, which is the suffix of its files → its writer, which is imported when it is used.
WRITERS = {
    "csv": "sn6.formats.challenge_csv.ChallengeCSVWriter",
    "gpkg": "sn6.formats.gdal_layer.GeoPackageWriter",
    "geojson": "sn6.formats.geojson.GeoJSONWriter",
    "parquet": "sn6.formats.geoparquet.GeoParquetWriter",
    "fgb": "sn6.formats.gdal_layer.FlatGeobufWriter",
}

# Suffix of files that name the tiles of their footprints → module with `names_tiles` and `read_outlines`, which imports
# its own libraries, so that a command starts with only those that it needs.
READERS = {
    ".csv": "sn6.formats.challenge_csv",
    ".geojson": "sn6.formats.geojson",
    ".json": "sn6.formats.geojson",
    ".parquet": "sn6.formats.geoparquet",
    ".geoparquet": "sn6.formats.geoparquet",
}


def writer_of(name: str) -> type[FootprintWriter]:
    """Return the writer of a format."""
    module, _, class_name = WRITERS[name].rpartition(".")
    return getattr(import_module(module), class_name)


def check_formats(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of formats in the order of WRITERS, each once; raise a UserError for none or an unknown one."""
    for name in names:
        if name not in WRITERS:
            raise UserError(
                f"unknown format {name!r}; choose among {', '.join(WRITERS)}",
                kind="unknown_value",
                key="formats",
                value=name,
            )
    if not names:
        raise UserError(
            f"formats= is empty; choose among {', '.join(WRITERS)}", kind="missing_value", key="formats", value=[]
        )
    return tuple(name for name in WRITERS if name in names)


def read_truth(path: Path, grid: TileGrid | None = None) -> Outlines:
    """Read the buildings of a file; a CSV has their heights.

    Args:
        path: file to read
        grid: of the tiles, for a GeoJSON or GeoParquet of another program, which does not contain it

    Raises:
        UserError: another suffix, or an error of the format's reader
    """
    return _read(path, grid, proposals=False)


def read_proposals(path: Path, grid: TileGrid | None = None) -> Outlines:
    """Read the proposals of a file with their confidences; arguments and errors as for `read_truth`."""
    return _read(path, grid, proposals=True)


def names_tiles(path: Path) -> bool:
    """Return whether a file is of a format that these functions read, and names the tiles of its footprints.

    Raises:
        UserError: an error of the format's reader
    """
    suffix = path.suffix.lower()
    return suffix in READERS and import_module(READERS[suffix]).names_tiles(path)


def _read(path: Path, grid: TileGrid | None, proposals: bool) -> Outlines:
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise UserError(
            f"unknown suffix {path.suffix!r} of {path}; use .csv, .geojson or .parquet",
            kind="unknown_value",
            key=path,
            value=path.suffix,
        )
    return import_module(READERS[suffix]).read_outlines(path, "confidence" if proposals else None, grid)
