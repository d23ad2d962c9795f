"""A polygonizer of a user: one class and one yaml are enough for scores, calibration and predictions."""

import csv
import sys

import pytest
import torch
from helpers.commands import assert_fails, read_metrics, small_run

from sn6.checkpoints.loading import read_checkpoint
from sn6.footprints.threshold import Threshold

OWN = """\
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sn6.footprints.polygonizer import Polygonizer


@dataclass(frozen=True)
class Columns(Polygonizer):
    width: int = 8
    candidates: ClassVar = {"threshold": (0.3, 0.5), "width": (8, 16)}

    def split(self, maps, components, pixel_size):
        offset = np.arange(components.shape[1]) // int(self.width)
        return np.where(components > 0, components + offset * (components.max() + 1), 0).astype(np.int32)
"""


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """The user's folder: a polygonizer in a file of Python, and a folder of config files."""
    (tmp_path / "own_polygons.py").write_text(OWN)
    (tmp_path / "my_conf/polygons").mkdir(parents=True)
    (tmp_path / "my_conf/polygons/columns.yaml").write_text("_target_: own_polygons.Columns\nwidth: 8\nmin_area: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("own_polygons", None)
    return tmp_path


def test_it_is_calibrated_stored_and_used_by_predict(sn6_run, sn6_command, archive_root, own_folder):
    options = [line for line in small_run() if not line.startswith("trainer.limit_val")]
    done = sn6_run("--config-dir", "my_conf", *options, "polygons=columns", f"data.root={archive_root}")
    assert done.status == 0, done.err
    run = own_folder / "outputs/it"
    point = read_metrics(run)["operating_point"]
    assert point["_target_"] == "own_polygons.Columns"
    assert "allow=own_polygons.Columns" in done.err
    if point["calibrated_on"]:
        with (run / "calibration.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert {"threshold", "width", "f1", "chosen"} <= set(rows[0])
        assert sum(int(row["chosen"]) for row in rows) == 1
        assert (run / "figures/calibration.png").exists()
    predict = (f"checkpoint={run}", f"root={archive_root}", f"out={own_folder}/out", "device=cpu")
    assert_fails(sn6_command("predict", *predict), "missing_value", "allow", ["own_polygons.Columns"])
    assert not (own_folder / "out").exists()
    assert sn6_command("predict", *predict, "allow=own_polygons.Columns").status == 0
    sys.modules.pop("own_polygons")
    (own_folder / "own_polygons.py").unlink()
    more = (f"out={own_folder}/again", "allow=own_polygons.Columns")
    assert_fails(sn6_command("predict", *predict[:2], *more), "unavailable", "allow", "own_polygons.Columns")


def test_a_checkpoint_of_an_older_version_has_the_fields_of_a_threshold(sn6_run, archive_root, tmp_path):
    assert sn6_run(*small_run(), f"data.root={archive_root}", "callbacks.calibration=null").status == 0
    path = tmp_path / "outputs/it/checkpoints/best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["hyper_parameters"]["config"]["polygons"], checkpoint["callbacks"]["PolygonF1"]["polygons"]
    checkpoint["hyper_parameters"]["config"]["callbacks"]["polygon_f1"] |= {"threshold": 0.3, "simplify": 0.75}
    torch.save(checkpoint, path)
    assert read_checkpoint(path, "checkpoint")[1].to_polygonizer() == Threshold(0.3, 20.0, 0.75)
    checkpoint["callbacks"]["PolygonF1"] |= {"threshold": 0.4, "min_area": 44.0}  # of its calibration
    torch.save(checkpoint, path)
    assert read_checkpoint(path, "checkpoint")[1].to_polygonizer() == Threshold(0.4, 44.0, 0.75)


def test_an_old_key_in_a_config_file_of_the_user_is_an_error(sn6_run, archive_root, tmp_path):
    (tmp_path / "my_conf/experiment").mkdir(parents=True)
    text = "# @package _global_\ncallbacks:\n  polygon_f1:\n    min_area: 30.0\n"
    (tmp_path / "my_conf/experiment/mine.yaml").write_text(text)
    done = sn6_run("--config-dir", "my_conf", "experiment=mine", *small_run(), f"data.root={archive_root}")
    assert_fails(done, "unknown_key", "callbacks.polygon_f1.min_area", 30.0)
    assert "polygons.min_area" in str(done.error)
