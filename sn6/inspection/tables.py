"""Make the tables of a report for a terminal."""

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from sn6.data.partitions import PartitionName
from sn6.datasets.declaration import DataSet
from sn6.inspection.faults import FATAL, WARNINGS, Fault
from sn6.inspection.folds import Overlap
from sn6.inspection.published_comparison import Row
from sn6.inspection.report import Report
from sn6.inspection.summary import ProductSummary, StripSummary

LOOK_DIRECTIONS = {0: "north", 1: "south", None: "?"}
WITHIN_TOLERANCE = {None: "", True: "yes", False: "[bold red]no"}


def report_tables(report: Report) -> list[RenderableType]:
    """Return the tables of strips, products, comparison, folds and faults; those without rows are left out."""
    tables = [
        strip_table(report.strips, report.inspection.data_set),
        product_table(report.products, report.inspection.data_set),
        comparison_table(report.comparison),
        fold_table(report.overlaps),
        fault_table(report.faults),
    ]
    return [table for table in tables if table.row_count]


def new_table(title: str, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    """Return an empty table with columns of texts, aligned left, and of numbers, aligned right."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in texts:
        table.add_column(column, no_wrap=True)
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def strip_table(strips: Sequence[StripSummary], data_set: DataSet) -> Table:
    """Return a row for each strip; the radar's values are over all its bands, in decibels."""
    numbers = ("tiles", "buildings", "nodata", "min", "mean", "max", "not\nfinite", "negative")
    table = new_table("Strips: radar, in dB over valid pixels", ("strip", "split", "look\ndirection"), numbers)
    radar = data_set.radar
    for strip in strips:
        texts = (strip.name, strip.split, LOOK_DIRECTIONS[strip.orientation])
        values = values_over_bands(strip.products[radar]) if radar is not None and radar in strip.products else []
        table.add_row(*texts, str(strip.tiles), str(strip.buildings), *values)
    return table


def values_over_bands(summary: ProductSummary) -> list[str]:
    """Return the cells of nodata, minimum, mean, maximum, and the numbers of non-finite and negative values."""
    mean = sum(summary.mean) / len(summary.mean)
    values = [f"{min(summary.minimum):.1f}", f"{mean:.1f}", f"{max(summary.maximum):.1f}"]
    return [f"{summary.nodata_fraction:.1%}", *values, str(summary.not_finite), str(summary.negative)]


def product_table(products: Mapping[str, ProductSummary], data_set: DataSet) -> Table:
    """Return a row for each band of the training tiles, with the values of the normalisation."""
    numbers = ("tiles", "nodata", "min", "mean", "std", "max", "not finite", "negative")
    table = new_table("Training tiles, over valid pixels", ("product", "band"), numbers)
    for product, summary in products.items():
        for k, band in enumerate(data_set.products[product].bands):
            first = (product, band, f"{summary.tiles}", f"{summary.nodata_fraction:.1%}")
            values = [f"{x[k]:.2f}" for x in (summary.minimum, summary.mean, summary.std, summary.maximum)]
            counts = (f"{summary.not_finite}", f"{summary.negative}")
            if k == 0:
                table.add_row(*first, *values, *counts)
            else:
                table.add_row("", band, "", "", *values)
    return table


def comparison_table(rows: Sequence[Row]) -> Table:
    """Return a row for each value of the comparison with the published archive."""
    numbers = ("this archive", "published", "difference", "within tolerance")
    table = new_table("Comparison with the published archive", ("training tiles",), numbers)
    for row in rows:
        style = ".3f" if row.published < 1 else ".1f"
        cells = (format(row.value, style), format(row.published, style))
        difference = format(row.value - row.published, "+" + style)
        table.add_row(row.name, *cells, difference, WITHIN_TOLERANCE[row.within_tolerance])
    return table


def fold_table(overlaps: Mapping[PartitionName, Mapping[int, Overlap]]) -> Table:
    """Return a row for each fold, with its numbers of tiles and the overlap of its validation tiles.

    The overlap is given after and before tiles are dropped, and in a random split of the same sizes.
    """
    numbers = ("train", "validation", "dropped", "after dropping", "before dropping", "random split")
    title = "Folds, and the validation tiles that overlap training tiles, in % of the validation tiles"
    table = new_table(title, ("data.partition", "data.fold"), numbers)
    for partition, folds in overlaps.items():
        for number, one in folds.items():
            counts = (one.overlapping, one.overlapping_before_dropping, one.overlapping_in_random_split)
            cells = (f"{count / one.validation:.1%}" for count in counts)
            table.add_row(partition, str(number), *map(str, (one.train, one.validation, one.dropped)), *cells)
    return table


def fault_table(faults: Sequence[Fault]) -> Table:
    """Return a row for each kind of fault, with its first example."""
    table = new_table("Faults", ("", "kind"), ("count",))
    table.add_column("meaning, and the first example", overflow="fold")
    meanings = FATAL | WARNINGS
    for kind in meanings:
        of_kind = [fault for fault in faults if fault.kind == kind]
        if of_kind:
            severity = "[bold red]fatal" if kind in FATAL else "warning"
            first = escape(f"{of_kind[0].where}: {of_kind[0].message}")
            table.add_row(severity, kind, str(len(of_kind)), f"{meanings[kind]}\n{first}")
    return table
