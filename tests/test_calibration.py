"""Threshold and minimum area are calibrated on training tiles, and used by the test and by sn6.predict."""

import numpy as np
import torch
from helpers.commands import read_metrics, small_run
from helpers.training import make_datamodule, make_segmenter, make_trainer

BUILDING, GROUND = -1.0, -3.0  # logits; probabilities 0.27 and 0.05
BLOB, STEP = 10, 14  # pixels: side of what is no building, 25 m², and distance from one to the next


def test_the_pair_that_separates_the_buildings_is_chosen(archive_root, tmp_path):
    from sn6.callbacks.calibration import Calibration
    from sn6.callbacks.polygon_f1 import PolygonF1
    from sn6.data.dataset import TileDataset
    from sn6.training.quiet import quiet_libraries

    class Known(TileDataset):
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
    data = make_datamodule(archive_root)
    data.setup()
    tiles = Known(data.archive, data.fold.train, data.source, data.statistics)
    polygon_f1 = PolygonF1(simplify=0.0)
    calibration = Calibration(tiles=99, thresholds=[0.01, 0.2, 0.5, 0.9], min_areas=[20.0, 40.0, 2000.0])
    run = make_trainer(1, tmp_path, callbacks=[polygon_f1, calibration])
    loader = torch.utils.data.DataLoader(tiles)
    with quiet_libraries():
        run.predict(make_segmenter(network), loader, return_predictions=False)
    # 0.01 takes the ground as well, 0.5 and 0.9 give nothing; 20 m² keeps the blobs, 2000 m² drops most buildings
    assert (calibration.choice.options.threshold, calibration.choice.options.min_area) == (0.2, 40.0)
    assert calibration.choice.options.simplify == 0.0
    assert polygon_f1.options == calibration.choice.options
    assert calibration.choice.f1 > 0.3


def test_a_run_stores_its_choice(sn6_run, archive_root, tmp_path):
    done = sn6_run(*small_run(), f"data.root={archive_root}")
    assert done.status == 0, done.err
    folder = tmp_path / "outputs/it"
    footprints = read_metrics(folder)["operating_point"]
    assert footprints["calibrated_on"] == "training tiles"
    state = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["callbacks"]["PolygonF1"]
    for key in ("threshold", "min_area", "simplify"):
        assert state[key] == footprints[key]


def test_no_tiles_keep_the_values_of_the_config(sn6_run, archive_root, tmp_path):
    fixed = ("callbacks.calibration.tiles=0", "callbacks.polygon_f1.min_area=33")
    done = sn6_run(*small_run(), f"data.root={archive_root}", *fixed)
    assert done.status == 0, done.err
    footprints = read_metrics(tmp_path / "outputs/it")["operating_point"]
    assert (footprints["threshold"], footprints["min_area"], footprints["calibrated_on"]) == (0.5, 33, None)
