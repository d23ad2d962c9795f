"""Every hot path against what a user would otherwise use, in one run, on the same inputs, on one core.

    python -m benchmarks                       (all parts)
    python -m benchmarks boundary polygons     (these)

Each way is measured in turns with its peer; medians of wall time. A part ends with a message where the two ways do not
give the same answer.
"""

import ast
import os
import sys
from importlib import import_module
from pathlib import Path

PARTS = ("boundary", "polygons", "f1", "crop", "masks", "step", "tile", "archive")  # modules with a function `rows`


def main(words: list[str]) -> None:
    """Measures the parts that are named, or all, and prints one table."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before anything is imported that reads it
    from rich.console import Console
    from rich.progress import track

    from benchmarks.comparison import table_of
    from sn6.errors import UserError, one_line_errors

    with one_line_errors():
        if unknown := [word for word in words if word not in PARTS]:
            raise UserError(f"benchmarks: there is no part {unknown[0]!r}; the parts are {', '.join(PARTS)}")
        import torch

        torch.set_num_threads(1)
        rows = []
        for part in track(words or PARTS, "measuring", console=Console(stderr=True), transient=True):
            rows += import_module(f"benchmarks.{part}").rows()
        Console(width=None if sys.stdout.isatty() else 200).print(table_of(rows))


def help_text() -> str:
    """What the command does, and the parts with the first lines of their modules."""
    lines = [(__doc__ or "").strip(), "", "parts:"]
    for part in PARTS:
        module = ast.parse(Path(__file__).with_name(f"{part}.py").read_text())
        lines.append(f"  {part:<10} {(ast.get_docstring(module) or '').splitlines()[0]}")
    return "\n".join(lines)


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(help_text())
    else:
        main(sys.argv[1:])
