"""Select the tiles to draw: by name, by their number of buildings, or by their F1."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from sn6.datasets.declaration import DataSet, Split, Tile
from sn6.errors import UserError, counted
from sn6.footprints import Footprints
from sn6.metrics.matching import Counts, counted_area, match_tile
from sn6.progress import track

CRITERIA = ("even", "worst", "best")
T = TypeVar("T")


def find_tile(data_set: DataSet, name: str, split: Split | None) -> Tile:
    """Return the tile with an image id or a tile number, such as `3721` or `tile_3721`.

    A number is compared as it is written; only if there is no such tile, without leading zeros.

    Args:
        data_set: to search
        name: image id or number
        split: split to search; None for both

    Raises:
        UserError: there is no such tile, or there are several
    """
    requested = name.removeprefix("tile_")
    everywhere = [(image_id, where) for where in data_set.splits for image_id in sorted(data_set.products_of(where))]
    named = [tile for tile in everywhere if requested in (tile[0], number_of(tile[0]))]
    if not named and requested.isdecimal():
        named = [tile for tile in everywhere if int(number_of(tile[0])) == int(requested)]
    matches = [(image_id, where) for image_id, where in named if split in (None, where)]
    if len(matches) == 1:
        ((image_id, where),) = matches
        return data_set.tile(where, image_id)
    if matches:
        listed = ", ".join(f"{image_id} ({where})" for image_id, where in matches)
        message = f"tile={name} matches {len(matches)} tiles: {listed}; use the image id, and set split="
        raise UserError(message, kind="invalid_value", key="tile", value=name)
    if named:
        message = f"tile={name} is not in split={split} but in {named[0][1]}; leave out split="
        raise UserError(message, kind="not_found", key="tile", value=name)
    near = nearest([image_id for image_id, where in everywhere if split in (None, where)], requested)
    message = (
        f"unknown tile={name}: not in {split or 'train or test_public'} of {data_set.root}; "
        f"nearest tiles: {', '.join(near) or 'none'}"
    )
    raise UserError(message, kind="not_found", key="tile", value=name)


def number_of(image_id: str) -> str:
    """Return the number of a tile, as it is written."""
    return image_id.rpartition("_tile_")[2]


def nearest(image_ids: Sequence[str], requested: str) -> list[str]:
    """Return the three image ids with the nearest numbers, or the most similar ones to a text."""
    if requested.isdecimal():
        return sorted(image_ids, key=lambda image_id: abs(int(number_of(image_id)) - int(requested)))[:3]
    return difflib.get_close_matches(requested, image_ids, n=3, cutoff=0)


def choose_by_buildings(data_set: DataSet, tiles: Sequence[Tile], number: int) -> list[Tile]:
    """Return `number` of the tiles, evenly spread from many buildings to few."""
    counts = [len(data_set.labels(tile) or ()) for tile in with_progress(tiles)]
    return [tiles[index] for index in spread_by_buildings(counts, number)]


def spread_by_buildings(buildings: Sequence[int], number: int) -> list[int]:
    """Return the indices of `number` tiles, evenly spread from many buildings to few.

    Tiles without buildings are used only if there are no others.
    """
    counts = np.asarray(buildings)
    order = np.argsort(-counts, kind="stable")
    return evenly_spaced((order[counts[order] > 0] if counts.any() else order).tolist(), number)


def evenly_spaced(items: Sequence[T], number: int) -> list[T]:
    """Return `number` of the items at equal steps from the first to the last; all if there are fewer."""
    indices = np.linspace(0, len(items) - 1, min(number, len(items))).astype(int)
    return [items[index] for index in indices]


def choose_by_f1(
    data_set: DataSet, tiles: Sequence[Tile], proposals: Mapping[str, Footprints], criterion: str, number: int
) -> list[Tile]:
    """Return `number` of the tiles that have proposals: the worst or best by F1, or evenly from the best to the worst.

    Tiles without ground truth are left out, and so are tiles with neither buildings nor proposals. Where no ground
    truth is known, "even" is by the order of the tiles.

    Raises:
        UserError: none of the tiles has proposals, or there is no ground truth to find the worst or the best
    """
    with_proposals = [tile for tile in tiles if tile.image_id in proposals]
    if not with_proposals:
        message = (
            f"proposals= has no tile of {data_set.root}, only {summarise_tiles(proposals)}; "
            "use proposals for this archive, or another split="
        )
        raise UserError(message, kind="wrong_data", key="proposals")
    best_first = rank_by_f1(data_set, with_proposals, proposals)
    if criterion == "even":
        return evenly_spaced(best_first or with_proposals, number)
    if not best_first:
        message = f"tile={criterion} needs ground truth, and none of the tiles in proposals= has any; use tile=even"
        raise UserError(message, kind="conflict", key="tile", value=criterion)
    return (best_first if criterion == "best" else best_first[::-1])[:number]


def rank_by_f1(data_set: DataSet, tiles: Sequence[Tile], proposals: Mapping[str, Footprints]) -> list[Tile]:
    """Return the tiles with any counts, by decreasing F1, then fewest errors, then most true positives."""
    ranks = []
    for index, tile in enumerate(with_progress(tiles)):
        truth, proposed = data_set.labels(tile), proposals[tile.image_id]
        if truth is not None:
            smallest = counted_area(data_set.pixel_size)
            counts = match_tile(truth.polygons, proposed.polygons, proposed.confidences, smallest).counts
            if counts != Counts():
                ranks.append((-counts.f1, counts.fp + counts.fn, -counts.tp, index))
    return [tiles[index] for *_, index in sorted(ranks)]


def with_progress(tiles: Sequence[Tile]) -> Iterable[Tile]:
    """Iterate over the tiles and show the progress."""
    return track(tiles, f"reading labels of {counted(len(tiles), 'tile')}")


def summarise_tiles(proposals: Mapping[str, Footprints]) -> str:
    """Return the tiles of a file of proposals in a few words."""
    first, others = next(iter(proposals), "no tile"), len(proposals) - 1
    return f"{first} and {others} more" if others > 0 else first
