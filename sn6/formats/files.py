"""Files of footprints by their suffix: the challenge's CSV, GeoJSON or GeoParquet."""

from collections.abc import Mapping
from pathlib import Path

from sn6.errors import UserError
from sn6.footprints.ground import Corner
from sn6.formats.outlines import Outlines


def read_truth(path: Path, corners: Mapping[str, Corner]) -> Outlines:
    """The buildings of a file; a CSV has their heights.

    Args:
        path: the file
        corners: of tiles, for a GeoJSON or GeoParquet of another program, which does not tell them

    Raises:
        UserError: another suffix, or what the reader of the format raises
    """
    return _read(path, corners, proposals=False)


def read_proposals(path: Path, corners: Mapping[str, Corner]) -> Outlines:
    """The proposals of a file and their confidences; else as `read_truth`."""
    return _read(path, corners, proposals=True)


def _read(path: Path, corners: Mapping[str, Corner], proposals: bool) -> Outlines:
    # Each format brings its own libraries, so that a door starts with those alone that it needs.
    match path.suffix.lower():
        case ".csv":
            from sn6.formats.challenge_csv import read_proposals_csv, read_truth_csv

            return read_proposals_csv(path) if proposals else read_truth_csv(path)
        case ".geojson" | ".json":
            from sn6.formats.geojson import read_geojson

            return read_geojson(path, corners, "confidence" if proposals else None)
        case ".parquet" | ".geoparquet":
            from sn6.formats.geoparquet import read_geoparquet

            return read_geoparquet(path, corners, "confidence" if proposals else None)
    raise UserError(f"{path} has the suffix {path.suffix!r}; give a .csv, .geojson or .parquet")
