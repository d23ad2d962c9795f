"""Read what `wandb sync` would read: the records in the folder of an offline run."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def payloads(path: Path) -> Iterator[bytes]:
    """Yield the records of a `.wandb` file: LevelDB's log format after a file header of seven bytes of W&B."""
    data, position, record = path.read_bytes(), HEADER, b""
    assert data.startswith(b":W&B")
    while position + HEADER <= len(data):
        if BLOCK - position % BLOCK < HEADER:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + HEADER])
        position += HEADER
        if position + length > len(data):
            return  # it is being written
        part = data[position : position + length]
        position += length
        record = part if kind in (FULL, FIRST) else record + part
        if kind in (FULL, LAST):
            yield record


def read_records(path: Path) -> list[Any]:
    """Read the records, when the last one says that the run has ended: W&B may write them after `finish` returned."""
    from wandb.proto import wandb_internal_pb2

    until = time.monotonic() + 20
    while True:
        records = [wandb_internal_pb2.Record.FromString(payload) for payload in payloads(path)]
        if time.monotonic() > until or any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        time.sleep(0.2)


def items(pairs: Any) -> dict[str, Any]:
    """Return keys and values of a record; a picture or a table is a dict."""
    values: dict[str, Any] = {}
    for pair in pairs:
        key, *inner = [pair.key] if pair.key else list(pair.nested_key)
        if inner:
            values.setdefault(key, {})["/".join(inner)] = json.loads(pair.value_json)
        else:
            values[key] = json.loads(pair.value_json)
    return values


def read_run(folder: Path) -> dict[str, Any]:
    """Read `id`, `group`, `name`, `config`, `history` (key → all values), `summary`, `artifacts`,
    `job_type` and `tags` of an offline run."""
    (path,) = folder.glob("*.wandb")
    result: dict[str, Any] = {"config": {}, "history": {}, "summary": {}, "artifacts": []}
    for record in read_records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            result |= {"id": run.run_id, "group": run.run_group, "name": run.display_name}
            result |= {"job_type": run.job_type, "tags": list(run.tags)}
            result["config"] |= items(run.config.update)
        elif kind == "config":
            result["config"] |= items(record.config.update)
        elif kind == "history":
            for key, value in items(record.history.item).items():
                result["history"].setdefault(key, []).append(value)
        elif kind == "summary":
            result["summary"] |= items(record.summary.update)
        elif kind == "artifact":
            result["artifacts"].append(record.artifact.name)
    return result


def read_offline_runs(folder: Path) -> list[dict[str, Any]]:
    """Read the offline runs of a run's folder, oldest first."""
    return [read_run(path) for path in sorted(folder.glob("wandb/offline-run-*"))]
