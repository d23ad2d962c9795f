"""`python -m sn6.score truth=... proposals=...`: the score of SpaceNet 6 for any file of footprints."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import shapely
from rich.console import Console
from rich.progress import track

from sn6.cli import run_command
from sn6.datasets.layout import SPLIT_NAMES, labels_path, test_truth_path
from sn6.errors import UserError
from sn6.files import write_text
from sn6.footprints import Footprints, Labels
from sn6.footprints.ground import Corner
from sn6.formats.files import read_proposals, read_truth
from sn6.formats.outlines import Outlines, Rows, parts
from sn6.metrics.matching import make_valid
from sn6.metrics.scorecard import LEVEL, ScoredTile, score_tile, scorecard, table_of

if TYPE_CHECKING:
    from sn6.datasets.archive import Archive, Tile

TILE_NUMBER = re.compile(r"(tile_\d+)\D*$")  # unique over train and test, whatever stands before it


def score(
    truth: Annotated[Path, "CSV, GeoJSON or GeoParquet; the folder of an archive stands for its labels"],
    proposals: Annotated[Path, "CSV, GeoJSON or GeoParquet"],
    root: Annotated[Path | None, "the archive of the tiles: tells orientation, strip, nodata and place"] = None,
    out: Annotated[Path, "where the figures go"] = Path("score.json"),
    strict: Annotated[bool, "as the organisers' program in everything, see above"] = False,
    resamples: Annotated[int, "of the bootstrap, 1 or more"] = 2000,
    place: Annotated[float, "side of the squares of ground that are resampled whole, in m"] = 450.0,
) -> None:
    """Scores proposals against the truth: F1 over all tiles, its interval of 95%, and its parts.

    Buildings and proposals of less than 80 px² (20 m²) do not count. Tile by tile, in the order of falling
    confidence, a proposal takes the free building of the highest IoU, which must be over 0.5. The counts are summed
    over the tiles.

    The organisers' program loses some things without a word: tiles that the proposals do not name are left out, of a
    MULTIPOLYGON the first part alone is read, and a ring that crosses itself has the area of the shoelace formula,
    which may be 0. Here such buildings are missed, each part counts, and such a ring has the area that it encloses;
    a line says so each time. strict=true does as the organisers do.

    Parts: recall by the building's own area, height and distance to nodata; precision by the proposal's own area and
    distance; F1 by orientation and strip. The interval needs the places of the tiles, from root=... or from
    footprints as GeoJSON or GeoParquet: an ImageId does not tell the place.
    """
    if resamples < 1 or not place > 0:
        raise UserError(f"resamples={resamples} place={place:g} does not do; give numbers over 0")
    archive, sites = open_archive(root or (truth if truth.is_dir() else None))
    corners = {image_id: (tile.bounds[0], tile.bounds[3]) for image_id, tile in sites.items()}
    proposed = read_proposals(proposals, corners)
    truth, true = labels_of(truth, proposed) if truth.is_dir() else (truth, read_truth(truth, corners))
    check(truth, true, proposals, proposed)
    known = {image_id: corner for given in (true, proposed) for image_id, corner in given.tiles.items() if corner}

    notes = [*on_tiles(true, proposed, strict)]
    sides = TakingPart(truth, true, strict), TakingPart(proposals, proposed, strict)
    tiles = match_tiles(*sides, {**known, **corners}, archive, sites)
    notes += [note for side in sides for note in side.notes()]
    card = scorecard(tiles, sites, place, resamples)
    if card["interval"] is None:
        notes.append("no interval: it needs tiles at two places or more, known from root= or a GeoJSON or GeoParquet")
    write_text(out, json.dumps({"strict": strict, "tiles": len(tiles), **card, "notes": notes}, indent=2) + "\n")

    for note in notes:
        print(f"note: {note}")
    Console().print(table_of(card))
    if card["interval"]:
        low, high = card["interval"]["f1"]
        print(f"{LEVEL:.0%} interval of F1: {low:.3f} to {high:.3f}, over {card['interval']['places']} places")
    print(f"{len(tiles)} tiles scored; the figures lie in {out}")


def open_archive(root: Path | None) -> tuple["Archive | None", dict[str, "Tile"]]:
    """The archive, and its radar tiles by image id; none where there is no root."""
    if root is None:
        return None, {}
    from sn6.datasets.archive import Archive

    archive = Archive(root)
    splits = [split for split in SPLIT_NAMES if archive.has(split, "SAR-Intensity")]
    return archive, {tile.image_id: tile for split in splits for tile in archive.tiles(split, "SAR-Intensity")}


def labels_of(root: Path, proposed: Outlines) -> tuple[Path, Outlines]:
    """The labels of an archive that name most of the proposals' tiles: of its training tiles or of its test tiles."""
    found = {path: read_truth(path, {}) for path in (labels_path(root), test_truth_path(root)) if path.exists()}
    if not found:
        raise UserError(f"{root} has no labels ({labels_path(root)} is missing); give truth= the file that has them")
    return max(found.items(), key=lambda item: len(item[1].tiles.keys() & proposed.tiles.keys()))


def check(truth: Path, true: Outlines, proposals: Path, proposed: Outlines) -> None:
    """Raises a UserError where a tile has two names, or there is nothing to score."""
    names: dict[str, str] = {}
    for path, outlines in ((truth, true), (proposals, proposed)):
        for image_id in outlines.tiles:
            number = TILE_NUMBER.search(image_id)
            other = names.setdefault(number[1] if number else image_id, image_id)
            if other != image_id:
                raise UserError(f"{path}: {image_id} and {other} are one tile under two names; give it one")
    if not len(true):
        raise UserError(f"{truth}: there is no building on its {len(true.tiles)} tiles, so nothing can be found")
    if not true.tiles.keys() & proposed.tiles.keys():
        raise UserError(f"{proposals} names no tile of {truth}; give the proposals of the same tiles")


def on_tiles(true: Outlines, proposed: Outlines, strict: bool) -> Iterator[str]:
    """What is to be said of tiles that one of the files alone names."""
    missing = [image_id for image_id in true.tiles if image_id not in proposed.tiles]
    if missing:
        number = {image_id: i for i, image_id in enumerate(true.tiles)}
        buildings = np.isin(true.tile, [number[image_id] for image_id in missing]).sum()
        fate = "are left out" if strict else "count as missed"
        where = f"{len(missing)} tiles of the truth, first {missing[0]}, have no row in the proposals"
        yield f"{where}; their {buildings} buildings {fate}"
    unknown = [image_id for image_id in proposed.tiles if image_id not in true.tiles]
    if unknown:
        yield f"{len(unknown)} tiles of the proposals, first {unknown[0]}, have no row in the truth and are left out"


@dataclass(eq=False)
class TakingPart:
    """The polygons of a file that take part, by the organisers' rules or so that none is lost.

    Attributes:
        path: of the file
        outlines: in it
        strict: by the organisers' rules
        asked: parts of the geometries that were asked for
        read: those of them that take part
        crossing: image id → how many of these cross themselves
    """

    path: Path
    outlines: Outlines
    strict: bool
    asked: int = 0
    read: int = 0
    crossing: dict[str, int] = field(default_factory=dict)

    def of(self, image_id: str) -> Rows:
        """The polygons of a tile and their values; to be asked for once."""
        rows = self.outlines.rows(image_id)
        every = parts(rows)
        polygons, values = parts(rows, first_only=True) if self.strict else every
        self.asked += len(every[0])
        self.read += len(polygons)
        crossing = int(np.count_nonzero(~shapely.is_valid(polygons)))
        if not crossing:
            return polygons, values
        self.crossing[image_id] = crossing
        return polygons if self.strict else make_valid(polygons), values

    def notes(self) -> Iterator[str]:
        """Where the rules differ, once all tiles were asked for."""
        if self.outlines.unread:
            yield f"{self.path}: {self.outlines.unread} polygons stand in rows with the BuildingId -1 and are not read"
        if self.asked > len(self.outlines):
            fate = f"{self.asked - self.read} parts after the first are not read" if self.strict else "each part counts"
            yield f"{self.path}: {len(self.outlines)} geometries have {self.asked} parts; {fate}"
        if self.crossing:
            first = next(image_id for image_id in self.outlines.tiles if image_id in self.crossing)
            fate = "have the area of the shoelace formula" if self.strict else "are repaired"
            number = sum(self.crossing.values())
            yield f"{self.path}: {number} polygons, first on {first}, cross themselves; they {fate}"


def match_tiles(
    true: TakingPart,
    proposed: TakingPart,
    corners: Mapping[str, Corner],
    archive: "Archive | None",
    sites: Mapping[str, "Tile"],
) -> list[ScoredTile]:
    """Matches the tiles of the truth, those without a row of proposals by the default alone."""
    tiles = []
    for image_id in track(true.outlines.tiles, "matching", console=Console(stderr=True), transient=True):
        labels, footprints = Labels(*true.of(image_id)), Footprints(*proposed.of(image_id))
        if true.strict and image_id not in proposed.outlines.tiles:
            continue
        valid = None
        if archive is not None and image_id in sites:
            _, valid = archive.read(sites[image_id], "SAR-Intensity", (1,))
        tiles.append(score_tile(image_id, corners.get(image_id), labels, footprints, valid))
    for image_id in proposed.outlines.tiles.keys() - true.outlines.tiles.keys():
        proposed.of(image_id)  # for the notes
    return tiles


if __name__ == "__main__":
    run_command(score, "sn6.score")
