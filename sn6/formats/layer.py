"""Write formats whose rows are sorted by place: they are collected on disk and written when the last tile is known."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from jaxtyping import Float64, Int64, Shaped

from sn6.formats.writer import COLUMN_TYPES, GroundWriter

GEOMETRY = "geometry"  # name of the column
ARROW_TYPES = {str: pa.string(), float: pa.float64(), int: pa.int64()}
TIME = pa.timestamp("ms", tz="UTC")
GROUP = 16_384  # rows that are in memory at a time
LEVEL = 16  # of the Hilbert curve: 2^16 cells along each axis


class LayerWriter(GroundWriter):
    """Write a format of rows sorted along a Hilbert curve, so that neighbours in the file are neighbours on the ground.

    Memory contains the names of the tiles, the centre of each footprint, and `GROUP` rows.
    """

    def _begin(self, stack: ExitStack) -> None:
        self._part.unlink(missing_ok=True)  # of a killed process, which GDAL would add a layer to
        self._collected = self._part.with_name(f"{self._part.name}.arrow")
        stack.callback(self._collected.unlink, missing_ok=True)
        self.schema = pa.schema({name: arrow_type(name) for name in self.column_names} | {GEOMETRY: pa.binary()})
        self._rows = stack.enter_context(pa.OSFile(str(self._collected), "wb"))
        self._table = pa.ipc.new_file(self._rows, self.schema)
        self._centres: list[Float64[np.ndarray, "n 2"]] = []
        self.bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])

    def _add(self, polygons: Shaped[np.ndarray, "n"], columns: dict[str, list[Any]]) -> None:
        bounds = shapely.bounds(polygons)
        self.bounds = np.r_[
            np.minimum(self.bounds[:2], bounds[:, :2].min(axis=0)),
            np.maximum(self.bounds[2:], bounds[:, 2:].max(axis=0)),
        ]
        self._centres.append((bounds[:, :2] + bounds[:, 2:]) / 2)
        if "time" in columns:
            columns["time"] = [None if time is None else datetime.fromisoformat(time) for time in columns["time"]]
        columns[GEOMETRY] = shapely.to_wkb(polygons)
        self._table.write_batch(pa.RecordBatch.from_pydict(columns, schema=self.schema))

    def _end(self) -> None:
        self._table.close()
        self._rows.close()
        self._write(self.schema, self._sorted())

    def _sorted(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, `GROUP` at a time."""
        starts = np.cumsum([0, *map(len, self._centres)])
        order = hilbert_order(np.concatenate([np.empty((0, 2)), *self._centres]), self.bounds)
        with pa.OSFile(str(self._collected)) as file, pa.ipc.open_file(file) as table:
            for first in range(0, len(order), GROUP):
                yield take(table, starts, order[first : first + GROUP])

    @abstractmethod
    def _write(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        """Write `self._part`.

        Args:
            schema: of the rows: the attributes, and GEOMETRY as WKB
            batches: all rows, sorted
        """


def arrow_type(name: str) -> pa.DataType:
    """Return the type of a column of attributes."""
    return TIME if name == "time" else ARROW_TYPES[COLUMN_TYPES[name]]


def take(table: Any, starts: Int64[np.ndarray, " _"], rows: Int64[np.ndarray, " n"]) -> pa.RecordBatch:
    """Return rows of an Arrow file by their numbers.

    Args:
        table: reader of the file
        starts: number of the first row of each batch of the file, and that of all rows
        rows: at least one
    """
    batch = np.searchsorted(starts, rows, side="right") - 1
    by_batch = np.argsort(batch, kind="stable")
    numbers, firsts = np.unique(batch[by_batch], return_index=True)
    parts = [
        table.get_batch(number).take(pa.array(rows[indices] - starts[number]))
        for number, indices in zip(numbers.tolist(), np.split(by_batch, firsts[1:]), strict=True)
    ]
    position = np.argsort(by_batch)
    return pa.Table.from_batches(parts).take(pa.array(position)).combine_chunks().to_batches()[0]


def hilbert_order(centres: Float64[np.ndarray, "n 2"], bounds: Float64[np.ndarray, " 4"]) -> Int64[np.ndarray, " n"]:
    """Return the indices of points along a Hilbert curve through their bounds; points of one cell keep their order."""
    import geopandas

    distances = [
        geopandas.GeoSeries(shapely.points(centres[first : first + GROUP])).hilbert_distance(bounds, LEVEL).to_numpy()
        for first in range(0, len(centres), GROUP)
    ]
    return np.argsort(np.concatenate([np.empty(0), *distances]), kind="stable")
