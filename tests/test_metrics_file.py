"""The numbers of metrics.json: computed again from the files of the run, and read as the objective of a sweep."""

import csv
import json
import subprocess
from itertools import pairwise

import pytest
import torch
from helpers.bright import bright_run
from helpers.commands import assert_fails, read_metrics, small_run
from helpers.errors import user_error
from helpers.forked import python_m
from helpers.training import make_datamodule, make_segmenter, make_trainer

from sn6.datasets.spacenet6 import PIXEL, SpaceNet6
from sn6.footprints import Footprints, rotate_polygons
from sn6.footprints.threshold import Threshold
from sn6.metrics.matching import Counts, match_tile

STAGES = "stages={eo: ['data=eo'], sar: ['data=sar', 'callbacks.sar_handoff.weights=${run_folder}/eo']}"


@pytest.fixture(scope="module")
def calibrated(bright_root, tmp_path_factory):
    """The folder of a run whose operating point is not the config's, with matched and missed buildings."""
    folder = tmp_path_factory.mktemp("run")
    overrides = [*bright_run(bright_root, folder), "trainer.max_epochs=2", "polygons.threshold=0.6"]
    overrides += ["callbacks.calibration.candidates={threshold:[0.3],min_area:[35]}"]
    done = python_m(["sn6.run", *overrides], folder)
    assert done.status == 0, done.err
    return folder / "outputs/it"


def tile_ids(path):
    with path.open() as file:
        return [row["image_id"] for row in csv.DictReader(file)]


def counts_of(part):
    return Counts(part["tp"], part["fp"], part["fn"])


def test_the_test_scores_are_those_of_the_proposals(calibrated, bright_root, sn6_command, tmp_path):
    reported = read_metrics(calibrated)
    assert (reported["operating_point"]["threshold"], reported["operating_point"]["min_area"]) == (0.3, 35)
    files = (f"truth={bright_root}", f"proposals={calibrated}/proposals.csv", f"out={tmp_path}/score.json")
    assert sn6_command("score", *files).status == 0
    card = json.loads((tmp_path / "score.json").read_text())
    overall, test = card["overall"], reported["test"]
    assert counts_of(overall) == counts_of(test)
    assert test["tp"] + test["fn"] > 0  # whether any is matched after so few steps depends on the machine
    for key in ("f1", "precision", "recall"):
        assert test[key] == pytest.approx(getattr(counts_of(overall), key))
    scored = {key: value for key, value in card["instances"].items() if key != "boundary_iou"}  # not while training
    assert {key: test[key] for key in scored} == pytest.approx(scored)
    for part, scores in card["by_neighbours"].items():
        assert {key: test[f"{part}_{key}"] for key in scores} == pytest.approx(scores)


def test_the_validation_scores_are_at_the_operating_point(calibrated, bright_root, sn6_command, tmp_path):
    """Predict the validation tiles with the checkpoint, by the code for images of any size, and match them."""
    from sn6.formats.challenge_csv import read_proposals

    names = tile_ids(calibrated / "validation_tiles.csv")
    options = (
        "split=train",
        f"tiles=[{','.join(names)}]",
        "device=cpu",
        f"out={tmp_path}/out",
        "allow=helpers.bright.FirstBand",
    )
    done = sn6_command("predict", f"checkpoint={calibrated}", f"root={bright_root}", *options)
    assert done.status == 0, done.err
    archive, proposals = SpaceNet6(bright_root), read_proposals(tmp_path / "out/proposals.csv")
    total = Counts()
    for name in names:
        truth, proposed = archive.labels(archive.tile("train", name)).polygons, proposals[name]
        total += match_tile(truth, proposed.polygons, proposed.confidences).counts
    validation = read_metrics(calibrated)["validation"]
    assert counts_of(validation) == total
    assert total.tp + total.fn > 0
    stored = torch.load(calibrated / "checkpoints/best.ckpt", weights_only=True)["callbacks"]["PolygonF1"]
    assert stored["scores"]["f1"] == validation["f1"]


def test_the_rows_of_the_tiles_add_up_to_the_scores_of_the_parts(calibrated):
    for use in ("validation", "test"):
        scores = read_metrics(calibrated)[use]
        with (calibrated / f"{use}_tiles.csv").open() as file:
            rows = list(csv.DictReader(file))
        for key in ("tp", "fp", "fn", "touching_tp", "touching_fp", "touching_fn", "merged", "split"):
            assert sum(int(row[key]) for row in rows) == scores[key], (use, key)
        assert sum(scores[f"{part}_{key}"] for part in ("touching", "alone") for key in ("tp", "fn")) > 0
        counts = scores["tp"] + scores["fp"] / 2 + scores["fn"] / 2
        assert sum(float(row["iou_sum"]) for row in rows) / counts == pytest.approx(scores["pq"])


def test_the_validations_of_the_training_are_the_only_logged_ones(calibrated):
    with (calibrated / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["val/f1"]]
    assert len(steps) == 2
    assert all(one < two for one, two in pairwise(steps))


def test_the_environment_and_the_data(calibrated):
    metrics = read_metrics(calibrated)
    environment, data = metrics["environment"], metrics["data"]
    assert environment["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert (environment["device"], environment["devices"], environment["precision"]) == ("cpu", 1, "32-true")
    assert (data["product"], data["bands"], data["fold"]) == ("SAR-Intensity", [1, 2, 3, 4], 4)
    assert data["simulated"] is True
    assert sum(data["tiles"][use] for use in ("train", "validation", "dropped")) == 48
    parts = {key: seconds for key, seconds in metrics["timing"].items() if key != "total"}
    assert sum(parts.values()) <= metrics["timing"]["total"] + 0.1 * len(parts)


def test_git_commit(tmp_path, monkeypatch):
    from sn6.training.environment import git_commit

    assert git_commit(tmp_path) is None
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "file").write_text("one")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert git_commit(tmp_path) == head
    (tmp_path / "file").write_text("two")
    assert git_commit(tmp_path) == f"{head}+changes"
    monkeypatch.setenv("PATH", "")
    assert git_commit(tmp_path) is None


@pytest.mark.parametrize("min_area", [0.0, 300.0])
def test_the_oracle_bound_is_at_20_square_metres_whatever_is_calibrated(archive_root, tmp_path, min_area):
    from sn6.callbacks.polygon_f1 import PolygonF1
    from sn6.training.quiet import quiet_libraries

    data = make_datamodule(archive_root)
    data.setup()
    polygon_f1 = PolygonF1(Threshold(0.9, min_area, 1.0))
    trainer = make_trainer(1, tmp_path, callbacks=[polygon_f1])
    with quiet_libraries():
        trainer.test(make_segmenter(torch.nn.Conv2d(4, 1, 1)), data, verbose=False)
    total = Counts()
    for index in range(len(data.test_tiles)):
        sample = data.test_tiles.sample(index)
        valid = sample["valid"][0]
        footprints = Threshold(0.5, 20.0, 1.0)({"mask": sample["mask"]}, valid, PIXEL)
        if data.test_tiles.is_rotated(index):
            footprints = Footprints(rotate_polygons(footprints.polygons, *valid.shape), footprints.confidences)
        truth = data.test_tiles.labels(index).polygons
        total += match_tile(truth, footprints.polygons, footprints.confidences).counts
    assert polygon_f1.oracle == {key: getattr(total, key) for key in ("f1", "precision", "recall")}
    assert 0 < total.f1 < 1


# --- stages and older files


def test_a_run_of_stages_has_the_last_one_at_the_top(sn6_run, archive_root, tmp_path):
    assert sn6_run(*small_run(), f"data.root={archive_root}", STAGES).status == 0
    folder = tmp_path / "outputs/it"
    metrics = read_metrics(folder)
    assert metrics["stages"] == {name: read_metrics(folder / name) for name in ("eo", "sar")}
    timing = metrics.pop("timing")
    of_stages = [one["timing"] for one in metrics.pop("stages").values()]
    assert timing["fit"] == pytest.approx(sum(one["fit"] for one in of_stages))
    last = read_metrics(folder / "sar")
    last.pop("timing")
    assert metrics == last


def test_a_run_finished_by_an_older_version_stays_finished(sn6_run, archive_root, tmp_path):
    overrides = [*small_run(), f"data.root={archive_root}"]
    assert sn6_run(*overrides).status == 0
    path = tmp_path / "outputs/it/metrics.json"
    path.write_text(json.dumps({"f1": 0.5, "val_f1": 0.4, "oracle_f1": 0.9, "tiles": {"train": 3}}))
    before = path.read_text()
    done = sn6_run(*overrides)
    assert done.status == 0
    assert str(path) in done.err
    assert path.read_text() == before


def test_the_objective_of_an_older_run_is_reported(tmp_path):
    from sn6.sweeps.objective import read_objective

    (tmp_path / "metrics.json").write_text('{"validation": {"f1": 0.25}, "test": {"loss": 2}}')
    assert read_objective(tmp_path, "validation.f1") == 0.25
    assert read_objective(tmp_path, "test.loss") == 2
    with user_error("wrong_data", tmp_path / "metrics.json", "test.ap50"):
        read_objective(tmp_path, "test.ap50")
    (tmp_path / "metrics.json").write_text('{"f1": 0.5, "val_f1": 0.4}')
    with user_error("wrong_data", tmp_path / "metrics.json", "validation.f1"):
        read_objective(tmp_path, "validation.f1")


@pytest.mark.parametrize(
    ("old", "new"), [("val_f1", "validation.f1"), ("val_loss", "validation.loss"), ("iou", "test.iou")]
)
def test_an_objective_of_an_older_version_names_the_new_one(sn6_run, archive_root, old, new):
    done = sn6_run(*small_run(), f"data.root={archive_root}", f"objective={old}")
    assert_fails(done, "invalid_value", "objective", old)
    assert f"objective={new}" in done.err
    sweep = sn6_run("-m", *small_run(), f"data.root={archive_root}", f"objective={old}", "seed=1,2")
    assert_fails(sweep, "invalid_value", "objective", old)


@pytest.mark.parametrize("objective", ["validation.tp", "f1.validation", "validation", "train.f1"])
def test_an_unknown_objective(sn6_run, archive_root, objective):
    done = sn6_run(*small_run(), f"data.root={archive_root}", f"objective={objective}")
    assert_fails(done, "invalid_value", "objective", objective)
