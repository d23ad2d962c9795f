"""Show a score: tables for the terminal, and the rows of folds for a file."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from sn6.errors import counted
from sn6.metrics.breakdown import Rates
from sn6.metrics.matching import MIN_IOU
from sn6.metrics.scorecard import ap_key

HEADINGS = {
    "by_neighbours": "by neighbours (0.5 m)",
    "by_area": "by area",
    "by_height": "by height",
    "by_nodata_distance": "by distance to nodata",
    "by_looks": "by number of looks",
    "by_look_direction": "by look direction (from)",
}
COLUMNS = {  # key in score.json → format
    "buildings": "d",
    "matched": "d",
    "recall": ".3f",
    "proposals": "d",
    "tp": "d",
    "precision": ".3f",
    "f1": ".3f",
}
FOLD_SCORES = ("f1", "precision", "recall", "touching_f1", "alone_f1")
FOLD_COLUMNS = ("fold", "tiles", *FOLD_SCORES, "tp", "fp", "fn", "f1_low", "f1_high")


def describe_instances(scores: Mapping[str, Any], min_iou: float = MIN_IOU) -> str:
    """Return how well the buildings are outlined and divided, in a line.

    Args:
        scores: `instances` of `sn6.metrics.scorecard.scorecard`
        min_iou: the IoU of the matched pairs is above it
    """
    merged, split = counted(int(scores["merged"]), "proposal"), counted(int(scores["split"]), "building")
    ap = ap_key(min_iou)
    ranking = "" if scores[ap] is None else f"{ap.upper()} {scores[ap]:.3f}, "
    return (
        f"{ranking}PQ {scores['pq']:.3f}, mean IoU of the matched pairs {scores['matched_iou']:.3f}, boundary IoU "
        f"{scores['boundary_iou']:.3f}; merging two or more buildings: {merged}; split: {split}"
    )


def score_table(card: dict[str, Any], ground: str = "all tiles") -> Table:
    """Build the table for the terminal; without the strips, which may be hundreds.

    Args:
        card: of `sn6.metrics.scorecard.scorecard`
        ground: name of the row of all counts
    """
    caption = "left: the buildings, by their own area, height, distance and looks; right: the proposals, by theirs"
    table = Table(title="polygon F1", caption=caption, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("", "buildings", "matched", "recall", "proposals", "TP", "precision", "F1"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    table.add_row(ground, *cells(card["overall"]), style="bold")
    for group, heading in HEADINGS.items():
        if card[group]:
            table.add_section()
            table.add_row(heading, style="italic")
        for name, figures in card[group].items():
            if figures.get("buildings", 1) or figures.get("proposals"):
                table.add_row(f"  {name}", *cells(figures))
    return table


def cells(figures: Rates) -> list[str]:
    """Format the COLUMNS of a row; those that do not apply are empty."""
    if "fn" in figures:
        tp, fp, fn = figures["tp"], figures["fp"], figures["fn"]
        figures = figures | {"buildings": tp + fn, "matched": tp, "proposals": tp + fp}
    return [format(figures[key], style) if key in figures else "" for key, style in COLUMNS.items()]


def fold_table(scores: Mapping[str, Mapping[str, Any]]) -> Table:
    """Build the table of the folds for the terminal; the score of all is the last row.

    Args:
        scores: of `sn6.metrics.scorecard.by_fold`
    """
    table = Table(title="out-of-fold scores", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("fold", "tiles", "F1", "precision", "recall", "touching", "alone", "95% interval"):
        table.add_column(column, justify="left" if column == "fold" else "right", no_wrap=True)
    for name, one in scores.items():
        interval = "{:.3f}-{:.3f}".format(*one["interval"]) if one["interval"] else ""
        style = "bold" if name == "pooled" else None
        table.add_row(name, str(one["tiles"]), *(f"{one[key]:.3f}" for key in FOLD_SCORES), interval, style=style)
    return table


def fold_rows(scores: Mapping[str, Mapping[str, Any]]) -> list[list[Any]]:
    """Return the rows of FOLD_COLUMNS; the ends of an interval that is not known are None."""
    return [
        [name, *(one[key] for key in FOLD_COLUMNS[1:-2]), *(one["interval"] or (None, None))]
        for name, one in scores.items()
    ]
