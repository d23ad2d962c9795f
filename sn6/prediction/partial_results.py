"""Store the footprints of one image until all images are finished, in a table that is read in chunks."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from sn6.files import atomic_write
from sn6.footprints import Footprints

SCHEMA = pa.schema({"polygon": pa.binary(), "confidence": pa.float64()})
# Columns that some footprints have, by the attribute of Footprints.
OPTIONAL = pa.schema({"classes": pa.int64(), "looks": pa.int64(), "heights": pa.float64()})
CHUNK = 4096  # footprints


def write_part(path: Path, chunks: Iterable[Footprints], *optional: str) -> None:
    """Write the footprints of an image, in its pixels; the file appears when it is complete.

    Args:
        path: file to write
        chunks: of the footprints
        optional: names among OPTIONAL of the columns that they have
    """
    schema = pa.schema([*SCHEMA, *(field for field in OPTIONAL if field.name in optional)])
    with atomic_write(path) as unfinished, pq.ParquetWriter(unfinished, schema) as table:
        for chunk in chunks:
            columns = {"polygon": shapely.to_wkb(chunk.polygons), "confidence": chunk.confidences}
            columns |= {name: getattr(chunk, name) for name in OPTIONAL.names}
            table.write_table(pa.Table.from_pydict(columns, schema=schema))


def read_part(path: Path) -> Iterator[Footprints]:
    """Yield the footprints of an image in order, up to CHUNK at a time; one empty chunk if there are none."""
    with pq.ParquetFile(path) as table:
        optional = {
            field.name: field.type.to_pandas_dtype() for field in table.schema_arrow if field.name in OPTIONAL.names
        }
        for rows in table.iter_batches(CHUNK):
            yield Footprints(
                shapely.from_wkb(rows["polygon"].to_numpy(zero_copy_only=False)),
                rows["confidence"].to_numpy().astype(np.float64),
                **{name: rows[name].to_numpy().astype(dtype) for name, dtype in optional.items()},
            )
        if not table.metadata.num_rows:
            none = {name: np.empty(0, dtype) for name, dtype in optional.items()}
            yield Footprints(np.empty(0, dtype=object), np.empty(0), **none)
