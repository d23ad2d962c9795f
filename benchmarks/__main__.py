"""Measure every hot path against what a user would otherwise use, on the same inputs, on one core.

    python -m benchmarks                       (all parts)
    python -m benchmarks boundary polygons     (only these)

sn6 and its peer run in turns; the table gives medians of wall time. A part ends with an error if the results differ.
"""

import ast
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

PARTS = (  # modules with a function `rows`
    "boundary",
    "targets",
    "polygons",
    "watershed",
    "regularization",
    "fusion",
    "f1",
    "layers",
    "folder",
    "crop",
    "masks",
    "step",
    "tile",
    "timm_unet",
    "archive",
)


def main(parts: Sequence[str]) -> None:
    """Measure the given parts, or all of them, and print one table."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before any import that reads it
    from rich.console import Console
    from rich.progress import track

    from benchmarks.comparison import table_of
    from sn6.errors import UserError, one_line_errors

    with one_line_errors():
        if unknown := [part for part in parts if part not in PARTS]:
            raise UserError(
                f"unknown part {unknown[0]!r}; choose from {', '.join(PARTS)}",
                kind="unknown_value",
                key="part",
                value=unknown[0],
            )
        import torch

        torch.set_num_threads(1)
        rows = []
        for part in track(parts or PARTS, "measuring", console=Console(stderr=True), transient=True):
            rows += import_module(f"benchmarks.{part}").rows()
        Console(width=None if sys.stdout.isatty() else 200).print(table_of(rows))


def help_text() -> str:
    """Return the usage, and the parts with the first lines of their modules."""
    lines = [(__doc__ or "").strip(), "", "parts:"]
    for part in PARTS:
        module = ast.parse(Path(__file__).with_name(f"{part}.py").read_text())
        lines.append(f"  {part:<14} {(ast.get_docstring(module) or '').splitlines()[0]}")
    return "\n".join(lines)


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(help_text())
    else:
        main(sys.argv[1:])
