"""`python -m sn6.simulate root=... tiles=...`: make an archive of a simulated city in SpaceNet 6 format."""

import shlex
from pathlib import Path
from typing import Annotated

from sn6.cli import run_command
from sn6.errors import counted
from sn6.simulation.archive import Passes, Scale, Seed, TestTileCount, TileCount, TileSize, make_archive, settings_of


def simulate(
    root: Annotated[Path, "folder to write, created if missing; an interrupted run resumes"],
    scale: Annotated[
        Scale,
        "tiny: 12+4 tiles of 256 pixels, for tests; small: 24+6 of 900 pixels; medium: 96+128; full: 3401+2061, as "
        "published",
    ] = "small",
    tiles: Annotated[TileCount | None, "training tiles, at least 1; null: by the scale"] = None,
    test_tiles: Annotated[TestTileCount | None, "test tiles; their ground truth is in test_public_truth/"] = None,
    seed: Annotated[Seed, "another seed gives another city"] = 0,
    size: Annotated[
        TileSize | None, "edge length of a tile in pixels of 0.5 m: even, 64 to 1800; null: by the scale"
    ] = None,
    passes: Annotated[
        Passes | None, "strips over the same ground from each of the two sides, 1 to 16; null: three in all"
    ] = None,
) -> None:
    """Simulate an archive of a port city in SpaceNet 6 format, with the published folders and file names.

    The same settings give the same bytes. An interrupted run resumes when the same command is run again.

    Raises:
        UserError: a `root` that contains something else or cannot be written
    """
    settings = settings_of(scale=scale, tiles=tiles, test_tiles=test_tiles, seed=seed, size=size, passes=passes)
    footprints = make_archive(root, settings)
    contents = f"{counted(settings['tiles'], 'training tile')}, {counted(settings['test_tiles'], 'test tile')}"
    result = "complete, nothing to do" if footprints is None else counted(footprints, "footprint")
    print(f"{root}: {contents}, {result}")
    print(f"train on them: python -m sn6.run data.root={shlex.quote(str(root))}")


if __name__ == "__main__":
    run_command(simulate, "sn6.simulate")
