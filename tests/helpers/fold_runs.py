"""Finished runs of the five folds of an archive, whose networks scale the first band and were not trained."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml

from helpers.bright import MEAN, STD
from helpers.training import make_datamodule
from sn6.config.composition import compose_values, composing
from sn6.files import write_csv

ALLOW = "allow=helpers.bright.FirstBand"
WEIGHTS = (1.0, 0.6, 1.4, 0.3, 2.5)  # of the networks of the folds: logits are WEIGHT * (first band - MEAN) / STD
THRESHOLDS = (0.5, 0.65, 0.8)


def write_fold_runs(root: Path, folder: Path) -> Path:
    """Write `outputs/cv` below `folder` as a sweep over data.fold leaves it, as far as scoring reads it."""
    outputs = folder / "outputs/cv"
    for fold in range(5):
        write_run(root, outputs / f"data.fold-{fold}", fold)
    return outputs


def write_run(root: Path, folder: Path, fold: int) -> None:
    """Write config, inputs, checkpoint, table of the validation tiles and metrics of a run."""
    from sn6.training.run_inputs import write_inputs
    from sn6.training.run_paths import portable

    candidates = f"callbacks.calibration.candidates={{threshold:{list(THRESHOLDS)},min_area:[20]}}".replace(" ", "")
    overrides = [f"data.root={root}", f"data.fold={fold}", "model=unet", candidates, "trainer.precision=32-true"]
    names = {"name": f"cv/{folder.name}", "group": "cv", "folder": str(folder), "run_folder": str(folder)}
    with composing():
        config = compose_values(overrides, **names)
    config["model"] = {"_target_": "helpers.bright.FirstBand", "in_channels": 4, "classes": 1, "multiple": 1}
    data = make_datamodule(root, fold=fold, mean=[MEAN] * 4, std=[STD] * 4)
    data.setup()
    checkpoint = {
        "state_dict": {"network.weight": torch.tensor([WEIGHTS[fold]])},
        "hyper_parameters": {"config": config},
        "TileDataModule": data.state_dict(),
        "callbacks": {"PolygonF1": {"scores": {}, "polygons": config["polygons"] | {"threshold": 0.1 + fold / 10}}},
        "epoch": 0,
    }
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(checkpoint, folder / "checkpoints/best.ckpt")
    write_inputs(folder, config, resumes=False)
    (folder / "config.yaml").write_text(yaml.safe_dump(portable(config)))
    write_csv(folder / "validation_tiles.csv", ["image_id"], [[tile.image_id] for tile in data.fold.validation])
    done: dict[str, Any] = {name: {"f1": 0.0} for name in ("test", "validation", "operating_point")}
    (folder / "metrics.json").write_text(json.dumps(done))


def change_config(folder: Path, **changes: Any) -> None:
    """Change values of the config.yaml of a run: `data__partition="blocks"` is data.partition."""
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        *nodes, last = key.split("__")
        node = config
        for name in nodes:
            node = node[name]
        node[last] = value
    path.write_text(yaml.safe_dump(config))
