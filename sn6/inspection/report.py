"""Report an inspection: folds, comparison and faults, written as JSON and pictures."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from sn6.data.partitions import PartitionName
from sn6.files import write_text
from sn6.inspection.archive import Inspection
from sn6.inspection.comparison_figure import comparison_figure
from sn6.inspection.faults import Fault
from sn6.inspection.folds import Folds, Overlap, make_folds, measure_overlap
from sn6.inspection.maps import partition_figure
from sn6.inspection.published_comparison import Row, compare
from sn6.inspection.summary import ProductSummary, StripSummary, summarise_products, summarise_strips
from sn6.plots.tiles import save_figure


@dataclass(frozen=True, eq=False)
class Report:
    """Everything to report about an archive.

    Attributes:
        inspection: the inspected tiles
        strips: values of each strip
        products: product → values of the training tiles
        folds: partition → number → fold
        overlaps: partition → number → overlap of the fold
        comparison: values of the training tiles and the published ones
        faults: all faults
    """

    inspection: Inspection
    strips: list[StripSummary]
    products: dict[str, ProductSummary]
    folds: Folds
    overlaps: dict[PartitionName, dict[int, Overlap]]
    comparison: list[Row]
    faults: list[Fault]


def make_report(inspection: Inspection) -> Report:
    """Make the folds of the inspected tiles, and summarise everything."""
    tiles = inspection.labelled["train"]
    folds, fold_faults = make_folds(tiles, inspection.labelled.get("test_public", []), inspection.data_set.partition)
    return Report(
        inspection=inspection,
        strips=summarise_strips(inspection.tiles, inspection.orientations, inspection.data_set),
        products=summarise_products([tile for tile in inspection.tiles if tile.split == "train"], inspection.data_set),
        folds=folds,
        overlaps={name: {k: measure_overlap(fold, tiles) for k, fold in of.items()} for name, of in folds.items()},
        comparison=compare(inspection),
        faults=inspection.faults + fold_faults,
    )


def write_report(report: Report, folder: Path) -> None:
    """Write check.json, a map of the folds of each partition, and the picture of the comparison.

    Raises:
        UserError: a file cannot be written
    """
    write_text(folder / "check.json", json.dumps(as_json(report), indent=2) + "\n")
    for partition, folds in report.folds.items():
        if folds:
            figure_of_folds = partition_figure(partition, folds, report.inspection.data_set.crs)
            save_figure(figure_of_folds, folder / f"folds_{partition}.png")
    figure = comparison_figure(report.inspection)
    if figure is not None:
        save_figure(figure, folder / "comparison.png")


def as_json(report: Report) -> dict[str, Any]:
    """Return the report as JSON values; null for NaN. Values are in decibels (radar) or counts (optical)."""
    values = {
        "root": str(report.inspection.data_set.root),
        "can_be_trained_on": not any(fault.is_fatal for fault in report.faults),
        "tiles": Counter(tile.split for tile in report.inspection.tiles),
        "faults": [fault._asdict() | {"fatal": fault.is_fatal} for fault in report.faults],
        "products": {
            product: {"bands": report.inspection.data_set.products[product].bands} | asdict(summary)
            for product, summary in report.products.items()
        },
        "strips": [asdict(strip) for strip in report.strips],
        "folds": {name: {str(k): asdict(one) for k, one in of.items()} for name, of in report.overlaps.items()},
        "comparison": [row._asdict() | {"within_tolerance": row.within_tolerance} for row in report.comparison],
    }
    return without_nan(values)


def without_nan(node: Any) -> Any:
    """Replace NaN, which JSON does not have, by None."""
    if isinstance(node, dict):
        return {key: without_nan(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [without_nan(value) for value in node]
    return None if isinstance(node, float) and not isfinite(node) else node
