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
CLASS = pa.field("class", pa.int64())  # of footprints of several classes
LOOKS = pa.field("looks", pa.int64())  # of footprints from several images
CHUNK = 4096  # footprints


def write_part(path: Path, chunks: Iterable[Footprints], has_classes: bool = False, has_looks: bool = False) -> None:
    """Write the footprints of an image, in its pixels; the file appears when it is complete."""
    schema = SCHEMA.append(CLASS) if has_classes else SCHEMA
    schema = schema.append(LOOKS) if has_looks else schema
    with atomic_write(path) as unfinished, pq.ParquetWriter(unfinished, schema) as table:
        for chunk in chunks:
            columns = {"polygon": shapely.to_wkb(chunk.polygons), "confidence": chunk.confidences}
            columns |= {CLASS.name: chunk.classes, LOOKS.name: chunk.looks}
            table.write_table(pa.Table.from_pydict(columns, schema=schema))


def read_part(path: Path) -> Iterator[Footprints]:
    """Yield the footprints of an image in order, up to CHUNK at a time; one empty chunk if there are none."""
    with pq.ParquetFile(path) as table:
        numbers = [field.name if field.name in table.schema_arrow.names else None for field in (CLASS, LOOKS)]
        for rows in table.iter_batches(CHUNK):
            yield Footprints(
                shapely.from_wkb(rows["polygon"].to_numpy(zero_copy_only=False)),
                rows["confidence"].to_numpy().astype(np.float64),
                *(name and rows[name].to_numpy().astype(np.int64) for name in numbers),
            )
        if not table.metadata.num_rows:
            none = [name and np.empty(0, dtype=np.int64) for name in numbers]
            yield Footprints(np.empty(0, dtype=object), np.empty(0), *none)
