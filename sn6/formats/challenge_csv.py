"""Read and write footprints in the CSV formats of the challenge, in pixels of the tile.

Each row is a building; a tile without buildings has one row with `POLYGON EMPTY`. Columns of proposals: `ImageId`,
`BuildingId`, `PolygonWKT_Pix`, `Confidence`; of labels: `ImageId`, `TileBuildingId`, `PolygonWKT_Pix`,
`Mean_Building_Height` (m).
"""

import csv
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import numpy as np
import shapely
from jaxtyping import Bool, Float64

from sn6.errors import UserError
from sn6.footprints import Footprints, Labels
from sn6.footprints.ground import Corner, TileGrid
from sn6.formats.outlines import (
    CHUNK,
    InvalidGeometry,
    Outlines,
    concatenate,
    pack,
    parse_polygons,
    parts,
    read_error,
)
from sn6.formats.writer import FootprintWriter

CHALLENGE_GRID = 0.5  # m; size of the pixels in which the challenge's tables give polygons
CATEGORY = "Category"  # column of our own, which the organisers' scorer ignores
SEPARATORS = (";", "\t", "|")  # that spreadsheets write in place of commas
NO_BUILDING = "POLYGON EMPTY"  # as is the BuildingId -1 (or -1.0, as pandas writes it): the row only names its tile


class ChallengeCSVWriter(FootprintWriter):
    """Write the challenge's CSV of proposals.

    A tile without footprints has a row as well: a tile without a row is not scored. Numbers are written with all
    digits, so that the file has the same score as the footprints. The corners of the tiles are not written. A tile may
    be written in several consecutive pieces, none of them empty. With several classes the column `Category` has the
    name of each footprint's class.
    """

    stem = "proposals"

    def _begin(self, stack: ExitStack) -> None:
        self._file = stack.enter_context(self._part.open("wb"))
        self._image_id, self._next = "", 0
        columns = ["ImageId", "BuildingId", "PolygonWKT_Pix", "Confidence", *([CATEGORY] if self.classes else [])]
        self._file.write(f"{','.join(columns)}\n".encode())

    def write(
        self,
        image_id: str,
        corner: Corner,
        footprints: Footprints,
        crs: str | None = None,
        pixel_size: float | None = None,
    ) -> None:
        outlines = shapely.to_wkt(footprints.polygons, rounding_precision=-1)
        first = self._next if image_id == self._image_id else 0
        self._image_id, self._next = image_id, first + len(footprints)
        ends = [f",{quoted(name)}\n" for name in self.categories(footprints)] or ["\n"] * len(footprints)
        rows = enumerate(zip(outlines, footprints.confidences.tolist(), ends, strict=True), start=first)
        lines = [f'{image_id},{i},"{wkt}",{confidence}{end}' for i, (wkt, confidence, end) in rows]
        empty = f'{image_id},-1,"{NO_BUILDING}",0{"," if self.classes else ""}\n'
        self._file.write("".join(lines or [empty]).encode())

    def _end(self) -> None:
        pass


def quoted(text: str) -> str:
    """Return a text as a field of a CSV."""
    return '"' + text.replace('"', '""') + '"'


def read_labels(path: Path) -> dict[str, Labels]:
    """Read the challenge's labels tile by tile in the order of the file; each part of a MultiPolygon is a building.

    Raises:
        UserError: as `read_truth_csv`
    """
    return {tile: Labels(*parts(rows)) for tile, rows in read_truth_csv(path).by_tile()}


def read_proposals(path: Path, classes: Sequence[str] = ()) -> dict[str, Footprints]:
    """Read proposals tile by tile in the order of the file, which decides ties; each part of a MultiPolygon is one.

    Args:
        path: file to read
        classes: names of the classes in the column `Category`; none leaves the column out

    Raises:
        UserError: as `read_proposals_csv`; with classes, the column is missing or names another one
    """
    proposals = {tile: Footprints(*parts(rows)) for tile, rows in read_proposals_csv(path).by_tile()}
    if not classes:
        return proposals
    numbers = concatenate(_outlines(table, table.classes(classes)) for table in _read_tables(path))
    classes_of_tiles = {tile: parts(rows)[1].astype(np.int64) for tile, rows in numbers.by_tile()}
    return {tile: replace(found, classes=classes_of_tiles[tile]) for tile, found in proposals.items()}


def names_tiles(path: Path) -> bool:
    """Return True: each row is of a tile."""
    return True


def read_outlines(path: Path, value: str | None = None, grid: TileGrid | None = None) -> Outlines:
    """Read the proposals of a file where `value` names their confidence, else buildings; it has the grid of each tile.

    Raises:
        UserError: as `read_proposals_csv` and `read_truth_csv`
    """
    return read_proposals_csv(path) if value else read_truth_csv(path)


def read_truth_csv(path: Path) -> Outlines:
    """Read the challenge's CSV of labels.

    Columns: `ImageId`, `TileBuildingId` or `BuildingId`, `PolygonWKT_Pix`, and optionally `Mean_Building_Height`;
    others are ignored. A tile without buildings has one row with `POLYGON EMPTY`.

    Raises:
        UserError: a file that cannot be read, a column that is missing, a row without a valid polygon
    """
    return concatenate(_outlines(table, table.heights()) for table in _read_tables(path))


def read_proposals_csv(path: Path) -> Outlines:
    """Read the challenge's CSV of proposals.

    Columns: `ImageId`, `BuildingId`, `PolygonWKT_Pix`, `Confidence`. Lines that are blank or start with `#` are
    skipped. A row with BuildingId -1 or `POLYGON EMPTY` only names its tile; an empty Confidence is 0.

    Raises:
        UserError: a file that cannot be read, a column that is missing, a row without a valid polygon or with a
            confidence that is not a finite number
    """
    return concatenate(_outlines(table, table.confidences()) for table in _read_tables(path))


@dataclass(frozen=True)
class _Table:
    """Rows of a CSV with a header: the text of each column, and the line number of each row."""

    path: Path
    lines: list[int]
    columns: dict[str, list[str]]

    def column(self, *names: str) -> list[str]:
        """Return the first of these columns that the file has."""
        for name in names:
            if name in self.columns:
                return self.columns[name]
        raise UserError(
            f"{self.path}: the column {' or '.join(names)} is missing; the header has {', '.join(self.columns)}",
            kind="wrong_data",
            key=self.path,
            value=names[0],
        )

    def heights(self) -> Float64[np.ndarray, " rows"]:
        """Return the mean heights in m, NaN where unknown."""
        if "Mean_Building_Height" not in self.columns:
            return np.full(len(self.lines), np.nan)
        return self.numbers("Mean_Building_Height", empty=np.nan)

    def confidences(self) -> Float64[np.ndarray, " rows"]:
        """Return the confidences, which must be finite where there is a building."""
        confidences = self.numbers("Confidence", empty=0.0)
        valid = np.isfinite(confidences) | self.no_building()
        if not valid.all():
            row = int(valid.argmin())
            text = self.column("Confidence")[row]
            raise self.error(row, f"invalid Confidence {text}: must be a finite number", text)
        return confidences

    def classes(self, names: Sequence[str]) -> Float64[np.ndarray, " rows"]:
        """Return the number of the class of each row, from 1, 0 where there is no building."""
        texts, no_building = self.column(CATEGORY), self.no_building()
        for row, text in enumerate(texts):
            if text not in names and not no_building[row]:
                raise self.error(row, f"unknown {CATEGORY} {_short(text)}; known: {', '.join(names)}", text)
        return np.array(
            [0 if none else names.index(text) + 1 for text, none in zip(texts, no_building, strict=True)], float
        )

    def no_building(self) -> Bool[np.ndarray, " rows"]:
        """Return which rows only name their tile."""
        numbers, polygons = self.column("TileBuildingId", "BuildingId"), self.column("PolygonWKT_Pix")
        pairs = zip(numbers, polygons, strict=True)
        return np.array([is_minus_one(number) or polygon.strip() == NO_BUILDING for number, polygon in pairs], bool)

    def numbers(self, name: str, empty: float) -> Float64[np.ndarray, " rows"]:
        """Return a column of numbers, with `empty` for blank fields."""
        texts = self.column(name)
        numbers = np.full(len(texts), empty)
        for row, text in enumerate(texts):
            if text and not text.isspace():
                try:
                    numbers[row] = float(text)
                except ValueError:
                    raise self.error(row, f"invalid {name} {_short(text)}: must be a number", text) from None
        return numbers

    def error(self, row: int, message: str, value: str) -> UserError:
        """Return the UserError for a row, which names its line and tile."""
        where = f"{self.path}, line {self.lines[row]}, tile {self.column('ImageId')[row]}"
        return UserError(f"{where}: {message}", kind="invalid_value", key=self.path, value=value)


def _read_tables(path: Path) -> Iterator[_Table]:
    """Yield the file in chunks, at least one."""
    csv.field_size_limit(2**31 - 1)  # the outline of a large region exceeds the default of 131,072 characters
    with _readable(path) as file:
        # Skipped lines stay as empty lines, so that the reader counts the lines of the file.
        kept = ("\n" if line.isspace() or line.lstrip().startswith("#") else line for line in file)
        reader = csv.reader(kept, skipinitialspace=True)
        header = [name.strip() for name in next(filter(None, reader), [])]
        if not header:
            raise UserError(f"{path} is empty; the first line must name the columns", kind="unreadable", key=path)
        check_header(path, header)
        lines: list[int] = []
        columns: list[list[str]] = [[] for _ in header]
        for row in filter(None, reader):
            if len(row) > len(header):
                raise UserError(
                    f"{path}, line {reader.line_num}: {len(row)} fields for {len(header)} columns;"
                    " put the WKT into double quotes",
                    kind="unreadable",
                    key=path,
                )
            lines.append(reader.line_num)
            row += [""] * (len(header) - len(row))
            for column, text in zip(columns, row, strict=True):
                column.append(text)
            if len(lines) == CHUNK:
                yield _Table(path, lines, dict(zip(header, columns, strict=True)))
                lines, columns = [], [[] for _ in header]
        yield _Table(path, lines, dict(zip(header, columns, strict=True)))


def check_header(path: Path, header: Sequence[str]) -> None:
    """Raise a UserError if columns are not separated by commas, or two have the same name."""
    separator = next((one for one in SEPARATORS if one in header[0]), None)
    if len(header) == 1 and separator is not None:
        raise UserError(
            f"{path}: the columns are separated by {separator!r}; save the file with commas",
            kind="wrong_data",
            key=path,
            value=separator,
        )
    if doubled := next((name for number, name in enumerate(header) if name in header[:number]), None):
        raise UserError(
            f"{path}: the header names the column {doubled} twice; remove one of them",
            kind="wrong_data",
            key=path,
            value=doubled,
        )


def _outlines(table: _Table, values: Float64[np.ndarray, " rows"]) -> Outlines:
    """Return the polygons of the table with the values of their rows."""
    image_ids = [image_id.strip() for image_id in table.column("ImageId")]
    encoded = np.array(table.column("PolygonWKT_Pix"), dtype=object)
    no_building = table.no_building()
    ignored = sum("((" in text for text in encoded[no_building])
    encoded[no_building] = NO_BUILDING
    try:
        geometries, left_out = parse_polygons(encoded, shapely.from_wkt)
    except InvalidGeometry as error:
        text = encoded[error.row]
        raise table.error(error.row, f"{_short(text)} {error.reason}; correct or remove the row", text) from None
    number = {image_id: i for i, image_id in enumerate(dict.fromkeys(image_ids))}
    tile = np.array([number[image_id] for image_id in image_ids], dtype=np.int64)
    filled = ~shapely.is_empty(geometries)
    polygons = shapely.force_2d(geometries[filled])
    return pack(dict.fromkeys(number), tile[filled], polygons, values[filled], ignored, left_out)


def is_minus_one(text: str) -> bool:
    """Return whether an id is -1: pandas writes a column of whole numbers as floats when one is missing."""
    try:
        return float(text) == -1
    except ValueError:
        return False


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


@contextmanager
def _readable(path: Path) -> Iterator[TextIO]:
    """Open a text file; raise a UserError where it cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise read_error(path, error) from None
