"""Footprints in the challenge's CSVs: pixels of the tile, a row a building, a row for a tile without any."""

import csv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import shapely
from jaxtyping import Float64

from sn6.errors import UserError
from sn6.footprints import Footprints, Labels
from sn6.footprints.ground import Corner
from sn6.formats.outlines import CHUNK, InvalidGeometry, Outlines, concatenate, pack, parse_polygons, parts
from sn6.formats.writer import FootprintWriter

NO_BUILDING = "POLYGON EMPTY"  # or the BuildingId -1: the row names its tile alone


class ChallengeCSVWriter(FootprintWriter):
    """A tile without footprints has a row too: a tile that is not named is not scored.

    Numbers are written in full, so that the file's score is that of the footprints. There is no place for corners.
    A tile may come in several pieces, one after another and none of them empty.
    """

    def _begin(self, stack: ExitStack) -> None:
        self._image_id, self._next = "", 0
        self._file.write(b"ImageId,BuildingId,PolygonWKT_Pix,Confidence\n")

    def _add(self, image_id: str, corner: Corner, footprints: Footprints) -> None:
        outlines = shapely.to_wkt(footprints.polygons, rounding_precision=-1)
        first = self._next if image_id == self._image_id else 0
        self._image_id, self._next = image_id, first + len(footprints)
        rows = enumerate(zip(outlines, footprints.confidences.tolist(), strict=True), start=first)
        lines = [f'{image_id},{i},"{wkt}",{confidence}\n' for i, (wkt, confidence) in rows]
        self._file.write("".join(lines or [f'{image_id},-1,"{NO_BUILDING}",0\n']).encode())

    def _end(self) -> None:
        pass


def read_labels(path: Path) -> dict[str, Labels]:
    """The labels of the challenge tile by tile in the order of the file; each part of a MultiPolygon is a building.

    Raises:
        UserError: as `read_truth_csv`
    """
    return {tile: Labels(*parts(rows)) for tile, rows in read_truth_csv(path).by_tile()}


def read_proposals(path: Path) -> dict[str, Footprints]:
    """Proposals tile by tile in the order of the file, which settles ties; each part of a MultiPolygon is one.

    Raises:
        UserError: as `read_proposals_csv`
    """
    return {tile: Footprints(*parts(rows)) for tile, rows in read_proposals_csv(path).by_tile()}


def read_truth_csv(path: Path) -> Outlines:
    """The labels' CSV of the challenge.

    Columns: `ImageId`, `TileBuildingId` or `BuildingId`, `PolygonWKT_Pix`, and `Mean_Building_Height` where the
    heights are known; others are not read. A tile without buildings is a row with `POLYGON EMPTY`.

    Raises:
        UserError: a file that cannot be read, a column that is missing, a row without a sound polygon
    """
    return concatenate(_outlines(table, table.heights()) for table in _read_tables(path))


def read_proposals_csv(path: Path) -> Outlines:
    """The proposals' CSV of the challenge.

    Columns: `ImageId`, `BuildingId`, `PolygonWKT_Pix`, `Confidence`. Lines that are blank or start with `#` are
    skipped. A row with BuildingId -1 or `POLYGON EMPTY` registers its tile alone; an empty Confidence is 0.

    Raises:
        UserError: a file that cannot be read, a column that is missing, a row without a sound polygon or with a
            confidence that is no finite number
    """
    return concatenate(_outlines(table, table.confidences()) for table in _read_tables(path))


@dataclass(frozen=True)
class _Table:
    """Rows of a CSV with a header: their texts column by column, and the line of each."""

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

    def heights(self) -> Float64[np.ndarray, " rows"]:
        """NaN where they are not known."""
        if "Mean_Building_Height" not in self.columns:
            return np.full(len(self.lines), np.nan)
        return self.numbers("Mean_Building_Height", empty=np.nan)

    def confidences(self) -> Float64[np.ndarray, " rows"]:
        """All finite."""
        found = self.numbers("Confidence", empty=0.0)
        if not np.isfinite(found).all():
            raise self.error(int(np.isfinite(found).argmin()), "the Confidence is NaN or infinite; mend it")
        return found

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


def _read_tables(path: Path) -> Iterator[_Table]:
    """The file in pieces, at least one."""
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
            if len(lines) == CHUNK:
                yield _Table(path, lines, dict(zip(header, columns, strict=True)))
                lines, columns = [], [[] for _ in header]
        yield _Table(path, lines, dict(zip(header, columns, strict=True)))


def _outlines(table: _Table, values: Float64[np.ndarray, " rows"]) -> Outlines:
    """The polygons of the table with the values of their rows."""
    image_ids = table.column("ImageId")
    written = np.array(table.column("PolygonWKT_Pix"), dtype=object)
    marked = np.array([building.strip() == "-1" for building in table.column("TileBuildingId", "BuildingId")], bool)
    unread = sum("((" in text for text in written[marked])
    written[marked] = NO_BUILDING
    try:
        geometries = parse_polygons(written, shapely.from_wkt)
    except InvalidGeometry as error:
        where = f"{_short(written[error.row])} {error.reason}"
        raise table.error(error.row, f"{where}; mend or drop the row") from None
    number = {image_id: i for i, image_id in enumerate(dict.fromkeys(image_ids))}
    tile = np.array([number[image_id] for image_id in image_ids], dtype=np.int64)
    there = ~shapely.is_empty(geometries)
    polygons = shapely.force_2d(geometries[there])
    return pack(dict.fromkeys(number), tile[there], polygons, values[there], unread)


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
