"""`python -m sn6.statistics root=...`: the values of an archive beside the published ones, in a table and a picture."""

from pathlib import Path
from typing import Annotated

import numpy as np
from rich.console import Console
from rich.progress import track

from sn6.cli import run_command
from sn6.errors import UserError


def statistics(
    root: Annotated[Path, "folder of the archive"],
    tiles: Annotated[int, "most training tiles to read, taken evenly; 1 or more"] = 200,
    out: Annotated[Path, "the picture, a .png"] = Path("outputs/statistics.png"),
) -> None:
    """Holds an archive, simulated or real, against what is published of SpaceNet 6.

    The table: percentiles, mean and deviation of the four polarisations over valid pixels (the percentiles agree
    within 2.5 dB), the share of nodata (10 to 18% agree), label rows a tile, and the optical values. The picture: the
    tile with the most buildings in the four polarisations, their histograms with the published percentiles, and its
    footprints on the optical image.

    Raises:
        UserError: no archive, no radar tile, or an `out` that is no .png
    """
    if tiles < 1:
        raise UserError(f"tiles={tiles} does not do; give 1 or more")
    if out.suffix.lower() != ".png" or out.is_dir():
        raise UserError(f"out={out} is no name of a picture; let it end in .png")
    from sn6.datasets.archive import Archive
    from sn6.inspection.published_comparison import compare, comparison_figure, measure_tiles, table_of
    from sn6.plots.tiles import save_figure

    archive = Archive(root)
    found = archive.tiles("train", "SAR-Intensity")
    chosen = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, min(tiles, len(found))).astype(int))]
    console = Console(stderr=True)
    measured = measure_tiles(archive, track(chosen, "reading tiles", console=console, transient=True))
    if measured.sar.valid_pixels == 0:
        raise UserError(f"the {len(chosen)} tiles of {root} hold nodata alone; give tiles= more")
    rows = compare(measured)
    shown = max(chosen, key=lambda tile: len(archive.labels(tile) or ()))
    save_figure(comparison_figure(archive, shown, measured.sar, archive.labels(shown)), out)
    Console().print(table_of(rows))
    asked = [row.agrees for row in rows if row.agrees is not None]
    print(f"{sum(asked)} of {len(asked)} agree, over {len(chosen)} of {len(found)} training tiles; the picture: {out}")


if __name__ == "__main__":
    run_command(statistics, "sn6.statistics")
