"""Which tiles to look at: by name, by their buildings, or by how well they were predicted."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from sn6.datasets.archive import Archive, Tile
from sn6.datasets.layout import SPLIT_NAMES, Split
from sn6.errors import UserError
from sn6.footprints import Footprints
from sn6.metrics.matching import Counts, match_tile

CHOICES = ("even", "worst", "best")
T = TypeVar("T")


def find_tile(archive: Archive, name: int | str, split: Split | None) -> Tile:
    """The tile of an image id or of a tile number, `3721` or `tile_3721`.

    Args:
        archive: to look in
        name: of the tile
        split: to look in; None for both

    Raises:
        UserError: there is none, with those that are near, or there are several
    """
    wanted = str(name).removeprefix("tile_")
    everywhere = [(image_id, where) for where in SPLIT_NAMES for image_id in sorted(archive.products(where))]
    named = [(image_id, where) for image_id, where in everywhere if wanted in (image_id, number_of(image_id))]
    found = [(image_id, where) for image_id, where in named if split in (None, where)]
    if len(found) == 1:
        ((image_id, where),) = found
        return archive.tile(where, image_id)
    if found:
        listed = ", ".join(f"{image_id} ({where})" for image_id, where in found)
        raise UserError(f"tile={name} is {len(found)} tiles: {listed}; give the image id, and split=")
    if named:
        raise UserError(f"tile={name} is not in {split} but in {named[0][1]}; leave split= out")
    near = nearest(wanted, [image_id for image_id, where in everywhere if split in (None, where)])
    raise UserError(
        f"{archive.root} has no tile {name} in {split or 'train or test_public'}; near it: {', '.join(near) or 'none'}"
    )


def number_of(image_id: str) -> str:
    """The tile's number, as it is written."""
    return image_id.rpartition("_tile_")[2]


def nearest(wanted: str, image_ids: Sequence[str]) -> list[str]:
    """The three image ids of the nearest numbers, or of the most alike spelling where `wanted` is no number."""
    if wanted.isdecimal():
        return sorted(image_ids, key=lambda image_id: abs(int(number_of(image_id)) - int(wanted)))[:3]
    return difflib.get_close_matches(wanted, image_ids, n=3, cutoff=0)


def choose_by_buildings(archive: Archive, tiles: Sequence[Tile], number: int) -> list[Tile]:
    """`number` of the tiles, evenly spread from many buildings to few."""
    counts = [len(archive.labels(tile) or ()) for tile in looked_at(tiles)]
    return [tiles[index] for index in spread_by_buildings(counts, number)]


def spread_by_buildings(buildings: Sequence[int], number: int) -> list[int]:
    """The indices of `number` tiles, evenly spread from many buildings to few.

    Tiles without buildings are chosen only where there are no others.
    """
    counts = np.asarray(buildings)
    order = np.argsort(-counts, kind="stable")
    return evenly((order[counts[order] > 0] if counts.any() else order).tolist(), number)


def evenly(items: Sequence[T], number: int) -> list[T]:
    """`number` of the items at equal steps from the first to the last; all where there are no more."""
    places = np.linspace(0, len(items) - 1, min(number, len(items))).astype(int)
    return [items[place] for place in places]


def choose_by_f1(
    archive: Archive, tiles: Sequence[Tile], proposed: Mapping[str, Footprints], choice: str, number: int
) -> list[Tile]:
    """`number` of the tiles that the proposals name: the worst or best by F1, or evenly from the best to the worst.

    Tiles without truth, or without buildings and proposals, are left out; where no truth is known, `even` is by the
    tiles' order.

    Raises:
        UserError: the proposals name none of the tiles, or no truth is known to tell the worst or the best
    """
    named = [tile for tile in tiles if tile.image_id in proposed]
    if not named:
        raise UserError(
            f"the proposals name no tile of {archive.root} but {named_by(proposed)}; give those of this archive"
        )
    best_first = rank_by_f1(archive, named, proposed)
    if choice == "even":
        return evenly(best_first or named, number)
    if not best_first:
        raise UserError(f"tile={choice} is by F1, and no truth is known of the tiles that are named; give tile=even")
    return (best_first if choice == "best" else best_first[::-1])[:number]


def rank_by_f1(archive: Archive, tiles: Sequence[Tile], proposed: Mapping[str, Footprints]) -> list[Tile]:
    """The tiles with something to count: the best F1 first, of equal ones the fewest errors, then the most hits."""
    ranks = []
    for place, tile in enumerate(looked_at(tiles)):
        truth, found = archive.labels(tile), proposed[tile.image_id]
        if truth is not None:
            counts = match_tile(truth.polygons, found.polygons, found.confidences).counts
            if counts != Counts():
                ranks.append((-counts.f1, counts.fp + counts.fn, -counts.tp, place))
    return [tiles[place] for *_, place in sorted(ranks)]


def looked_at(tiles: Sequence[Tile]) -> Iterable[Tile]:
    """The tiles, with a progress bar."""
    return track(tiles, f"looking at {len(tiles)} tiles", console=Console(stderr=True), transient=True)


def named_by(proposed: Mapping[str, Footprints]) -> str:
    """The tiles that a file names, in a few words."""
    first, others = next(iter(proposed), "none at all"), len(proposed) - 1
    return first if others < 0 else f"{first} alone" if others == 0 else f"{first} and {others} more"
