"""Compare radar networks from scratch with those that learn from optical tiles first, where radar tiles are few.

All take the same number of steps in all: half of those with the optical tiles are optical. All training tiles have an
optical image, a fraction of them a radar image. `half the steps` is what the radar stage reaches without the optical
one: it separates what the optical weights give from what their steps cost. The other rows change what may go wrong when
the weights change hands: the learning rate, the first layer and its statistics, the last layers. All of them start from
the same optical network of their seed, whose CPU seconds are not in the tables.

python -m benchmarks.optical             (--help lists its keys)
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt

from benchmarks.recipes import Recipes, compare, folder_of, known_rows, run_all
from sn6.cli import run_command

SHARED = ("experiment=sn6", "scale=small", "model=resunet", "data.fold=0", "data.store=disk")
OPTICAL = "optical network"
CROPS_PER_TILE = 20  # with all tiles: an epoch is as long with fewer of them
EPOCHS = 6
CHANGES = {  # what differs in the radar stage after an optical one → overrides
    "optical first": (),
    "a third of the learning rate": ("optimizer.lr=3e-4",),
    "three times the learning rate": ("optimizer.lr=3e-3",),
    "last layers anew": ("callbacks.sar_handoff.reset_head=true",),
}
Fraction = Annotated[float, Field(gt=0, le=1)]


def optical(
    root: Annotated[Path, "the archive; if it is missing, `medium` with seed 0 is simulated"] = Path(
        "outputs/medium_archive"
    ),
    out: Annotated[Path, "folder of the runs and the figures"] = Path("outputs/optical"),
    fractions: Annotated[tuple[Fraction, ...], "of the radar tiles that train; each has a table"] = (0.25, 0.1),
    steps: Annotated[int, Field(ge=2 * EPOCHS), "of each run, those with the optical tiles included"] = 1920,
    changes: Annotated[list[str] | None, "names of rows after an optical stage; null is all rows"] = None,
    seeds: Annotated[PositiveInt, "runs of each recipe"] = 3,
    parallel: Annotated[PositiveInt, "runs at a time, which share the cores of the CPU"] = 2,
) -> None:
    """Train with each fraction from scratch and after an optical stage, and print the scores with their differences.

    Raises:
        UserError: a run failed, or there is no such row
    """
    names = known_rows(CHANGES, changes, "changes")
    run_all({OPTICAL: (*SHARED, "data=eo", *length(steps // 2))}, root, out, seeds, parallel)
    for fraction in fractions:
        title = f"radar on {fraction:.0%} of the tiles, {steps} steps in all"
        recipes = recipes_of(fraction, steps, names, out)
        compare(recipes, root, out / f"{fraction:g}", seeds, parallel, title)


def recipes_of(fraction: float, steps: int, changes: Iterable[str], out: Path) -> Recipes:
    """Return the overrides of every row, the reference first; the optical networks are in `out`."""
    few = (f"data.train_fraction={fraction}", f"data.crops_per_tile={round(CROPS_PER_TILE / fraction)}")
    radar_only = {
        "radar only": (*SHARED, *few, *length(steps)),
        "half the steps": (*SHARED, *few, *length(steps // 2)),
    }
    optical_weights = f"callbacks.sar_handoff.weights={folder_of(out.absolute(), OPTICAL)}/seed_${{seed}}"
    after_optical = (*SHARED, *few, *length(steps // 2), optical_weights)
    return radar_only | {name: (*after_optical, *CHANGES[name]) for name in changes}


def length(steps: int) -> tuple[str, str]:
    """Return the overrides for a number of steps in a stage."""
    return f"trainer.max_steps={steps}", f"trainer.limit_train_batches={steps // EPOCHS}"


if __name__ == "__main__":
    run_command(optical, "benchmarks.optical")
