"""Match two files of footprints tile by tile, and describe where the organisers' rules and these differ."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import shapely
from jaxtyping import Bool

from sn6.errors import UserError, counted
from sn6.footprints import Footprints, Labels
from sn6.footprints.ground import Corner
from sn6.formats.outlines import Outlines, Rows, parts
from sn6.metrics.looks import Looks
from sn6.metrics.matching import make_valid
from sn6.metrics.scorecard import ScoredTile, score_tile

TILE_NUMBER = re.compile(r"(tile_\d+)\D*$")  # unique over train and test, with any prefix


@dataclass(eq=False)
class EvaluatedPolygons:
    """Select the polygons of a file that are scored, by the organisers' rules or without losing any.

    Attributes:
        path: the file
        outlines: its footprints
        strict: whether the organisers' rules apply
        part_count: number of parts of the geometries of the tiles so far
        crossing: image id → number of its polygons that intersect themselves, of the tiles so far
    """

    path: Path
    outlines: Outlines
    strict: bool
    part_count: int = 0
    crossing: dict[str, int] = field(default_factory=dict)

    def polygons(self, image_id: str) -> Rows:
        """Return the polygons of a tile and their values; call it once for each tile."""
        rows = self.outlines.rows(image_id)
        all_parts = parts(rows)
        polygons, values = parts(rows, first_only=True) if self.strict else all_parts
        self.part_count += len(all_parts[0])
        crossing = int(np.count_nonzero(~shapely.is_valid(polygons)))
        if not crossing:
            return polygons, values
        self.crossing[image_id] = crossing
        return polygons if self.strict else make_valid(polygons), values

    def notes(self) -> Iterator[str]:
        """Describe what the organisers' rules lose in this file, after all tiles."""
        if self.outlines.ignored:
            yield f"{self.path}: ignored {counted(self.outlines.ignored, 'polygon')} in rows with the BuildingId -1"
        if self.outlines.left_out:
            parts_left_out = counted(self.outlines.left_out, "part")
            yield f"{self.path}: {parts_left_out} of GeometryCollections that are no polygons: left out"
        if extra := self.part_count - len(self.outlines):
            treatment = "ignored" if self.strict else "scored as polygons of their own"
            yield f"{self.path}: {counted(extra, 'part')} after the first part of a MULTIPOLYGON: {treatment}"
        if self.crossing:
            first = next(image_id for image_id in self.outlines.tiles if image_id in self.crossing)
            treatment = "area by the shoelace formula" if self.strict else "repaired"
            number = counted(sum(self.crossing.values()), "self-intersecting polygon")
            yield f"{self.path}: {number}, first on tile {first}: {treatment}"


def check_tiles(truth: EvaluatedPolygons, proposals: EvaluatedPolygons) -> None:
    """Raise a UserError if a tile has two names or two positions, or there is nothing to score."""
    names: dict[str, str] = {}
    for side in (truth, proposals):
        for image_id in side.outlines.tiles:
            number = TILE_NUMBER.search(image_id)
            other = names.setdefault(number[1] if number else image_id, image_id)
            if other != image_id:
                raise UserError(
                    f"{side.path}: {image_id} and {other} name the same tile; use one name",
                    kind="conflict",
                    key=side.path,
                    value=image_id,
                )
    tiles = truth.outlines.tiles
    for image_id, corner in proposals.outlines.tiles.items():
        other_corner = tiles.get(image_id)
        if corner and other_corner and np.abs(np.subtract(corner, other_corner)).max() > 1:
            raise UserError(
                f"{proposals.path}: the tile {image_id} is at {corner}, but at {other_corner} in {truth.path}; give "
                "both files in the same CRS",
                kind="conflict",
                key=proposals.path,
                value=image_id,
            )
    if not len(truth.outlines):
        raise UserError(
            f"{truth.path}: no building on {counted(len(tiles), 'tile')}; give a ground truth with buildings",
            kind="wrong_data",
            key=truth.path,
        )
    if not tiles.keys() & proposals.outlines.tiles.keys():
        raise UserError(
            f"{proposals.path} contains no tile of {truth.path}; give the proposals of the same tiles",
            kind="wrong_data",
            key=proposals.path,
        )


def tile_notes(truth: EvaluatedPolygons, proposals: EvaluatedPolygons) -> Iterator[str]:
    """Describe how tiles that only one of the files names are scored."""
    true, proposed = truth.outlines, proposals.outlines
    missing = [image_id for image_id in true.tiles if image_id not in proposed.tiles]
    if missing:
        number = {image_id: i for i, image_id in enumerate(true.tiles)}
        buildings = int(np.isin(true.tile, [number[image_id] for image_id in missing]).sum())
        treatment = "left out" if truth.strict else "counted as false negatives"
        tiles = f"{counted(len(missing), 'tile')} of the ground truth, first {missing[0]}"
        yield f"{proposals.path}: no row for {tiles}; {counted(buildings, 'building')} {treatment}"
    unknown = [image_id for image_id in proposed.tiles if image_id not in true.tiles]
    if unknown:
        number = {image_id: i for i, image_id in enumerate(proposed.tiles)}
        footprints = int(np.isin(proposed.tile, [number[image_id] for image_id in unknown]).sum())
        tiles = f"{counted(len(unknown), 'tile')} of the proposals, first {unknown[0]}"
        yield f"{truth.path}: no row for {tiles}; {counted(footprints, 'proposal')} counted as false positives"


def all_tiles(truth: EvaluatedPolygons, proposals: EvaluatedPolygons) -> list[str]:
    """Return the tiles of the ground truth, then those that only the proposals name."""
    return list(dict.fromkeys([*truth.outlines.tiles, *proposals.outlines.tiles]))


def match_tiles(
    truth: EvaluatedPolygons,
    proposals: EvaluatedPolygons,
    corners: Mapping[str, Corner],
    read_valid: Callable[[str], Bool[np.ndarray, "h w"] | None],
    pixel_size: float,
    looks: Looks | None = None,
) -> Iterator[ScoredTile]:
    """Match the tiles of both files; by the organisers' rules only those that the proposals name.

    A tile that only the proposals name has no buildings, so each of its proposals is a false positive.

    Args:
        truth: ground truth
        proposals: proposals
        corners: image id → corner of the tile, where known
        read_valid: function that returns the mask of valid pixels of a tile, None where it is unknown
        pixel_size: m
        looks: of the prediction; None where each tile was predicted by itself
    """
    for image_id in all_tiles(truth, proposals):
        labels, footprints = Labels(*truth.polygons(image_id)), Footprints(*proposals.polygons(image_id))
        if not truth.strict or image_id in proposals.outlines.tiles:
            looks_here = looks if image_id in proposals.outlines.tiles else None
            corner, valid = corners.get(image_id), read_valid(image_id)
            yield score_tile(image_id, corner, labels, footprints, valid, pixel_size, looks_here)
