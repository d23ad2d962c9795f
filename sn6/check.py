"""`python -m sn6.check root=DIR` or `images=DIR labels=FILE`: read every image, report whether it can be trained on."""

import time
from collections import Counter
from pathlib import Path
from typing import Annotated

from pydantic import PositiveInt
from rich.console import Console

from sn6.cli import run_command
from sn6.errors import UserError, counted
from sn6.training.data_source import DataSource

MIN_WIDTH = 120  # characters of the tables; rich takes 80 where the output is not a terminal


def check(
    source: DataSource,
    workers: Annotated[PositiveInt | None, "processes that read files; null: one per core"] = None,
    out: Annotated[Path, "folder for check.json, folds_<partition>.png and comparison.png"] = Path("outputs/check"),
) -> None:
    """Read every file of an archive, or all images and labels of your own, and report what is missing or wrong.

    Prints and writes tables of the strips, the statistics for the normalisation, the folds and their overlap, and the
    faults; of SpaceNet 6 also the comparison of the training tiles with the published archive (within tolerance:
    percentiles that differ by at most 2.5 dB, a fraction of nodata from 0.10 to 0.18). Caches the statistics in .sn6
    beside the images for training.
    The exit status is 0 if the archive can be trained on, and 1 if it has fatal faults.

    Raises:
        UserError: no data set, or one with fatal faults
    """
    if out.is_file() or out.suffix.lower() in (".json", ".png"):
        raise UserError(f"invalid out={out}: must be a folder", kind="invalid_value", key="out", value=out)
    from sn6.datasets.spacenet6 import SpaceNet6
    from sn6.inspection.archive import inspect_archive
    from sn6.inspection.data_set import inspect_data_set
    from sn6.inspection.report import make_report, write_report
    from sn6.inspection.tables import report_tables

    started = time.monotonic()
    data_set = source.open()
    root = data_set.root
    is_archive = isinstance(data_set, SpaceNet6)  # whose files are checked one by one
    inspection = inspect_archive(root, workers) if is_archive else inspect_data_set(data_set, workers)
    seconds = time.monotonic() - started
    report = make_report(inspection)
    write_report(report, out)
    console = Console()
    console.width = max(console.width, MIN_WIDTH)
    for table in report_tables(report):
        console.print(table)
    tiles = len(inspection.tiles)
    print(f"{counted(tiles, 'tile')} in {seconds:.0f} s, {tiles / max(seconds, 1e-9):.1f} per second; report: {out}")
    verdicts = [row.within_tolerance for row in report.comparison if row.within_tolerance is not None]
    if verdicts:
        print(f"{sum(verdicts)} of {len(verdicts)} published values are within tolerance")
    fatal = Counter(fault.kind for fault in report.faults if fault.is_fatal)
    if fatal:
        kinds = ", ".join(f"{kind} ({number})" for kind, number in fatal.items())
        message = f"{root} cannot be trained on: {kinds}; {out / 'check.json'} lists the files"
        raise UserError(message, kind="wrong_data", key="root", value=root)
    print(f"{root} can be trained on; {counted(len(report.faults), 'warning')}")


if __name__ == "__main__":
    run_command(check, "sn6.check")
