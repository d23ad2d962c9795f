"""Reads what `wandb sync` would read: the records of an offline run's folder."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def payloads(path: Path) -> Iterator[bytes]:
    """The records of a `.wandb` file: LevelDB's log format behind seven bytes of W&B's own."""
    data, place, whole = path.read_bytes(), HEADER, b""
    assert data.startswith(b":W&B")
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + HEADER])
        place += HEADER
        part = data[place : place + length]
        place += length
        whole = part if kind in (FULL, FIRST) else whole + part
        if kind in (FULL, LAST):
            yield whole


def items(pairs: Any) -> dict[str, Any]:
    """Keys and values of a record; a picture or a table is a dict."""
    held: dict[str, Any] = {}
    for pair in pairs:
        key, *inner = [pair.key] if pair.key else list(pair.nested_key)
        if inner:
            held.setdefault(key, {})["/".join(inner)] = json.loads(pair.value_json)
        else:
            held[key] = json.loads(pair.value_json)
    return held


def read_run(folder: Path) -> dict[str, Any]:
    """`id`, `group`, `name`, `config`, `history` (all values by key) and `artifacts` of an offline run."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("*.wandb")
    held: dict[str, Any] = {"config": {}, "history": {}, "artifacts": []}
    for payload in payloads(path):
        record = wandb_internal_pb2.Record.FromString(payload)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            held |= {"id": run.run_id, "group": run.run_group, "name": run.display_name}
            held["config"] |= items(run.config.update)
        elif kind == "config":
            held["config"] |= items(record.config.update)
        elif kind == "history":
            for key, value in items(record.history.item).items():
                held["history"].setdefault(key, []).append(value)
        elif kind == "artifact":
            held["artifacts"].append(record.artifact.name)
    return held
