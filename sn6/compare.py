"""`python -m sn6.compare RUN RUN ...`: compare finished runs on the same test tiles."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from sn6.cli import WithoutKey, run_command
from sn6.errors import counted
from sn6.files import write_csv, write_text

RUN_COLUMNS = ("group", "run", "seed", "f1", "precision", "recall", "touching_f1", "alone_f1", "iou")


def compare(
    runs: Annotated[
        list[Path],
        Field(min_length=1),
        WithoutKey(),
        "folders of runs or sweeps, typed one after another; the first run is what the others are compared with",
    ],
    out: Annotated[Path, "folder for the tables and the figure"] = Path("outputs/comparison"),
) -> None:
    """Compare the scores of finished runs on the same test tiles, and say which differences are more than chance.

    Runs that differ in their seed only are a group: its mean, standard deviation and number of seeds are shown. A
    difference is that of the means of two groups, on the same resampled squares of 450 m of ground; its 95% interval
    tells how it depends on the ground, the standard deviation how a score depends on the seed.

    Writes comparison.md, comparison.tex, runs.csv (a row for each run) and comparison.png to `out`.

    Raises:
        UserError: a folder is no finished run, or the runs were scored on different tiles
    """
    from sn6.metrics.breakdown import spatial_blocks
    from sn6.metrics.comparison import BLOCK_SIZE, as_latex, as_markdown, comparison_table
    from sn6.plots.run_comparison import run_comparison_figure
    from sn6.plots.tiles import save_figure
    from sn6.sweeps.compared_runs import find_runs, group_runs, read_run
    from sn6.sweeps.comparison import SEED

    folders = dict.fromkeys(folder for path in runs for folder in find_runs(path))
    groups = group_runs([read_run(folder) for folder in folders])
    first = next(iter(groups.values()))[0]
    blocks = spatial_blocks(first.corners, BLOCK_SIZE)
    results = {label: [run.result for run in group] for label, group in groups.items()}
    rows = comparison_table(results, blocks)
    write_text(out / "comparison.md", as_markdown(rows))
    write_text(out / "comparison.tex", as_latex(rows))
    of_runs = [(label, run) for label, group in groups.items() for run in group]
    write_csv(
        out / "runs.csv",
        RUN_COLUMNS,
        [
            [label, str(run.folder), run.config.get(SEED), *(run.result.test.get(key) for key in RUN_COLUMNS[3:])]
            for label, run in of_runs
        ],
    )
    save_figure(run_comparison_figure(results, blocks), out / "comparison.png")
    tiles = f"{counted(len(first.tiles), 'tile')} ({first.scored_on})"
    print(as_markdown(rows), end="")
    print(f"\n{counted(len(folders), 'run')} on {tiles}, {counted(int(blocks.max()) + 1, 'square')} of ground: {out}")


if __name__ == "__main__":
    run_command(compare, "sn6.compare")
