"""An inspection as tables for a terminal and as JSON."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from sn6.data.partitions import PartitionName
from sn6.datasets.layout import PRODUCTS
from sn6.inspection.archive import RADAR, Inspection
from sn6.inspection.faults import FATAL, WARNINGS, Fault
from sn6.inspection.folds import Overlap
from sn6.inspection.values import Strip, Values, by_product, by_strip

Leaks = Mapping[PartitionName, Mapping[int, Overlap]]


def as_json(inspection: Inspection, leaks: Leaks, faults: Sequence[Fault]) -> dict[str, Any]:
    """All that was found. Statistics are those of the training tiles; what is not known is null."""
    report = {
        "root": str(inspection.root),
        "can_be_trained_on": not any(fault.is_fatal for fault in faults),
        "tiles": Counter(tile.split for tile in inspection.tiles),
        "faults": [fault._asdict() | {"fatal": fault.is_fatal} for fault in faults],
        "products": {
            product: {"bands": PRODUCTS[product].bands} | asdict(values)
            for product, values in by_product([t for t in inspection.tiles if t.split == "train"]).items()
        },
        "strips": [asdict(strip) for strip in by_strip(inspection.tiles, inspection.orientations)],
        "folds": {split: {str(k): asdict(leak) for k, leak in folds.items()} for split, folds in leaks.items()},
    }
    return without_nan(report)


def without_nan(node: Any) -> Any:
    """JSON has no NaN: None in its place."""
    if isinstance(node, dict):
        return {key: without_nan(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [without_nan(value) for value in node]
    return None if isinstance(node, float) and not isfinite(node) else node


def tables(inspection: Inspection, leaks: Leaks, faults: Sequence[Fault]) -> list[RenderableType]:
    """Strips, products, folds and faults, the most urgent last."""
    return [
        strip_table(by_strip(inspection.tiles, inspection.orientations)),
        product_table(by_product([tile for tile in inspection.tiles if tile.split == "train"])),
        fold_table(leaks),
        *([fault_table(faults)] if faults else []),
    ]


def table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    """With columns of words and columns of numbers."""
    made = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in left:
        made.add_column(column, no_wrap=True)
    for column in right:
        made.add_column(column, justify="right", no_wrap=True)
    return made


def strip_table(strips: Sequence[Strip]) -> Table:
    """The radar of each strip; the values are over its four bands, in decibels."""
    numbers = ("flag", "tiles", "buildings", "nodata", "min", "mean", "max", "not finite", "negative")
    made = table("Radar by strip", ("strip", "split"), numbers)
    for strip in strips:
        flag = "?" if strip.orientation is None else str(strip.orientation)
        radar = over_bands(strip.products[RADAR]) if RADAR in strip.products else []
        made.add_row(strip.name, strip.split, flag, str(strip.tiles), str(strip.buildings), *radar)
    return made


def over_bands(values: Values) -> list[str]:
    """Nodata, least, mean and largest value, and the numbers of values that are not finite or negative."""
    mean = sum(values.mean) / len(values.mean)
    told = [f"{values.nodata:.1%}", f"{min(values.low):.1f}", f"{mean:.1f}", f"{max(values.high):.1f}"]
    return [*told, str(values.infinite), str(values.negative)]


def product_table(products: Mapping[str, Values]) -> Table:
    """What normalisation uses: a row for each band of the training tiles."""
    numbers = ("tiles", "nodata", "min", "mean", "deviation", "max", "not finite", "negative")
    made = table("Training tiles, over valid pixels", ("product", "band"), numbers)
    for product, values in products.items():
        for k, band in enumerate(PRODUCTS[product].bands):
            of_file = [f"{values.tiles}", f"{values.nodata:.1%}"] if k == 0 else ["", ""]
            of_band = [f"{x[k]:.2f}" for x in (values.low, values.mean, values.deviation, values.high)]
            counts = [f"{values.infinite}", f"{values.negative}"] if k == 0 else ["", ""]
            made.add_row(product if k == 0 else "", band, *of_file, *of_band, *counts)
    return made


def fold_table(leaks: Leaks) -> Table:
    """The folds, and how many of their validation tiles share ground with training tiles.

    So as they are, then if no tile were dropped, then in a random split of the same sizes.
    """
    numbers = ("train", "validation", "dropped", "leak", "undropped", "random")
    made = table("Folds, and validation tiles on training ground", ("data.split", "data.fold"), numbers)
    for split, folds in leaks.items():
        for number, leak in folds.items():
            shares = (leak.seen_undropped, leak.seen_at_random)
            told = [f"{seen / leak.validation:.1%}" for seen in shares]
            row = (leak.train, leak.validation, leak.dropped, leak.seen)
            made.add_row(split, str(number), *map(str, row), *told)
    return made


def fault_table(faults: Sequence[Fault]) -> Table:
    """A row for each kind with its first example."""
    made = table("Faults", ("", "kind"), ("count",))
    made.add_column("what it means, and the first of them", overflow="fold")
    meanings = FATAL | WARNINGS
    for kind in meanings:
        of_kind = [fault for fault in faults if fault.kind == kind]
        if of_kind:
            mark = "[bold red]fatal" if kind in FATAL else "warning"
            first = escape(f"{of_kind[0].where}: {of_kind[0].what}")
            made.add_row(mark, kind, str(len(of_kind)), f"{meanings[kind]}\n{first}")
    return made
