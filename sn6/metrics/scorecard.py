"""The figures of a score: over all tiles, by area, height, orientation, distance to nodata and strip."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from jaxtyping import Bool, Float64, Int64, Shaped
from rich.box import SIMPLE_HEAD
from rich.table import Table

from sn6.datasets.layout import PIXEL
from sn6.footprints import Footprints, Labels
from sn6.footprints.ground import Corner
from sn6.metrics.breakdown import (
    Rates,
    bin_names,
    bins,
    bootstrap_f1,
    by_building,
    by_group,
    by_proposal,
    rates,
    spatial_blocks,
)
from sn6.metrics.matching import Counts, match_tile

if TYPE_CHECKING:
    from sn6.datasets.archive import Tile

AREAS = (20, 40, 80, 160, 320, 640)  # m²; the first is the least that counts
HEIGHTS = (0, 3, 6, 12, 24, 48)  # m
ORIENTATIONS = {0: "north", 1: "south", None: None}  # where the sensor stood; not every strip is in the table
LEVEL = 0.95
GROUPS = {
    "by_area": "by area",
    "by_height": "by height",
    "by_nodata": "by nodata",
    "by_orientation": "imaged from",
}


@dataclass(frozen=True, eq=False)
class Properties:
    """What the parts of a score ask of the buildings of a tile that count, or of its proposals.

    Attributes:
        areas: in m²
        heights: in m, NaN where not known
        nearness: to nodata, see `sn6.metrics.nodata_distance`; None where the tile is in no archive
        met: whether each is one of a pair
    """

    areas: Float64[np.ndarray, "n"]
    heights: Float64[np.ndarray, "n"]
    nearness: Int64[np.ndarray, "n"] | None
    met: Bool[np.ndarray, "n"]


@dataclass(frozen=True, eq=False)
class ScoredTile:
    """A tile whose proposals have been matched; of its polygons the properties are left.

    Attributes:
        image_id: of the tile
        corner: its west and north edge in metres, None where not known
        counts: of hits, invented and missed
        buildings: of the truth
        proposals: what was proposed
    """

    image_id: str
    corner: Corner | None
    counts: Counts
    buildings: Properties
    proposals: Properties


def score_tile(
    image_id: str, corner: Corner | None, truth: Labels, proposed: Footprints, valid: Bool[np.ndarray, "h w"] | None
) -> ScoredTile:
    """Matches the proposals of a tile.

    Args:
        image_id: of the tile
        corner: of the tile, None where not known
        truth: the buildings
        proposed: the proposals
        valid: false on nodata; None where the tile is in no archive
    """
    match = match_tile(truth.polygons, proposed.polygons, proposed.confidences)
    found = match.truths_counted & ~match.missed
    unknown = np.full(len(proposed), np.nan)
    return ScoredTile(
        image_id,
        corner,
        match.counts,
        properties(truth.polygons, truth.heights, found, match.truths_counted, valid),
        properties(proposed.polygons, unknown, match.hits, match.proposals_counted, valid),
    )


def properties(
    polygons: Shaped[np.ndarray, "n"],
    heights: Float64[np.ndarray, "n"],
    met: Bool[np.ndarray, "n"],
    counted: Bool[np.ndarray, "n"],
    valid: Bool[np.ndarray, "h w"] | None,
) -> Properties:
    """Of those of the polygons that are counted."""
    areas, nearness = shapely.area(polygons[counted]) * PIXEL**2, None
    if valid is not None:
        from sn6.metrics.nodata_distance import distance_bin

        nearness = distance_bin(polygons[counted], valid)
    return Properties(areas, heights[counted], nearness, met[counted])


def scorecard(tiles: Sequence[ScoredTile], sites: dict[str, "Tile"], place: float, resamples: int) -> dict[str, Any]:
    """The figures of a score, for a file of JSON; a group that nothing is known of is empty, an interval is None.

    Args:
        tiles: at least one
        sites: the tiles of the archive by image id, where it is at hand
        place: side of a place in metres
        resamples: of the bootstrap
    """
    counts = [tile.counts for tile in tiles]
    there = [sites.get(tile.image_id) for tile in tiles]
    orientations = [None if site is None else ORIENTATIONS[site.orientation] for site in there]
    strips = [None if site is None else site.strip for site in there]
    return {
        "overall": rates(sum(counts, Counts())),
        "by_area": two_sided(tiles, bin_names(AREAS, "m2"), lambda side: bins(side.areas, AREAS)),
        "by_height": by_height(tiles),
        "by_orientation": by_group(orientations, counts),
        "by_nodata": by_nodata(tiles),
        "by_strip": by_group(strips, counts),
        "interval": interval(tiles, counts, place, resamples),
    }


def by_height(tiles: Sequence[ScoredTile]) -> dict[str, Rates]:
    """Recall by the height of the building, which a proposal has not."""
    heights = np.concatenate([tile.buildings.heights for tile in tiles])
    if np.isnan(heights).all():
        return {}
    names = [*bin_names(HEIGHTS, "m"), "unknown"]
    found = np.concatenate([tile.buildings.met for tile in tiles])
    return by_building(names, np.where(np.isnan(heights), len(HEIGHTS), bins(heights, HEIGHTS)), found)


def by_nodata(tiles: Sequence[ScoredTile]) -> dict[str, Rates]:
    """Recall by the distance of the building to nodata, precision by that of the proposal."""
    seen = [tile for tile in tiles if tile.buildings.nearness is not None]
    if not seen:
        return {}
    from sn6.metrics.nodata_distance import NAMES

    def nearness(side: Properties) -> Int64[np.ndarray, "_"]:
        assert side.nearness is not None
        return side.nearness

    return two_sided(seen, NAMES, nearness)


def two_sided(
    tiles: Sequence[ScoredTile], names: Sequence[str], bin_of: Callable[[Properties], Int64[np.ndarray, "_"]]
) -> dict[str, Rates]:
    """Recall by a property of the building and precision by the same property of the proposal."""
    bins_and_met = [
        [np.concatenate([bin_of(side) for side in sides]), np.concatenate([side.met for side in sides])]
        for sides in ([tile.buildings for tile in tiles], [tile.proposals for tile in tiles])
    ]
    recalls, precisions = by_building(names, *bins_and_met[0]), by_proposal(names, *bins_and_met[1])
    return {name: recalls[name] | precisions[name] for name in names}


def interval(
    tiles: Sequence[ScoredTile], counts: Sequence[Counts], place: float, resamples: int
) -> dict[str, Any] | None:
    """The interval of the overall F1; None where a tile's place is not known or all tiles are one place."""
    corners = [tile.corner for tile in tiles if tile.corner is not None]
    if len(corners) < len(tiles):
        return None
    places = spatial_blocks(np.array(corners, dtype=np.float64), place)
    if not places.any():
        return None
    table = np.array([(count.tp, count.fp, count.fn) for count in counts])
    low, high = bootstrap_f1(table, places, resamples, LEVEL)
    return {"f1": [low, high], "level": LEVEL, "places": int(places.max()) + 1, "resamples": resamples}


def table_of(card: dict[str, Any]) -> Table:
    """The figures for a terminal. Strips, of which there may be hundreds, are for the file."""
    caption = "buildings by their own area, height and nodata; proposals by theirs"
    table = Table(title="polygon F1", caption=caption, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("", "buildings", "found", "recall", "proposals", "hits", "precision", "F1"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    table.add_row("all tiles", *cells(card["overall"]), style="bold")
    for group, heading in GROUPS.items():
        if card[group]:
            table.add_section()
            table.add_row(heading, style="italic")
        for name, figures in card[group].items():
            if figures.get("buildings", 1) or figures.get("proposals"):
                table.add_row(f"  {name}", *cells(figures))
    return table


def cells(figures: Rates) -> list[str]:
    """What stands under the columns of the table; what a group does not tell stays empty."""
    if "tp" in figures:
        tp, fp, fn = figures["tp"], figures["fp"], figures["fn"]
        figures = figures | {"buildings": tp + fn, "found": tp, "proposals": tp + fp, "hits": tp}
    columns = {"buildings": "d", "found": "d", "recall": ".3f", "proposals": "d", "hits": "d", "precision": ".3f"}
    return [format(figures[key], style) if key in figures else "" for key, style in {**columns, "f1": ".3f"}.items()]
