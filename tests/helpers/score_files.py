"""Ground truth and proposals as the challenge's CSVs, and the command that scores them."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from shapely import Polygon

from helpers.handmade import CSV_HEADER

PROPOSALS_HEADER = "ImageId,BuildingId,PolygonWKT_Pix,Confidence\n"
Row = tuple[str, Polygon | str, Any]  # tile, polygon or WKT, height or confidence


def wkt(polygon: Polygon | str) -> str:
    return polygon if isinstance(polygon, str) else polygon.wkt


def write_truth(folder: Path, rows: Iterable[Row]) -> Path:
    """Write truth.csv."""
    lines = [f'{tile},{i},"{wkt(polygon)}",{height},,\n' for i, (tile, polygon, height) in enumerate(rows)]
    (folder / "truth.csv").write_text(CSV_HEADER + "".join(lines))
    return folder / "truth.csv"


def write_proposals(folder: Path, rows: Iterable[Row]) -> Path:
    """Write proposals.csv."""
    lines = [f'{tile},{i},"{wkt(polygon)}",{confidence}\n' for i, (tile, polygon, confidence) in enumerate(rows)]
    (folder / "proposals.csv").write_text(PROPOSALS_HEADER + "".join(lines))
    return folder / "proposals.csv"


def score(sn6_command: Callable[..., Any], truth: Path, proposals: Path, *overrides: str) -> tuple[dict[str, Any], str]:
    """Return the content of score.json and the printed text; every note of the one is a line of the other."""
    out = proposals.parent / "new" / "score.json"
    done = sn6_command("score", f"truth={truth}", f"proposals={proposals}", f"out={out}", *overrides)
    assert done.status == 0, done.err
    card = json.loads(out.read_text())
    printed = [line.removeprefix("note: ") for line in done.out.splitlines() if line.startswith("note: ")]
    assert printed == card["notes"]
    return card, done.out


def counts(card: dict[str, Any]) -> tuple[int, int, int]:
    """Return TP, FP and FN over all tiles."""
    return card["overall"]["tp"], card["overall"]["fp"], card["overall"]["fn"]


def numbers_about(card: dict[str, Any], path: Path) -> list[list[int]]:
    """Return the numbers in each note about a file."""
    texts = [note.removeprefix(f"{path}: ") for note in card["notes"] if note.startswith(f"{path}: ")]
    return [[int(number) for number in re.findall(r"(?<![\w-])\d+\b", text)] for text in texts]
