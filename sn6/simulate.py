"""`python -m sn6.simulate root=... tiles=...`: an archive of a made-up city in the form of SpaceNet 6."""

import json
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console
from rich.progress import track

from sn6.cli import run_command
from sn6.errors import UserError
from sn6.files import write_text
from sn6.processes import in_processes
from sn6.simulation.scene import Scene
from sn6.simulation.strips import Tile, basins_of, plan
from sn6.simulation.tile import Footprint
from sn6.simulation.writing import is_whole, write_labels, write_tile

VERSION = 2  # to be raised whenever the same settings give other files
Scale = Literal["tiny", "small", "medium", "full"]
SCALES: dict[Scale, dict[str, int]] = {
    "tiny": {"tiles": 12, "test_tiles": 4, "size": 256},  # tests
    "small": {"tiles": 24, "test_tiles": 6, "size": 900},  # a first look
    "medium": {"tiles": 96, "test_tiles": 32, "size": 900},  # comparisons
    "full": {"tiles": 3401, "test_tiles": 2061, "size": 900},  # as published
}
SIZES = (64, 1800)  # pixels: the smallest that holds a building and the largest of which a few fit into the area
FEW = 3_000_000  # pixels of tiles that one process makes sooner than others start


def simulate(
    root: Annotated[Path, "folder to write; made if missing, and gone on with where a run stopped"],
    scale: Annotated[
        Scale,
        "12+4 tiles of 256 pixels for tests, 24+6 or 96+32 of 900 pixels, or 3401+2061 as published",
    ] = "small",
    tiles: Annotated[int | None, "training tiles, 1 or more; null: by the scale"] = None,
    test_tiles: Annotated[int | None, "test tiles, 0 or more; their truth lies in test_public_truth/"] = None,
    seed: Annotated[int, "0 or more; another seed is another city"] = 0,
    size: Annotated[int | None, "pixels of 0.5 m on each side of a tile, even; 900 as published"] = None,
) -> None:
    """Writes an archive of a made-up city, in the form of SpaceNet 6 to the last file name.

    The same settings give the same bytes. A run that was stopped goes on where it stopped.

    Raises:
        UserError: settings out of range, or a `root` that holds something else
    """
    settings = settings_of(scale, tiles, test_tiles, seed, size)
    footprints = make_archive(root, settings)
    made = f"{footprints} footprints" if footprints is not None else "all that belongs to them: nothing to do"
    print(f"{root}: {settings['tiles']} training tiles and {settings['test_tiles']} test tiles with {made}")
    print(f"train on them: python -m sn6.run data.root={shlex.quote(str(root))}")


def settings_of(
    scale: Scale = "small",
    tiles: int | None = None,
    test_tiles: int | None = None,
    seed: int = 0,
    size: int | None = None,
) -> dict[str, int]:
    """What an archive is made by, with the numbers of its scale where none is given. Arguments: as `simulate`.

    Raises:
        UserError: no archive can be made so
    """
    given = {"tiles": tiles, "test_tiles": test_tiles, "size": size}
    chosen = SCALES[scale] | {key: value for key, value in given.items() if value is not None}
    check_settings(chosen["tiles"], chosen["test_tiles"], seed, chosen["size"])
    return {
        "version": VERSION,
        "tiles": chosen["tiles"],
        "test_tiles": chosen["test_tiles"],
        "seed": seed,
        "size": chosen["size"],
    }


def make_archive(root: Path, settings: dict[str, int]) -> int | None:
    """Writes the files that are not there yet; gives the number of footprints, or None where nothing was missing.

    Raises:
        UserError: `root` holds something else, or cannot be written to
    """
    tiles, size, seed = settings["tiles"], settings["size"], settings["seed"]
    try:
        claim(root, settings)
        planned = plan(tiles, settings["test_tiles"], size, seed)
        if is_whole(root, planned):
            return None
        scene = Scene(seed, density=min(max(900 / size, 1.0), 4.0), basins=basins_of(planned))
        made = track(
            written(root, scene, planned),
            f"simulating {len(planned)} tiles",
            total=len(planned),
            console=Console(stderr=True),
            transient=True,
        )
        return write_labels(root, planned, made)
    except OSError as error:
        raise UserError(f"root={root} cannot be written to ({error}); free it or choose another folder") from None


def check_settings(tiles: int, test_tiles: int, seed: int, size: int) -> None:
    """Raises a UserError for what no archive can be made of."""
    for key, value, least in (("tiles", tiles, 1), ("test_tiles", test_tiles, 0), ("seed", seed, 0)):
        if value < least:
            raise UserError(f"{key}={value} does not do; give {least} or more")
    smallest, largest = SIZES
    if size % 2 or not smallest <= size <= largest:
        raise UserError(f"size={size} does not do; give an even number of pixels from {smallest} to {largest}")


def claim(root: Path, settings: dict[str, int]) -> None:
    """Makes `root` the folder of the archive of these settings, or finds that it is so already.

    Raises:
        UserError: it holds something else
    """
    card = root / "simulation.json"
    text = json.dumps(settings)
    if card.exists():
        if card.read_text() != text:
            raise UserError(
                f"root={root} holds another simulated archive, {card.read_text()[:200]}, not {text}; "
                "choose another folder or remove it"
            )
    elif root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"root={root} holds something that is no simulated archive; choose another folder")
    else:
        write_text(card, text)


def written(root: Path, scene: Scene, tiles: list[Tile]) -> Iterator[list[Footprint]]:
    """Writes the images of each tile; gives the labels in order."""
    is_worth_it = sum(tile.size**2 for tile in tiles) >= FEW
    return in_processes(partial(write_tile, root, scene), tiles, is_worth_it)


if __name__ == "__main__":
    run_command(simulate, "sn6.simulate")
