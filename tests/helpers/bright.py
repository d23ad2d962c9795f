"""An archive whose first band shows the buildings, and a network that reads it: scores that need no training."""

from pathlib import Path

import numpy as np
import rasterio
import torch
from torch import Tensor, nn

from sn6.datasets.declaration import Tile
from sn6.datasets.spacenet6 import SpaceNet6, tile_path
from sn6.targets.rasterize import rasterize_instances

MEAN, STD = 20.0, 5.0  # dB
GROUND, DIM, BRIGHT = -2.0, 0.8, 2.0  # logits; probabilities 0.12, 0.69 and 0.88
BLOB, STEP = 10, 16  # pixels: edge length of what is no building, 25 m², and distance from one to the next


class FirstBand(nn.Module):
    """Return the first band as logits."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, image: Tensor) -> Tensor:
        return image[:, :1] * self.weight


def brighten(root: Path) -> None:
    """Rewrite the radar tiles of an archive: ground, buildings and blobs have the logits above.

    In the north the buildings are dim and there are no blobs; in the south the blobs are dim and buildings bright. So a
    threshold of 0.5 is right in the north, and 0.8 in the south.
    """
    archive = SpaceNet6(root)
    train, test = (archive.tiles(split, "SAR-Intensity") for split in ("train", "test_public"))
    middle = np.median([tile.bounds[3] for tile in train])
    for tile in (*train, *test):
        path = tile_path(root, tile.split, "SAR-Intensity", tile.image_id)
        with rasterio.open(path, "r+") as file:
            pixels = file.read()
            pixels[0] = np.where(pixels[0] != 0, MEAN + STD * logits_of(archive, tile, tile.bounds[3] > middle), 0)
            file.write(pixels)


def logits_of(archive: SpaceNet6, tile: Tile, is_north: bool) -> np.ndarray:
    """Return the logits (h, w) of a tile, in its own frame."""
    labels = archive.labels(tile)
    with rasterio.open(tile_path(archive.root, tile.split, "SAR-Intensity", tile.image_id)) as file:
        shape = file.shape
    building = rasterize_instances(labels.polygons, *shape) > 0 if labels is not None else np.zeros(shape, dtype=bool)
    logits = np.where(building, DIM if is_north else BRIGHT, GROUND)
    for row, column in np.ndindex(shape[0] // STEP, shape[1] // STEP):
        room = np.s_[row * STEP : (row + 1) * STEP, column * STEP : (column + 1) * STEP]
        if not is_north and not building[room].any():
            logits[room][2 : 2 + BLOB, 2 : 2 + BLOB] = DIM
    return logits


def bright_run(root: Path, folder: Path) -> list[str]:
    """Return the overrides of a run of `FirstBand`, which learns nothing; its config file is written to `folder`."""
    path = folder / "bright_conf/model/first_band.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("_target_: helpers.bright.FirstBand\nmultiple: 1\n")
    overrides = ["--config-dir", str(folder / "bright_conf"), "model=first_band", f"data.root={root}", "name=it"]
    overrides += [f"data.mean={[MEAN] * 4}".replace(" ", ""), f"data.std={[STD] * 4}".replace(" ", "")]
    overrides += ["optimizer.lr=1e-9", "data.crop=64", "data.batch_size=2", "data.num_workers=0"]
    overrides += ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.accelerator=cpu"]
    overrides += ["callbacks.calibration.candidates={threshold:[0.5,0.8],min_area:[20]}"]
    return [*overrides, "trainer.precision=32-true", "callbacks.image_logging.tiles=0"]
