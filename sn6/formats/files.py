"""Read files of footprints by their suffix: the challenge's CSV, GeoJSON or GeoParquet."""

from pathlib import Path

from sn6.errors import UserError
from sn6.footprints.ground import TileGrid
from sn6.formats.outlines import Outlines


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
    match path.suffix.lower():
        case ".csv":
            return True
        case ".geojson" | ".json":
            from sn6.formats.geojson import geojson_names_tiles

            return geojson_names_tiles(path)
        case ".parquet" | ".geoparquet":
            from sn6.formats.geoparquet import geoparquet_names_tiles

            return geoparquet_names_tiles(path)
    return False


def _read(path: Path, grid: TileGrid | None, proposals: bool) -> Outlines:
    # Each format imports its own libraries, so that a command starts with only those that it needs.
    match path.suffix.lower():
        case ".csv":
            from sn6.formats.challenge_csv import read_proposals_csv, read_truth_csv

            return read_proposals_csv(path) if proposals else read_truth_csv(path)
        case ".geojson" | ".json":
            from sn6.formats.geojson import read_geojson

            return read_geojson(path, "confidence" if proposals else None, grid)
        case ".parquet" | ".geoparquet":
            from sn6.formats.geoparquet import read_geoparquet

            return read_geoparquet(path, "confidence" if proposals else None, grid)
    raise UserError(
        f"unknown suffix {path.suffix!r} of {path}; use .csv, .geojson or .parquet",
        kind="unknown_value",
        key=path,
        value=path.suffix,
    )
