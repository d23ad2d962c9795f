"""The footprints of one image while the others are not done: a small table that is read a piece at a time."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from sn6.files import atomic_write
from sn6.footprints import Footprints

SCHEMA = pa.schema({"polygon": pa.binary(), "confidence": pa.float64()})
CHUNK = 4096  # footprints


def write_part(path: Path, pieces: Iterable[Footprints]) -> None:
    """Writes the footprints of an image, in its pixels; the file is there when all of them are in it."""
    with atomic_write(path) as unfinished, pq.ParquetWriter(unfinished, SCHEMA) as table:
        for piece in pieces:
            columns = {"polygon": shapely.to_wkb(piece.polygons), "confidence": piece.confidences}
            table.write_table(pa.Table.from_pydict(columns, schema=SCHEMA))


def read_part(path: Path) -> Iterator[Footprints]:
    """The same, in pieces of up to PIECE footprints and in their order; one empty piece where there is none."""
    with pq.ParquetFile(path) as table:
        for rows in table.iter_batches(CHUNK):
            yield Footprints(
                shapely.from_wkb(rows["polygon"].to_numpy(zero_copy_only=False)),
                rows["confidence"].to_numpy().astype(np.float64),
            )
        if not table.metadata.num_rows:
            yield Footprints(np.empty(0, dtype=object), np.empty(0))
