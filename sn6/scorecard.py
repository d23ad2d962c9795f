"""The figures of a score: over all tiles, by area, height, orientation, distance to nodata and strip."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from jaxtyping import Bool, Shaped
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sn6.data.layout import PIXEL
from sn6.footprints import Footprints, Labels
from sn6.footprints.breakdown import (
    Rates,
    bins,
    bootstrap_f1,
    by_building,
    by_group,
    by_proposal,
    names_of_bins,
    places_of,
    rates,
)
from sn6.footprints.ground import Corner
from sn6.footprints.matching import Counts, Match

if TYPE_CHECKING:
    from sn6.data.archive import Archive, Tile

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
class ScoredTile:
    """A tile whose proposals have been matched.

    Attributes:
        image_id: of the tile
        truth: its buildings
        proposals: what was proposed on it
        match: which of them met
        corner: its west and north edge in metres, None where not known
    """

    image_id: str
    truth: Labels
    proposals: Footprints
    match: Match
    corner: Corner | None

    @property
    def found(self) -> Bool[np.ndarray, "truths"]:
        """The buildings that a proposal took."""
        return self.match.truths_counted & ~self.match.missed


def scorecard(
    tiles: Sequence[ScoredTile], archive: "Archive | None", sites: dict[str, "Tile"], place: float, resamples: int
) -> dict[str, Any]:
    """The figures of a score, for a file of JSON; a group that nothing is known of is empty, an interval is None.

    Args:
        tiles: at least one
        archive: of the tiles, where it is at hand
        sites: its tiles by image id
        place: side of a place in metres
        resamples: of the bootstrap
    """
    counts = [tile.match.counts for tile in tiles]
    there = [sites.get(tile.image_id) for tile in tiles]
    orientations = [None if site is None else ORIENTATIONS[site.orientation] for site in there]
    strips = [None if site is None else site.strip for site in there]
    return {
        "overall": rates(sum(counts, Counts())),
        "by_area": by_area(tiles),
        "by_height": by_height(tiles),
        "by_orientation": by_group(orientations, counts),
        "by_nodata": by_nodata(tiles, archive, sites) if archive else {},
        "by_strip": by_group(strips, counts),
        "interval": interval(tiles, counts, place, resamples),
    }


def of_buildings(
    tiles: Sequence[ScoredTile], value: Callable[[ScoredTile], Shaped[np.ndarray, "_"]]
) -> Shaped[np.ndarray, "_"]:
    """A value of the buildings that count, tile after tile."""
    return np.concatenate([value(tile)[tile.match.truths_counted] for tile in tiles])


def of_proposals(
    tiles: Sequence[ScoredTile], value: Callable[[ScoredTile], Shaped[np.ndarray, "_"]]
) -> Shaped[np.ndarray, "_"]:
    """A value of the proposals that count, tile after tile."""
    return np.concatenate([value(tile)[tile.match.proposals_counted] for tile in tiles])


def by_area(tiles: Sequence[ScoredTile]) -> dict[str, Rates]:
    """Recall by the area of the building, precision by that of the proposal."""
    names = names_of_bins(AREAS, "m2")
    of_truth = of_buildings(tiles, lambda tile: shapely.area(tile.truth.polygons)) * PIXEL**2
    of_proposal = of_proposals(tiles, lambda tile: shapely.area(tile.proposals.polygons)) * PIXEL**2
    return two_sided(tiles, names, bins(of_truth, AREAS), bins(of_proposal, AREAS))


def by_height(tiles: Sequence[ScoredTile]) -> dict[str, Rates]:
    """Recall by the height of the building, which a proposal has not."""
    heights = of_buildings(tiles, lambda tile: tile.truth.heights)
    if np.isnan(heights).all():
        return {}
    names = [*names_of_bins(HEIGHTS, "m"), "unknown"]
    found = of_buildings(tiles, lambda tile: tile.found)
    return by_building(names, np.where(np.isnan(heights), len(HEIGHTS), bins(heights, HEIGHTS)), found)


def by_nodata(tiles: Sequence[ScoredTile], archive: "Archive", sites: dict[str, "Tile"]) -> dict[str, Rates]:
    """Recall by the distance of the building to nodata, precision by that of the proposal."""
    from sn6.data.nodata import NAMES, nearness

    seen = [tile for tile in tiles if tile.image_id in sites]
    of_truth, of_proposal = {}, {}
    for tile in track(seen, "distances to nodata", console=Console(stderr=True), transient=True):
        _, valid = archive.read(sites[tile.image_id], "SAR-Intensity", (1,))
        of_truth[tile.image_id] = nearness(tile.truth.polygons, valid)
        of_proposal[tile.image_id] = nearness(tile.proposals.polygons, valid)
    if not seen:
        return {}
    return two_sided(
        seen,
        NAMES,
        of_buildings(seen, lambda tile: of_truth[tile.image_id]),
        of_proposals(seen, lambda tile: of_proposal[tile.image_id]),
    )


def two_sided(
    tiles: Sequence[ScoredTile],
    names: Sequence[str],
    bin_of_building: Shaped[np.ndarray, "buildings"],
    bin_of_proposal: Shaped[np.ndarray, "proposals"],
) -> dict[str, Rates]:
    """Recall by a property of the building and precision by the same property of the proposal."""
    recalls = by_building(names, bin_of_building, of_buildings(tiles, lambda tile: tile.found))
    precisions = by_proposal(names, bin_of_proposal, of_proposals(tiles, lambda tile: tile.match.hits))
    return {name: recalls[name] | precisions[name] for name in names}


def interval(
    tiles: Sequence[ScoredTile], counts: Sequence[Counts], place: float, resamples: int
) -> dict[str, Any] | None:
    """The interval of the overall F1; None where a tile's place is not known or all tiles are one place."""
    corners = [tile.corner for tile in tiles if tile.corner is not None]
    if len(corners) < len(tiles):
        return None
    places = places_of(np.array(corners, dtype=np.float64), place)
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
