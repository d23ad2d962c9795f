"""Does it help to learn on the optical tiles first? Radar alone against optical first, at the same radar steps.

    python -m benchmarks.optical_first            (--help tells its keys)

Both sides train the quickstart's network for the same number of radar epochs on the same tiles with the same seed;
one of them has trained on the optical tiles before. A stopped benchmark goes on.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table

from sn6.door import enter


def optical_first(
    root: Annotated[Path, "an archive; a small simulated one is made there if it is missing"] = Path(
        "outputs/simulated_archive"
    ),
    out: Annotated[Path, "folder of the runs"] = Path("outputs/optical_first"),
    seeds: Annotated[int, "runs of each side"] = 3,
    epochs: Annotated[int, "of radar, on both sides"] = 12,
    optical_epochs: Annotated[int, "before them, on one side"] = 6,
) -> None:
    """Trains `seeds` pairs of runs and prints their polygon F1 on the test tiles, with the spread."""
    sides: dict[str, list[float]] = {"radar alone": [], "optical first": []}
    for seed in range(seeds):
        common = [f"data.root={root}", f"seed={seed}"]
        radar = f"'data=sar','trainer.max_epochs={epochs}'"
        handoff = "'callbacks.sar_handoff.weights=${run_folder}/eo'"
        optical = f"stages.eo=['data=eo','trainer.max_epochs={optical_epochs}']"
        first = train(out / f"optical_first_{seed}", [*common, optical, f"stages.sar=[{radar},{handoff}]"])
        alone = train(out / f"radar_alone_{seed}", [*common, "~stages.eo", f"stages.sar=[{radar}]"])
        sides["optical first"].append(first["f1"])
        sides["radar alone"].append(alone["f1"])
    columns = [f"seed {seed}" for seed in range(seeds)]
    table = Table("start", *columns, "mean", "deviation", title="polygon F1, test tiles")
    for side, scores in sides.items():
        deviation = statistics.stdev(scores) if len(scores) > 1 else float("nan")
        table.add_row(side, *(f"{f1:.3f}" for f1 in scores), f"{statistics.mean(scores):.3f}", f"{deviation:.3f}")
    Console().print(table)
    gains = [first - alone for first, alone in zip(sides["optical first"], sides["radar alone"], strict=True)]
    print(f"optical first gains {statistics.mean(gains):+.3f} on average; seed by seed {[round(g, 3) for g in gains]}")


def train(folder: Path, words: list[str]) -> dict[str, float]:
    """One quickstart in a process of its own; its metrics."""
    command = [sys.executable, "-m", "sn6.run", "experiment=quickstart", f"hydra.run.dir={folder}", *words]
    subprocess.run(command, check=True)
    return json.loads((folder / "metrics.json").read_text())


if __name__ == "__main__":
    enter(optical_first, "benchmarks.optical_first")
