"""The threshold and the least area are chosen on training tiles, and used by the test and by sn6.predict."""

import json
import math

import numpy as np
import pytest
import torch
from helpers.commands import small_run

BUILDING, GROUND = -1.0, -3.0  # logits
BLOB, STEP = 10, 14  # pixels: a side of what is no building, 25 m², and from one to the next


def test_the_pair_that_finds_the_buildings_is_chosen(archive_root, tmp_path):
    from sn6.callbacks.calibration import Calibration
    from sn6.callbacks.polygon_f1 import PolygonF1
    from sn6.data.dataset import TileDataset
    from sn6.training.stage import quiet_libraries

    class Told(TileDataset):
        """The first band is the logit: buildings at −1 and, wherever there is room, blobs too."""

        def sample(self, index):
            sample = super().sample(index)
            mask, valid = sample["mask"][0] > 0, sample["valid"][0]
            sample["image"][0] = np.where(mask, BUILDING, GROUND)
            for row, column in np.ndindex(mask.shape[0] // STEP, mask.shape[1] // STEP):
                room = np.s_[row * STEP : (row + 1) * STEP, column * STEP : (column + 1) * STEP]
                if valid[room].all() and not mask[room].any():
                    sample["image"][0][room][2 : 2 + BLOB, 2 : 2 + BLOB] = BUILDING
            return sample

    network = torch.nn.Conv2d(4, 1, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]).reshape(1, 4, 1, 1))
        network.bias.zero_()
    data = datamodule(archive_root)
    data.setup()
    tiles = Told(data.archive, data.fold.train, data.source, data.statistics)
    polygon_f1 = PolygonF1(simplify=0.0)
    calibration = Calibration(tiles=99, thresholds=[0.01, 0.2, 0.5, 0.9], min_areas=[20.0, 40.0, 2000.0])
    run = trainer(1, tmp_path, callbacks=[polygon_f1, calibration])
    with quiet_libraries():
        run.predict(segmenter(network), data._eval_loader(tiles), return_predictions=False)
    # 0.01 takes the ground as well, 0.5 and 0.9 find nothing; 20 m² lets the blobs in, 2000 m² leaves most houses out
    assert calibration.choice.threshold == pytest.approx(math.log(0.2 / 0.8))
    assert calibration.choice.min_area == 40
    assert (polygon_f1.threshold, polygon_f1.min_area) == (calibration.choice.threshold, 40)
    assert calibration.choice.f1 > 0.3


def test_a_run_stores_its_choice(sn6_run, archive_root, tmp_path):
    done = sn6_run(*small_run(), f"data.root={archive_root}")
    assert done.status == 0, done.err
    folder = tmp_path / "outputs/it"
    chosen = json.loads((folder / "metrics.json").read_text())["footprints"]
    assert chosen["chosen_on"] == "training tiles"
    held = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["callbacks"]["PolygonF1"]
    assert (held["threshold"], held["min_area"]) == (chosen["threshold"], chosen["min_area"])


def test_no_tiles_keep_the_values_of_the_config(sn6_run, archive_root, tmp_path):
    kept = ("callbacks.calibration.tiles=0", "callbacks.polygon_f1.min_area=33")
    done = sn6_run(*small_run(), f"data.root={archive_root}", *kept)
    assert done.status == 0, done.err
    chosen = json.loads((tmp_path / "outputs/it/metrics.json").read_text())["footprints"]
    assert (chosen["threshold"], chosen["min_area"]) == (0.0, 33)
    assert chosen["chosen_on"] == "nothing, as the config says"


def test_what_is_no_probability(sn6_run, archive_root):
    wrong = "callbacks.calibration.thresholds=[0.5,1]"
    fails(sn6_run(*small_run(), f"data.root={archive_root}", wrong), "thresholds=[0.5, 1]")
