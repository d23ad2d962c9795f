"""Measure the time and the memory of fusing thousands of tiles that see the same ground again and again.

    python -m benchmarks.revisits            (--help lists its keys)

The tiles are GDAL's virtual files, each with a place of its own, over a few radar tiles of a simulated archive: as many
as the public test tiles of the challenge, and as many looks at a point. A tiny network with random weights predicts
them, with and without `revisits=true`: the difference is the time of the fusion.
"""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import PositiveInt
from rich.console import Console
from rich.table import Table

from benchmarks.prediction import write_area, write_network
from benchmarks.process import Usage, measure_command
from sn6.cli import run_command
from sn6.datasets.spacenet6 import CRS, PIXEL, SpaceNet6
from sn6.simulation.archive import make_archive, settings_of

WEST, NORTH = 590_000.0, 5_750_000.0
SIZE = 900  # pixels


def revisits(
    folder: Annotated[Path, "folder for the files; its contents are replaced"] = Path("outputs/revisits"),
    root: Annotated[Path, "an archive for the texture; simulated if it is missing"] = Path("outputs/simulated_archive"),
    tiles: Annotated[PositiveInt, "number of tiles"] = 2061,
    looks: Annotated[PositiveInt, "tiles at each place"] = 14,
    processes: Annotated[PositiveInt, "of sn6.predict"] = 1,
) -> None:
    """Print seconds, seconds for each tile and the peak memory of a process, with and without fusion."""
    shutil.rmtree(folder, ignore_errors=True)
    if not root.exists():
        make_archive(root, settings_of(tiles=24))
    texture, checkpoint = folder / "texture.tif", folder / "weights.safetensors"
    write_area(texture, SpaceNet6(root), SIZE)
    write_network(checkpoint, 1, texture)
    write_tiles(folder / "tiles", texture, tiles, looks)
    table = Table("", "s", "s per tile", "GB", title=f"{tiles} tiles of {SIZE} × {SIZE}, {looks} looks, {processes} ×")
    command = [sys.executable, "-m", "sn6.predict", f"checkpoint={checkpoint}", f"images={folder}/tiles/*.vrt"]
    command += ["check_values=false", f"processes={processes}"]
    rows: dict[str, Usage] = {}
    for name, options in (
        ("each tile by itself", ["merge=false"]),
        ("all looks fused", ["revisits=true", "merge=true"]),
    ):
        out = folder / name.replace(" ", "_")
        rows[name] = used = measure_command([*command, *options, f"out={out}"])
        table.add_row(name, f"{used.seconds:.0f}", f"{used.seconds / tiles:.3f}", f"{used.peak / 1e9:.2f}")
    Console().print(table)


def write_tiles(folder: Path, texture: Path, tiles: int, looks: int) -> None:
    """Write the virtual files: `looks` at each place of a square grid, moved by up to an eighth of their size."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    columns = int(np.ceil(np.sqrt(tiles / looks)))
    for number in range(tiles):
        row, column = divmod(number // looks, columns)
        down, right = SIZE * np.array([row, column]) + rng.uniform(-SIZE / 8, SIZE / 8, 2)
        corner = float(WEST + PIXEL * right), float(NORTH - PIXEL * down)
        (folder / f"tile_{number}.vrt").write_text(virtual_file(texture.absolute(), corner))


def virtual_file(texture: Path, corner: tuple[float, float]) -> str:
    """Return the text of a file with the four bands of another, at a place of its own."""
    west, north = corner
    bands = "".join(
        f'<VRTRasterBand dataType="Float32" band="{band}"><NoDataValue>0</NoDataValue><SimpleSource>'
        f"<SourceFilename>{texture}</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band in range(1, 5)
    )
    return (
        f'<VRTDataset rasterXSize="{SIZE}" rasterYSize="{SIZE}"><SRS>{CRS}</SRS>'
        f"<GeoTransform>{west!r}, {PIXEL}, 0, {north!r}, 0, {-PIXEL}</GeoTransform>{bands}</VRTDataset>"
    )


if __name__ == "__main__":
    run_command(revisits, "benchmarks.revisits")
