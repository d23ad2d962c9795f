"""Footprints on disk: the challenge's CSVs in pixels, GeoJSON in metres."""

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import shapely
from jaxtyping import Float64, Int64, Shaped

from sn6.data.layout import CRS, PIXEL
from sn6.errors import UserError
from sn6.footprints import Footprints
from sn6.whole import write_text

EPSG = CRS.rpartition(":")[2]
POLYGONAL = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)


@dataclass(frozen=True, eq=False)
class Labels:
    """The true buildings of one tile.

    Attributes:
        polygons: shapely Polygons in pixels, in an array of dtype object; they may overlap and have holes
        heights: mean height of each building in m, NaN where it is not known
    """

    polygons: Shaped[np.ndarray, "n"]
    heights: Float64[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.polygons)


def read_labels(path: Path) -> dict[str, Labels]:
    """The labels' CSV of the challenge, tile by tile in the order of the file.

    Columns: `ImageId`, `TileBuildingId` or `BuildingId`, `PolygonWKT_Pix`, and `Mean_Building_Height` where the
    heights are known; others are not read. A tile without buildings is a row with `POLYGON EMPTY`. Each part
    of a multipolygon is a building.

    Raises:
        UserError: a file that cannot be read, a column that is missing, a row without a sound polygon
    """
    table = _read_table(path)
    heights = np.full(len(table.lines), np.nan)
    if "Mean_Building_Height" in table.columns:
        heights = table.numbers("Mean_Building_Height", empty=np.nan)
    return {tile: Labels(*rows) for tile, rows in _by_tile(table, heights).items()}


def read_proposals(path: Path) -> dict[str, Footprints]:
    """The proposals' CSV of the challenge, tile by tile in the order of the file, which settles ties.

    Columns: `ImageId`, `BuildingId`, `PolygonWKT_Pix`, `Confidence`. Lines that are blank or start with `#` are
    skipped. A row with BuildingId -1 or `POLYGON EMPTY` registers its tile alone; an empty Confidence is 0.
    Each part of a multipolygon is a proposal.

    Raises:
        UserError: a file that cannot be read, a column that is missing, a row without a sound polygon
    """
    table = _read_table(path)
    confidences = table.numbers("Confidence", empty=0.0)
    return {tile: Footprints(*rows) for tile, rows in _by_tile(table, confidences).items()}


def read_geojson_labels(path: Path, to_pixel: tuple[float, float, float]) -> Labels:
    """The buildings of one tile from GeoJSON in EPSG:32631, heights not known.

    An empty file is a tile without buildings. Features without a geometry are skipped, each part of a
    multipolygon is a building.

    Args:
        path: the tile's own file
        to_pixel: the tile's west and north edge in m, and its pixel in m

    Raises:
        UserError: a file that cannot be read, another CRS, a geometry that is no sound polygon
    """
    west, north, pixel = to_pixel
    parts = shapely.get_parts(shapely.force_2d(_read_geojson(path)))
    polygons = shapely.transform(parts[~shapely.is_empty(parts)], lambda xy: (xy - (west, north)) / (pixel, -pixel))
    return Labels(polygons, np.full(len(polygons), np.nan))


def write_proposals(path: Path, footprints_by_tile: Mapping[str, Footprints]) -> None:
    """Writes the challenge's CSV. A tile without footprints has a row too: a tile that is not named is not scored.

    Numbers are written in full, so that the file's score is that of the footprints.
    """
    lines = ["ImageId,BuildingId,PolygonWKT_Pix,Confidence"]
    for image_id, footprints in footprints_by_tile.items():
        outlines = shapely.to_wkt(footprints.polygons, rounding_precision=-1)
        rows = zip(outlines, footprints.confidences.tolist(), strict=True)
        lines += [f'{image_id},{i},"{wkt}",{confidence}' for i, (wkt, confidence) in enumerate(rows)]
        if not len(footprints):
            lines.append(f'{image_id},-1,"POLYGON EMPTY",0')
    write_text(path, "\n".join(lines) + "\n")


def write_geojson(
    path: Path,
    footprints_by_tile: Mapping[str, Footprints],
    corners: Mapping[str, tuple[float, float]],
    pixel: float = PIXEL,
) -> None:
    """Writes one FeatureCollection in EPSG:32631 for all tiles, to the millimetre.

    A feature has the properties image_id, confidence and area_m2. The collection's own member `tiles` lists the
    tiles that were looked at, with footprints or without.

    Args:
        path: the file
        footprints_by_tile: in pixels of the tiles
        corners: the west and north edge of each tile in m
        pixel: size of a pixel in m
    """
    features = []
    for image_id, footprints in footprints_by_tile.items():
        polygons = _in_metres(footprints.polygons, *corners[image_id], pixel)
        areas = shapely.area(footprints.polygons) * pixel**2
        features += [
            {
                "type": "Feature",
                "properties": {"image_id": image_id, "confidence": confidence, "area_m2": area},
                "geometry": shapely.geometry.mapping(polygon),
            }
            for polygon, confidence, area in zip(polygons, footprints.confidences.tolist(), areas.tolist(), strict=True)
        ]
    collection = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{EPSG}"}},
        "tiles": list(footprints_by_tile),
        "features": features,
    }
    write_text(path, json.dumps(collection) + "\n")


@dataclass(frozen=True)
class _Table:
    """A CSV with a header: its texts column by column, and the line of each row."""

    path: Path
    lines: list[int]
    columns: dict[str, list[str]]

    def column(self, *names: str) -> list[str]:
        """The first of these columns that there is."""
        for name in names:
            if name in self.columns:
                return self.columns[name]
        there = ", ".join(self.columns)
        raise UserError(f"{self.path}: there is no column {' or '.join(names)} in the header, but {there}")

    def numbers(self, name: str, empty: float) -> Float64[np.ndarray, " rows"]:
        texts = self.column(name)
        numbers = np.full(len(texts), empty)
        for row, text in enumerate(texts):
            if text and not text.isspace():
                try:
                    numbers[row] = float(text)
                except ValueError:
                    raise self.error(row, f"{name} {_short(text)} is no number; mend it") from None
        return numbers

    def error(self, row: int, message: str) -> UserError:
        return UserError(f"{self.path}, line {self.lines[row]}, tile {self.column('ImageId')[row]}: {message}")


def _read_table(path: Path) -> _Table:
    csv.field_size_limit(2**31 - 1)  # the outline of a large region has more than the default's 131,072 characters
    with _readable(path) as file:
        # What is skipped stays as an empty line, so that the reader's count of lines is that of the file.
        kept = ("\n" if line.isspace() or line.lstrip().startswith("#") else line for line in file)
        reader = csv.reader(kept, skipinitialspace=True)
        header = next(filter(None, reader), None)
        if header is None:
            raise UserError(f"{path} is empty; the first line names the columns")
        lines: list[int] = []
        columns: list[list[str]] = [[] for _ in header]
        for row in filter(None, reader):
            if len(row) > len(header):
                raise UserError(
                    f"{path}, line {reader.line_num}: {len(row)} fields under {len(header)} columns;"
                    " put the WKT into double quotes"
                )
            lines.append(reader.line_num)
            row += [""] * (len(header) - len(row))
            for column, text in zip(columns, row, strict=True):
                column.append(text)
    return _Table(path, lines, dict(zip(header, columns, strict=True)))


def _by_tile(
    table: _Table, values: Float64[np.ndarray, " rows"]
) -> dict[str, tuple[Shaped[np.ndarray, "_"], Float64[np.ndarray, "_"]]]:
    """The polygons of each tile, and for each polygon the value of its row."""
    polygons, row = _parsed(table)
    tiles = table.column("ImageId")
    number = {tile: i for i, tile in enumerate(dict.fromkeys(tiles))}
    tile_of_polygon = np.array([number[tile] for tile in tiles], dtype=np.int64)[row]
    order = np.argsort(tile_of_polygon, kind="stable")
    ends = np.searchsorted(tile_of_polygon[order], np.arange(len(number)), side="right")
    split = zip(np.split(polygons[order], ends)[:-1], np.split(values[row[order]], ends)[:-1], strict=True)
    return dict(zip(number, split, strict=True))


def _parsed(table: _Table) -> tuple[Shaped[np.ndarray, " polygons"], Int64[np.ndarray, " polygons"]]:
    """The polygons of the table, a multipolygon's one by one, and the row of each."""
    buildings = table.column("TileBuildingId", "BuildingId")
    written = np.array(table.column("PolygonWKT_Pix"), dtype=object)
    written[np.array([building.strip() == "-1" for building in buildings], dtype=bool)] = "POLYGON EMPTY"
    with np.errstate(invalid="ignore"):  # a coordinate may be NaN, and its area then is
        geometries = shapely.from_wkt(written, on_invalid="ignore")
        finite = np.isfinite(shapely.area(geometries))
    empty = shapely.is_empty(geometries)
    polygonal = np.isin(shapely.get_type_id(geometries), POLYGONAL)
    sound = polygonal & (empty | finite & (shapely.get_num_coordinates(geometries) >= 4))
    if not sound.all():
        first = int(sound.argmin())
        raise table.error(first, f"{_short(written[first])} is no sound polygon; mend or drop the row")
    row = np.flatnonzero(~empty)
    polygons, part = shapely.get_parts(geometries[row], return_index=True)
    return (shapely.force_2d(polygons) if shapely.has_z(polygons).any() else polygons), row[part]


def _read_geojson(path: Path) -> Shaped[np.ndarray, " n"]:
    """The geometries of a collection of polygons and multipolygons in the tiles' CRS."""
    with _readable(path) as file:
        text = file.read()
    try:
        collection = json.loads(text) if text.strip() else {"features": []}
        crs = (collection.get("crs") or {}).get("properties", {}).get("name", CRS)
        found = [feature["geometry"] for feature in collection["features"]]
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: no JSON ({error.msg}); fetch the file again") from None
    except (AttributeError, KeyError, TypeError):
        raise UserError(f"{path} is no GeoJSON FeatureCollection; convert it to one") from None
    if not str(crs).endswith(f":{EPSG}"):
        raise UserError(f"{path} is in {crs}; reproject it to {CRS}")
    written = [json.dumps(geometry) for geometry in found if geometry is not None]
    geometries = shapely.from_geojson(np.array(written, dtype=object), on_invalid="ignore")
    wrong = ~np.isin(shapely.get_type_id(geometries), POLYGONAL)
    if wrong.any():
        raise UserError(f"{path}: {_short(written[wrong.argmax()])} is no polygon; mend or drop the feature")
    corners = shapely.get_coordinates(geometries)
    if len(corners) and (np.abs(corners) <= (180, 90)).all():
        raise UserError(f"{path}: the coordinates look like degrees; reproject the file to {CRS}")
    return geometries


def _in_metres(polygons: Shaped[np.ndarray, " n"], west: float, north: float, pixel: float) -> Shaped[np.ndarray, " n"]:
    return shapely.transform(polygons, lambda xy: np.round(xy * (pixel, -pixel) + (west, north), 3))


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


@contextmanager
def _readable(path: Path) -> Iterator[TextIO]:
    """An open text file; what goes wrong in reading it is told as a UserError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path} cannot be read ({reason}); check the path and the file") from None
