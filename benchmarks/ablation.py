"""Compare recipes that differ from `experiment=sn6 scale=small` in one thing, several seeds each.

python -m benchmarks.ablation            (--help lists its keys)
"""

from pathlib import Path
from typing import Annotated

from pydantic import PositiveInt

from benchmarks.recipes import Recipes, compare, known_rows
from sn6.cli import run_command

OURS = "ours"
SHARED = ("experiment=sn6", "scale=small", "data.store=disk", "data.fold=0")  # see benchmarks.heads for the fold
ROWS = {  # what differs → overrides
    "resunet": ("model=resunet",),
    "TernausNet with 16 filters": ("model=ternausnet",),
    "mask alone": ("heads=mask", "polygons=threshold"),
    "no augmentation": ("augmentation=none",),
    "weights not averaged": ("callbacks.ema.decay=null",),
    "twice the steps": ("trainer.max_epochs=12", "trainer.max_steps=3840", "trainer.check_val_every_n_epoch=6"),
    "optical first": ("stages={eo: ['data=eo'], sar: ['data=sar', 'callbacks.sar_handoff.weights=${run_folder}/eo']}",),
}


def ablation(
    root: Annotated[Path, "the archive; if it is missing, `medium` with seed 0 is simulated"] = Path(
        "outputs/medium_archive"
    ),
    out: Annotated[Path, "folder of the runs and the figure"] = Path("outputs/ablation"),
    weights: Annotated[Path | None, "ImageNet weights of tf_efficientnet_lite0; null leaves out their row"] = None,
    rows: Annotated[list[str] | None, "names of rows to compare with the first one; null is all rows"] = None,
    seeds: Annotated[PositiveInt, "runs of each recipe"] = 3,
    parallel: Annotated[PositiveInt, "runs at a time, which share the cores of the CPU"] = 2,
) -> None:
    """Train every recipe with every seed, and print the scores with their differences to `experiment=sn6`.

    Raises:
        UserError: a run failed, or there is no such row
    """
    recipes = recipes_of(weights)
    chosen = {name: recipes[name] for name in dict.fromkeys([OURS, *known_rows(recipes, rows, "rows")])}
    title = "experiment=sn6 scale=small and what differs from it"
    compare(chosen, root, out, seeds, parallel, title, averaged=(OURS,))


def recipes_of(weights: Path | None) -> Recipes:
    """Return the overrides of every row, the reference first."""
    rows = dict(ROWS)
    if weights is not None:
        rows["ImageNet weights"] = ("model.pretrained=imagenet", f"model.weights_file={weights.absolute()}")
    return {OURS: SHARED} | {name: (*SHARED, *overrides) for name, overrides in rows.items()}


if __name__ == "__main__":
    run_command(ablation, "benchmarks.ablation")
