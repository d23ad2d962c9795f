"""Make a simulated archive in SpaceNet 6 format from its settings."""

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from sn6.datasets.declaration import Split
from sn6.errors import DISK_FULL, UserError, counted
from sn6.files import exclusive_lock, require_disk_space, shown_size, visible, write_text
from sn6.processes import in_processes
from sn6.progress import duration, track
from sn6.simulation.archive_files import is_complete, missing_products, write_labels, write_tile
from sn6.simulation.scene import Scene
from sn6.simulation.strips import PlannedTile, harbour_basins, plan_tiles
from sn6.simulation.tile import Footprint

VERSION = 4  # to be increased whenever the same settings give other files
Scale = Literal["tiny", "small", "medium", "full"]
TileCount = Annotated[int, Field(ge=1)]
TestTileCount = Annotated[int, Field(ge=0)]
Passes = Annotated[int, Field(ge=1, le=16)]
Seed = Annotated[int, Field(ge=0)]
# Pixels: 64 are the smallest tile that contains a building, 1800 the largest of which a few fit into the area.
TileSize = Annotated[int, Field(ge=64, le=1800, multiple_of=2)]

SCALES: dict[Scale, dict[str, int]] = {
    "tiny": {"tiles": 12, "test_tiles": 4, "size": 256},  # tests
    "small": {"tiles": 24, "test_tiles": 6, "size": 900},  # a first look
    "medium": {"tiles": 96, "test_tiles": 128, "size": 900},  # comparisons
    "full": {"tiles": 3401, "test_tiles": 2061, "size": 900},  # as published
}
Settings = dict[str, Any]  # version, tiles, test_tiles, seed, size, passes
CACHE = ".sn6"  # folder in the archive; its files are no part of it
METADATA_FILE = "simulation.json"  # of an archive: its settings
# Measured on an archive of `medium`, on one core of an AMD EPYC.
BYTES_PER_PIXEL: dict[Split, float] = {"train": 13.5, "test_public": 6.3}
SECONDS_PER_PIXEL = 6e-6
MIN_PIXELS_FOR_POOL = 3_000_000  # of all tiles; fewer are rendered before other processes have started


def settings_of(
    scale: Scale = "small",
    tiles: TileCount | None = None,
    test_tiles: TestTileCount | None = None,
    seed: Seed = 0,
    size: TileSize | None = None,
    passes: Passes | None = None,
) -> Settings:
    """Return the settings of an archive, with the numbers of its scale where none is given.

    The types state the valid values; `sn6.cli.validate_arguments` checks them.

    Args:
        scale: name of a set of numbers
        tiles: training tiles
        test_tiles: test tiles
        seed: of all random numbers
        size: pixels of 0.5 m on each side of a tile
        passes: strips over the same ground from each look direction
    """
    given = {"tiles": tiles, "test_tiles": test_tiles, "size": size}
    numbers = SCALES[scale] | {key: value for key, value in given.items() if value is not None}
    return {
        "version": VERSION,
        "tiles": numbers["tiles"],
        "test_tiles": numbers["test_tiles"],
        "seed": seed,
        "size": numbers["size"],
        "passes": passes,
    }


def make_archive(root: Path, settings: Settings) -> int | None:
    """Write the missing files of an archive; several processes may do so at once, of which one writes.

    Args:
        root: folder of the archive, made if missing
        settings: as `settings_of` returns them

    Returns:
        The number of footprints, or None if no file was missing.

    Raises:
        UserError: `root` contains something else, cannot be written, or its disk is too small
    """
    tiles = plan_tiles(**{key: value for key, value in settings.items() if key != "version"})
    try:
        if is_made_with(root, settings) and is_complete(root, tiles):  # needs no lock, so `root` may be read-only
            return None
        advice = "free some space, choose another root=, or set fewer tiles="
        require_disk_space(root, size_of(root, tiles), "the archive", advice)
        root.mkdir(parents=True, exist_ok=True)
        if not (root / CACHE).exists():
            check_empty(root, settings)  # nothing is written to a folder with other files
        (root / CACHE).mkdir(exist_ok=True)
        with exclusive_lock(root / CACHE / "simulation.lock", f"makes the simulated archive {root}"):
            claim(root, settings)
            return None if is_complete(root, tiles) else write_archive(root, settings, tiles)
    except OSError as error:
        if error.errno in DISK_FULL:  # the folder is fine
            raise
        raise UserError(
            f"cannot write root={root} ({error}); choose another folder, or change its permissions",
            kind="unwritable",
            key="root",
            value=root,
        ) from None


def is_made_with(root: Path, settings: Settings) -> bool:
    """Return whether `root` is an archive of these settings, complete or not."""
    metadata = root / METADATA_FILE
    return metadata.exists() and metadata.read_text() == json.dumps(settings)


def is_simulated(root: Path) -> bool:
    """Return whether the archive at `root` was simulated."""
    return (root / METADATA_FILE).exists()


def claim(root: Path, settings: Settings) -> None:
    """Write the settings to an empty folder, or check that they are the same.

    Raises:
        UserError: the folder contains another archive or other files
    """
    if not is_made_with(root, settings):
        check_empty(root, settings)
        write_text(root / METADATA_FILE, json.dumps(settings))


def check_empty(root: Path, settings: Settings) -> None:
    """Raise a UserError if the folder contains an archive of other settings or other files."""
    metadata, wanted = root / METADATA_FILE, json.dumps(settings)
    if is_made_with(root, settings) or not visible(root):
        return
    if metadata.exists():
        problem = f"contains a simulated archive of other settings, {metadata.read_text()[:200]} instead of {wanted}"
        advice = "choose another folder, or remove it"
    else:
        problem, advice = "contains files that are no simulated archive", "choose another folder"
    raise UserError(f"root={root} {problem}; {advice}", kind="conflict", key="root", value=root)


def size_of(root: Path, tiles: list[PlannedTile]) -> int:
    """Return about how many bytes the images have that are not written yet."""
    missing = (tile for tile in tiles if missing_products(root, tile))
    return round(sum(BYTES_PER_PIXEL[tile.strip.split] * tile.size**2 for tile in missing))


def write_archive(root: Path, settings: Settings, tiles: list[PlannedTile]) -> int:
    """Write the missing images and all labels; return the number of footprints."""
    # Small tiles cover little ground, so the city is denser for them: tiles of any size have some buildings.
    density = min(max(900 / settings["size"], 1.0), 4.0)
    scene = Scene(settings["seed"], density, harbour_basins(tiles))
    missing = sum(tile.size**2 for tile in tiles if missing_products(root, tile))
    seconds = duration(missing * SECONDS_PER_PIXEL / (os.cpu_count() or 1))
    name = f"simulating {counted(len(tiles), 'tile')}, {shown_size(size_of(root, tiles))}, about {seconds}"
    labels = track(write_tiles(root, scene, tiles), name, len(tiles))
    return write_labels(root, tiles, labels)


def write_tiles(root: Path, scene: Scene, tiles: list[PlannedTile]) -> Iterator[list[Footprint]]:
    """Write the missing images of each tile, in several processes if there are many; yield the labels in order."""
    is_worth_it = sum(tile.size**2 for tile in tiles) >= MIN_PIXELS_FOR_POOL
    return in_processes(partial(write_tile, root, scene), tiles, is_worth_it)
