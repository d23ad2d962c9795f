"""The folder of a prediction: one prediction's alone, and gone on with where that was stopped."""

import json
from pathlib import Path
from typing import Any

from sn6.errors import UserError
from sn6.files import write_text

METADATA_FILE = "prediction.json"


def claim(out: Path, settings: dict[str, Any]) -> bool:
    """Makes `out` the folder of the prediction of these settings, or finds that it is so already.

    Returns:
        Whether the prediction is finished.

    Raises:
        UserError: it holds something else
    """
    card, plain = out / METADATA_FILE, json.loads(json.dumps(settings))
    if not card.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"out={out} is not empty, and holds no prediction to go on with; choose another folder")
        write_text(card, json.dumps({"settings": plain}, indent=2) + "\n")
        return False
    try:
        held = json.loads(card.read_text())
        theirs = dict(held["settings"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{card} is broken; choose another folder for out=, or remove this one") from None
    for key in {**plain, **theirs}:
        if plain.get(key) != theirs.get(key):
            raise UserError(
                f"out={out} holds a prediction of {key}={shortened(theirs.get(key))}, not "
                f"{shortened(plain.get(key))}; choose another folder"
            )
    return "result" in held


def finish(out: Path, settings: dict[str, Any], result: dict[str, Any]) -> None:
    """Writes down what came out: the prediction is finished."""
    write_text(out / METADATA_FILE, json.dumps({"settings": settings, "result": result}, indent=2) + "\n")


def shortened(value: Any) -> str:
    """For a message."""
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
