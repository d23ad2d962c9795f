"""Compare heads that separate touching buildings with the mask alone: same network, same steps, several seeds.

python -m benchmarks.heads            (--help lists its keys)
"""

from pathlib import Path
from typing import Annotated

from pydantic import PositiveInt

from benchmarks.recipes import compare
from sn6.cli import run_command

SHARED = (
    "model=resunet",
    "loss=focal_dice",
    "schedule=cosine",
    "optimizer.lr=1e-3",
    "data.crop=256",
    "data.crops_per_tile=4",
    "data.batch_size=4",
    "data.store=disk",
    "data.prefer_buildings=0.5",
    # The default, fold 4, drops the nine tiles of the dense centre, with a third of all buildings that touch others:
    # 2263 are left in the training tiles, with fold 0 4091 of 4847.
    "data.fold=0",
    "callbacks.ema.decay=0.99",
)
RECIPES = {
    "mask": ("heads=mask", "polygons=threshold"),
    "instances": ("heads=instances", "polygons=watershed"),
    "distance": ("heads=distance", "polygons=distance"),
}


def heads(
    root: Annotated[Path, "the archive; if it is missing, `medium` with seed 0 is simulated"] = Path(
        "outputs/medium_archive"
    ),
    out: Annotated[Path, "folder of the runs and the figure"] = Path("outputs/heads"),
    seeds: Annotated[PositiveInt, "runs of each recipe"] = 3,
    epochs: Annotated[PositiveInt, "of 4 crops of each training tile; the last one is validated"] = 41,
    parallel: Annotated[PositiveInt, "runs at a time, which share the cores of the CPU"] = 2,
) -> None:
    """Train every choice of heads with every seed, and print F1 of touching and of lone buildings."""
    length = (f"trainer.max_epochs={epochs}", f"trainer.check_val_every_n_epoch={epochs}")
    recipes = {name: (*SHARED, *length, *overrides) for name, overrides in RECIPES.items()}
    compare(recipes, root, out, seeds, parallel, f"ResUNet, {epochs} epochs of 4 crops of 256 pixels of each tile")


if __name__ == "__main__":
    run_command(heads, "benchmarks.heads")
