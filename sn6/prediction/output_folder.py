"""Reserve an output folder for one prediction, and resume or finish that prediction."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sn6.errors import UserError
from sn6.files import exclusive_lock, write_text

METADATA_FILE = "prediction.json"
UNFINISHED = "unfinished"  # folder of the results of a prediction that is not finished
LOCK = "predicting.lock"  # file in it that the command holds


@contextmanager
def claimed_folder(out: Path, settings: dict[str, Any]) -> Iterator[bool]:
    """Hold `out` during the block, after waiting for a command that does; yield what `claim_folder` returns."""
    if claim_folder(out, settings):
        yield True
        return
    (out / UNFINISHED).mkdir(exist_ok=True)
    with exclusive_lock(out / UNFINISHED / LOCK, f"predicts into {out}"):
        yield claim_folder(out, settings)  # which the other command may have finished


def claim_folder(out: Path, settings: dict[str, Any]) -> bool:
    """Reserve `out` for the prediction with these settings, or check that it belongs to it already.

    Returns:
        Whether the prediction is finished.

    Raises:
        UserError: the folder contains something else
    """
    path, plain = out / METADATA_FILE, json.loads(json.dumps(settings))
    if not path.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(
                f"out={out} is not an empty folder and contains no prediction to resume; choose another folder",
                kind="conflict",
                key="out",
                value=str(out),
            )
        write_text(path, json.dumps({"settings": plain}, indent=2) + "\n")
        return False
    try:
        metadata = json.loads(path.read_text())
        earlier = dict(metadata["settings"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            f"{path} is broken; choose another folder for out=, or delete this one", kind="unreadable", key=path
        ) from None
    for key in {**plain, **earlier}:
        if plain.get(key) != earlier.get(key):
            raise UserError(
                f"out={out} contains a prediction with {key}={shorten(earlier.get(key))}, not "
                f"{shorten(plain.get(key))}; choose another folder",
                kind="conflict",
                key=key,
                value=plain.get(key),
            )
    return "result" in metadata


def mark_finished(out: Path, settings: dict[str, Any], result: dict[str, Any]) -> None:
    """Write the result to the metadata of the folder, which marks the prediction as finished."""
    write_text(out / METADATA_FILE, json.dumps({"settings": settings, "result": result}, indent=2) + "\n")


def shorten(value: Any) -> str:
    """Return a value as JSON of at most 80 characters, for a message."""
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
