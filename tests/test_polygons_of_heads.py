"""Runs whose polygonizer divides buildings by maps of further heads, and predictions with their checkpoints."""

import csv
from collections import Counter

import numpy as np
import pytest
from helpers.commands import assert_fails, read_metrics, small_run

from sn6.formats.challenge_csv import read_proposals


@pytest.mark.parametrize(
    ("heads", "polygons", "fields"),
    [
        ("instances", "watershed", ["polygons.seed=0.2", "polygons.min_seed=0.5"]),
        pytest.param("winner", "watershed", ["polygons.seed=0.12", "polygons.min_seed=0.5"], marks=pytest.mark.slow),
        pytest.param("distance", "distance", ["polygons.seed=2.0"], marks=pytest.mark.slow),
        pytest.param("centre_offset", "centre_offset", ["polygons.peak=0.3"], marks=pytest.mark.slow),
    ],
)
def test_predict_gives_the_proposals_of_the_run(sn6_run, sn6_command, archive_root, tmp_path, heads, polygons, fields):
    options = [line for line in small_run(model="unet") if not line.startswith("trainer.limit_test")]
    more = ["polygons.threshold=0.3", "polygons.min_area=4", "callbacks.calibration=null", f"data.root={archive_root}"]
    done = sn6_run(*options, f"heads={heads}", f"polygons={polygons}", *fields, *more)
    assert done.status == 0, done.err
    run = tmp_path / "outputs/it"
    point = read_metrics(run)["operating_point"]
    assert point["_target_"].startswith("sn6.footprints.")
    assert all(str(point[key]) == value for key, value in (one[9:].split("=") for one in fields))
    predict = (f"checkpoint={run}", f"root={archive_root}", "device=cpu")
    assert sn6_command("predict", *predict, f"out={tmp_path}/out").status == 0
    ours, theirs = (read_proposals(path / "proposals.csv") for path in (tmp_path / "out", run))
    assert ours.keys() == theirs.keys()
    for tile, footprints in theirs.items():
        assert Counter(map(str, footprints.polygons)) == Counter(map(str, ours[tile].polygons))
        assert np.sort(footprints.confidences) == pytest.approx(np.sort(ours[tile].confidences), abs=1e-6)
    assert sum(map(len, theirs.values())) > 0
    assert sn6_command("predict", *predict, f"out={tmp_path}/other", "threshold=0.6", "min_area=0").status == 0
    assert (tmp_path / "other/proposals.csv").read_text() != (tmp_path / "out/proposals.csv").read_text()


def test_the_fields_of_a_watershed_are_calibrated(sn6_run, bright_root, tmp_path):
    options = [line for line in small_run() if not line.startswith("trainer.limit_val")]
    more = ["heads=instances", "polygons=watershed", "optimizer.lr=0.01", "trainer.limit_train_batches=30"]
    more += ["callbacks.calibration.candidates={min_area:[20,30],seed:[0.2,0.4],threshold:[0.2,0.4,0.6]}"]
    done = sn6_run(*options, *more, f"data.root={bright_root}")
    assert done.status == 0, done.err
    run = tmp_path / "outputs/it"
    point = read_metrics(run)["operating_point"]
    if point["calibrated_on"]:  # what so few steps give depends on the machine
        with (run / "calibration.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 12
        (chosen,) = [row for row in rows if row["chosen"] == "1"]
        assert [float(chosen[key]) for key in ("threshold", "seed", "min_area")] == [
            point[key] for key in ("threshold", "seed", "min_area")
        ]
        assert all({"threshold", "seed", "min_area", "f1"} <= set(half) for half in point["halves"])


def test_fields_that_a_target_has_too_must_agree(sn6_run, archive_root):
    options = (*small_run(), "heads=distance", "polygons=distance", f"data.root={archive_root}")
    assert_fails(sn6_run(*options, "polygons.reach=4.0"), "conflict", "polygons.reach", 4.0)
    other_reach = (*options, "heads.distance.target.reach=4.0")
    assert_fails(sn6_run(*other_reach, "polygons.reach=5.0"), "conflict", "polygons.reach", 5.0)
    assert_fails(sn6_run(*options, "polygons.seed=6.0"), "invalid_value", "polygons.seed")
    assert_fails(sn6_run(*other_reach, "polygons.seed=4.5"), "invalid_value", "polygons.seed")  # follows the head
