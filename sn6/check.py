"""`python -m sn6.check root=...`: reads every file of an archive and says whether it can be trained on."""

import json
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.progress import track

from sn6.cli import run_command
from sn6.errors import UserError

WIDTH = 120  # characters that the tables take where the terminal tells none


def check(
    root: Annotated[Path, "folder of the archive"],
    workers: Annotated[int | None, "processes that read, 1 or more; null: one a core"] = None,
    out: Annotated[Path, "all that was found, a .json; maps of the folds lie beside it"] = Path("check.json"),
) -> None:
    """Reads every file of an archive and tells what is missing, broken, or not as in SpaceNet 6.

    Tables of its strips, of the statistics that normalisation uses, of the folds and how much ground they share, and
    of its faults. Statistics are kept beside the archive, so that a training starts without reading its tiles. Exit
    status 0 where it can be trained on, 1 where not; sn6/inspection/faults.py tells which faults are fatal.

    Raises:
        UserError: no archive, or one that cannot be trained on
    """
    if workers is not None and workers < 1:
        raise UserError(f"workers={workers} does not do; give 1 or more, or null for one a core")
    if out.suffix.lower() != ".json" or out.is_dir():
        raise UserError(f"out={out} is no name of a report; let it end in .json")
    from sn6.files import write_text
    from sn6.inspection.archive import inspect_archive
    from sn6.inspection.folds import folds_of, measure_overlap
    from sn6.inspection.report import as_json, tables

    started = time.monotonic()
    inspection = inspect_archive(root, workers, progress)
    seconds = time.monotonic() - started
    tiles, test = inspection.labelled["train"], inspection.labelled["test_public"]
    folds, found = folds_of(tiles, test)
    faults = inspection.faults + found
    leaks = {split: {k: measure_overlap(fold, tiles) for k, fold in of.items()} for split, of in folds.items()}
    write_text(out, json.dumps(as_json(inspection, leaks, faults), indent=2) + "\n")
    maps = draw_maps(folds, out)
    console = Console()
    console.width = max(console.width, WIDTH)
    for table in tables(inspection, leaks, faults):
        console.print(table)
    rate = len(inspection.tiles) / max(seconds, 1e-9)
    print(f"{len(inspection.tiles)} tiles in {seconds:.0f} s, {rate:.1f} a second; the report: {out}, {maps}")
    fatal = Counter(fault.kind for fault in faults if fault.is_fatal)
    if fatal:
        told = ", ".join(f"{kind} ({count})" for kind, count in fatal.items())
        raise UserError(f"{root} cannot be trained on: {told}; {out} names the files")
    print(f"{root} can be trained on, with {len(faults)} warnings")


def progress(tiles: Iterable[Any], total: int) -> Iterable[Any]:
    """Shows how far it is on stderr."""
    return track(tiles, "reading tiles", total=total, console=Console(stderr=True), transient=True)


def draw_maps(folds: Any, out: Path) -> str:
    """A PNG for each split that has a fold, beside `out`; their names."""
    from sn6.inspection.maps import split_figure
    from sn6.plots.tiles import save_figure

    paths = {split: out.with_name(f"{out.stem}_{split}.png") for split, of in folds.items() if of}
    for split, path in paths.items():
        save_figure(split_figure(split, folds[split]), path)
    return ", ".join(map(str, paths.values())) or "no maps"


if __name__ == "__main__":
    run_command(check, "sn6.check")
