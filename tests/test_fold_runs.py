"""Runs of several folds as one result: the pooled score, the operating point of all, the average of the networks."""

import csv
import json
import shutil

import numpy as np
import pytest
import rasterio
import torch
from helpers.bright import MEAN, STD
from helpers.commands import assert_fails, small_run
from helpers.fold_runs import ALLOW, THRESHOLDS, WEIGHTS, change_config, write_fold_runs
from helpers.stopping import run_and_stop
from scipy.special import expit

from sn6.data.cross_fitting import cross_fit
from sn6.data.folds import bounds_of
from sn6.datasets.spacenet6 import PIXEL, SpaceNet6, labels_path, tile_path
from sn6.footprints import Footprints, rotate_polygons
from sn6.footprints.threshold import Threshold
from sn6.formats.challenge_csv import ChallengeCSVWriter, read_proposals

SAR = "SAR-Intensity"
LEFT = {"data.fold-0", "data.fold-1", "data.fold-2", "data.fold-3", "data.fold-4"}
WRITTEN = {"proposals.csv", "footprints.geojson", "calibration.csv", "figures", "operating_point.json", "folds.csv"}


@pytest.fixture(scope="module")
def made_runs(bright_root, tmp_path_factory):
    return write_fold_runs(bright_root, tmp_path_factory.mktemp("folds"))


@pytest.fixture(scope="module")
def scored(made_runs, tmp_path_factory):
    """The folder of five runs of which one did not validate its last tile, scored; nobody writes into it."""
    from sn6.score import score

    runs = shutil.copytree(made_runs, tmp_path_factory.mktemp("scored") / "outputs/cv")
    last = runs / "data.fold-4/validation_tiles.csv"
    last.write_text("".join(last.read_text().splitlines(keepends=True)[:-1]))
    score(runs=runs, allow=ALLOW.removeprefix("allow="), device="cpu")
    return runs


@pytest.fixture
def runs(made_runs, tmp_path):
    """The folder of five runs, to change."""
    return shutil.copytree(made_runs, tmp_path / "outputs/cv")


@pytest.fixture
def score_runs(sn6_command):
    return lambda runs, *overrides: sn6_command("score", f"runs={runs}", ALLOW, "device=cpu", *overrides)


def fold_of_tiles(runs, stage=""):
    """Return image id → fold, from the tables of the runs."""
    result = {}
    for fold in range(5):
        with (runs / f"data.fold-{fold}{stage}/validation_tiles.csv").open() as file:
            result |= {row["image_id"]: fold for row in csv.DictReader(file)}
    return result


def footprints_of(root, tile, weight, threshold):
    """Return the footprints of a tile by a network with this weight, from the pixels of the file."""
    with rasterio.open(tile_path(root, tile.split, SAR, tile.image_id)) as file:
        pixels = file.read()
    valid = (pixels != 0).any(axis=0)
    probability = expit(np.float32(weight) * ((pixels[0] - MEAN) / STD)).astype(np.float32)
    if tile.orientation == 1:
        probability, valid = (np.ascontiguousarray(array[::-1, ::-1]) for array in (probability, valid))
    found = Threshold(threshold, 20.0, 0.5)({"mask": probability[None]}, valid, PIXEL)
    if tile.orientation == 1:
        return Footprints(rotate_polygons(found.polygons, *valid.shape), found.confidences)
    return found


def write_proposals(path, footprints):
    with ChallengeCSVWriter(path) as writer:
        for image_id, found in footprints.items():
            writer.write(image_id, (0.0, 0.0), found)


def write_labels_of(root, path, image_ids):
    """Write the rows of the archive's labels that are of these tiles."""
    header, *rows = labels_path(root).read_text().splitlines()
    path.write_text("\n".join([header, *(row for row in rows if row.split(",")[0] in image_ids)]) + "\n")


def numbers_of(card):
    return {key: value for key, value in card.items() if key not in ("folds", "notes")}


def test_the_pooled_score_is_that_of_the_pooled_proposals(sn6_command, scored, bright_root, tmp_path):
    """Footprints of each tile by the network of its fold at the point of its half, from the pixels, in one CSV."""
    card = json.loads((scored / "score.json").read_text())
    point = json.loads((scored / "operating_point.json").read_text())
    assert {path.name for path in scored.iterdir()} == LEFT | WRITTEN | {"score.json"}
    fold_of = fold_of_tiles(scored)
    tiles = [one for one in SpaceNet6(bright_root).tiles("train", SAR) if one.image_id in fold_of]
    assert len(tiles) == len(fold_of) == card["tiles"] == 47
    tiles.sort(key=lambda tile: fold_of[tile.image_id])
    assert any("1 of 48" in note for note in card["notes"])
    proposed, halves = {}, cross_fit(bounds_of(tiles))
    for half, chosen in zip(halves, point["halves"], strict=True):
        assert (chosen["tiles"], chosen["chosen_on"]) == (len(half.tiles), len(half.choosers))
        for tile in (tiles[index] for index in half.tiles):
            weight = WEIGHTS[fold_of[tile.image_id]]
            proposed[tile.image_id] = footprints_of(bright_root, tile, weight, chosen["threshold"])
    write_proposals(tmp_path / "pooled.csv", proposed)
    write_labels_of(bright_root, tmp_path / "truth.csv", fold_of)
    files = (
        f"truth={tmp_path / 'truth.csv'}",
        f"proposals={tmp_path / 'pooled.csv'}",
        f"out={tmp_path / 'score.json'}",
    )
    assert sn6_command("score", *files, f"root={bright_root}").status == 0
    assert numbers_of(card) == numbers_of(json.loads((tmp_path / "score.json").read_text()))
    assert card["overall"]["tp"] > 10
    assert card["interval"] is not None
    strict = sn6_command(
        "score", f"truth={bright_root}", f"proposals={scored}/proposals.csv", *files[2:], "strict=true"
    )
    assert strict.status == 0
    assert json.loads((tmp_path / "score.json").read_text())["overall"] == card["overall"]


def test_the_table_has_the_score_of_each_fold(sn6_command, scored, bright_root, tmp_path):
    folds, fold_of = json.loads((scored / "score.json").read_text())["folds"], fold_of_tiles(scored)
    with (scored / "folds.csv").open() as file:
        rows = {row["fold"]: row for row in csv.DictReader(file)}
    assert list(rows) == list(folds) == ["0", "1", "2", "3", "4", "pooled"]
    proposals = read_proposals(scored / "proposals.csv")
    for name in ("2", "pooled"):
        tiles = {image_id for image_id, fold in fold_of.items() if name in (str(fold), "pooled")}
        write_proposals(tmp_path / "some.csv", {image_id: proposals[image_id] for image_id in tiles})
        write_labels_of(bright_root, tmp_path / "truth.csv", tiles)
        files = [
            f"truth={tmp_path / 'truth.csv'}",
            f"proposals={tmp_path / 'some.csv'}",
            f"out={tmp_path / 'score.json'}",
        ]
        assert sn6_command("score", *files, f"root={bright_root}").status == 0
        card = json.loads((tmp_path / "score.json").read_text())
        interval = card["interval"] and card["interval"]["f1"]
        parts = {f"{part}_f1": card["by_neighbours"][part]["f1"] for part in ("touching", "alone")}
        assert folds[name] == card["overall"] | parts | {"tiles": len(tiles), "interval": interval}
        assert float(rows[name]["f1"]) == card["overall"]["f1"]
        assert [rows[name]["f1_low"], rows[name]["f1_high"]] == ([*map(str, interval)] if interval else ["", ""])


def test_the_operating_point_is_chosen_on_the_tiles_of_all_folds(scored):
    point = json.loads((scored / "operating_point.json").read_text())
    with (scored / "calibration.csv").open() as file:
        table = {float(row["threshold"]): row for row in csv.DictReader(file)}
    assert set(table) == set(THRESHOLDS)
    assert point["f1"] == max(float(row["f1"]) for row in table.values()) == float(table[point["threshold"]]["f1"])
    assert sum(half["tiles"] for half in point["halves"]) == len(fold_of_tiles(scored))
    assert point["calibrated_on"] is not None


def test_a_stopped_prediction_resumes_and_without_calibration_the_point_is_that_of_the_config(
    score_runs, runs, monkeypatch
):
    from sn6.errors import UserError
    from sn6.prediction.workers import Worker

    predict, seen = Worker.predict, []

    def stop_after_ten(worker, batch):
        if len(seen) == 10:
            raise UserError("stopped", kind="stopped")
        seen.extend(batch)
        return predict(worker, batch)

    for folder in runs.iterdir():
        change_config(folder, callbacks__calibration=None, polygons__threshold=0.7)
    monkeypatch.setattr(Worker, "predict", stop_after_ten)
    assert_fails(score_runs(runs), "stopped")
    assert not (runs / "proposals.csv").exists()
    monkeypatch.setattr(Worker, "predict", lambda worker, batch: seen.extend(batch) or predict(worker, batch))
    assert score_runs(runs).status == 0
    assert len(seen) == len(fold_of_tiles(runs))
    assert not (runs / "unfinished").exists()
    point = json.loads((runs / "operating_point.json").read_text())
    assert (point["threshold"], point["calibrated_on"], point["halves"]) == (0.7, None, None)
    assert not (runs / "calibration.csv").exists()


# --- the ensemble


def test_the_prediction_is_the_mean_of_the_networks_at_the_pooled_point(sn6_command, scored, bright_root, tmp_path):
    point = json.loads((scored / "operating_point.json").read_text())
    options = (f"checkpoint={scored}", f"root={bright_root}", ALLOW, "device=cpu")
    done = sn6_command("predict", *options, "probability=true", f"out={tmp_path}/out")
    assert done.status == 0, done.err
    proposals, polygons = read_proposals(tmp_path / "out/proposals.csv"), 0
    for tile in SpaceNet6(bright_root).tiles("test_public", SAR):
        with rasterio.open(tile_path(bright_root, tile.split, SAR, tile.image_id)) as file:
            logits = np.mean([weight * (file.read(1) - MEAN) / STD for weight in WEIGHTS], axis=0)
        with rasterio.open(tmp_path / f"out/probability/{tile.image_id}.tif") as raster:
            stored = raster.read(1)
        valid = stored < 255
        assert valid.any()
        assert np.abs(stored[valid] - 254 * expit(logits[valid])).max() < 0.51
        expected = footprints_of(bright_root, tile, np.mean(WEIGHTS), point["threshold"]).polygons
        assert [one.normalize().wkt for one in proposals[tile.image_id].polygons] == [
            one.normalize().wkt for one in expected
        ]
        polygons += len(expected)
    assert polygons > 5
    done = sn6_command("predict", *options, "threshold=0.33", f"out={tmp_path}/other")
    assert done.status == 0, done.err
    settings = json.loads((tmp_path / "other/prediction.json").read_text())["settings"]
    assert (settings["threshold"], settings["min_area"]) == (0.33, point["min_area"])
    name = str(scored / "operating_point.json")
    assert name not in done.err
    done = sn6_command("predict", *options, "flips=true", f"out={tmp_path}/flipped")  # it was calibrated without
    assert done.status == 0, done.err
    assert name in done.err


def test_runs_that_were_not_scored_or_have_changed_are_not_averaged(sn6_command, runs, scored, bright_root, tmp_path):
    options = (f"checkpoint={runs}", f"root={bright_root}", ALLOW, "device=cpu", f"out={tmp_path}/out")
    assert_fails(sn6_command("predict", *options), "not_found", "checkpoint", str(runs))
    shutil.copy(scored / "operating_point.json", runs)
    path = runs / "data.fold-2/checkpoints/best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["network.weight"] *= 2
    torch.save(checkpoint, path)
    assert_fails(sn6_command("predict", *options), "conflict", runs / "operating_point.json", str(path))
    path.unlink()
    assert_fails(sn6_command("predict", *options), "conflict", runs / "operating_point.json", str(path))
    (runs / "operating_point.json").write_text("{}")
    assert_fails(sn6_command("predict", *options), "wrong_data", runs / "operating_point.json")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_sweep_over_folds_of_a_recipe_in_stages_is_one_result(
    sn6_run, sn6_command, archive_root, tmp_path, monkeypatch
):
    monkeypatch.setattr("sn6.sweeps.job.run_in_subprocess", lambda overrides, _: run_and_stop(overrides, tmp_path))
    recipe = [override for override in small_run() if not override.startswith(("name=", "trainer.limit_val"))]
    recipe += ["experiment=quickstart", "simulation=null", f"data.root={archive_root}", "data.crops_per_tile=1"]
    done = sn6_run("-m", *recipe, "data.fold=0,1,2,3,4", "name=cv")
    assert done.status == 0, done.err
    runs = tmp_path / "outputs/cv"
    done = sn6_command("score", f"runs={runs}", "device=cpu")
    assert done.status == 0, done.err
    assert list(read_proposals(runs / "proposals.csv")) == list(fold_of_tiles(runs, "/sar"))
    done = sn6_command("predict", f"checkpoint={runs}", f"root={archive_root}", f"out={tmp_path}/out", "device=cpu")
    assert done.status == 0, done.err
    settings = json.loads((tmp_path / "out/prediction.json").read_text())["settings"]
    assert settings["checkpoint"] == [str(runs / f"data.fold-{fold}/sar/checkpoints/best.ckpt") for fold in range(5)]


# --- wrong input


def delete_fold(runs):
    shutil.rmtree(runs / "data.fold-3")


def delete_metrics(runs):
    (runs / "data.fold-3/metrics.json").unlink()


def delete_checkpoint(runs):
    (runs / "data.fold-3/checkpoints/best.ckpt").unlink()


def copy_fold(runs):
    shutil.copytree(runs / "data.fold-3", runs / "data.fold-3_seed-0")


def other_loss(runs):
    change_config(runs / "data.fold-3", loss___target_="sn6.losses.FocalDice")


def other_partition(runs):
    change_config(runs / "data.fold-3", data__partition="blocks")


def other_archive(runs, names="data.fold-3"):
    for path in runs.glob(f"{names}/inputs.json"):
        inputs = json.loads(path.read_text())
        inputs["data.root"]["labels of train"] = "another digest"
        path.write_text(json.dumps(inputs))


def other_archive_for_all(runs):
    other_archive(runs, "*")


def older_config(runs):
    path = runs / "data.fold-3/config.yaml"
    path.write_text(path.read_text().replace("polygons:", "footprints:"))


def tile_twice(runs):
    first = (runs / "data.fold-2/validation_tiles.csv").read_text().splitlines()[1]
    with (runs / "data.fold-3/validation_tiles.csv").open("a") as file:
        file.write(f"{first}\n")


def unknown_tile(runs):
    with (runs / "data.fold-3/validation_tiles.csv").open("a") as file:
        file.write("nowhere_tile_9999\n")


def broken_tiles(runs):
    (runs / "data.fold-3/validation_tiles.csv").write_text("")


def trained_on_its_tiles(runs):
    path = runs / "data.fold-3/checkpoints/best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["TileDataModule"]["training_area"] = [[0.0, 0.0, 1e7, 1e7]]
    torch.save(checkpoint, path)


@pytest.mark.parametrize(
    ("change", "kind", "key"),
    [
        (delete_fold, "not_found", "data.fold"),
        (delete_metrics, "not_found", "runs"),
        (delete_checkpoint, "not_found", "runs"),
        (copy_fold, "conflict", "data.fold"),
        (other_loss, "conflict", "loss._target_"),
        (other_partition, "conflict", "data.partition"),
        (other_archive, "conflict", "data.root"),
        (other_archive_for_all, "conflict", "root"),
        (older_config, "wrong_data", None),
        (tile_twice, "conflict", "data.fold"),
        (unknown_tile, "wrong_data", "root"),
        (broken_tiles, "unreadable", None),
        (trained_on_its_tiles, "leakage", "runs"),
    ],
)
def test_runs_that_are_not_one_result_are_refused(score_runs, runs, change, kind, key):
    change(runs)
    before = {path.name for path in runs.iterdir()}
    assert_fails(score_runs(runs), kind, *([key] if key else []))
    assert {path.name for path in runs.iterdir()} == before


def test_options_that_exclude_one_another_are_refused(score_runs, sn6_command, runs, tmp_path):
    assert_fails(score_runs(tmp_path), "not_found", "runs")
    assert_fails(score_runs(tmp_path / "nowhere"), "not_found", "runs")
    assert_fails(score_runs(runs / "data.fold-0"), "wrong_data", "runs")
    assert_fails(score_runs(runs, "proposals=x.csv"), "conflict", "proposals")
    assert_fails(score_runs(runs, "truth=x.csv"), "not_found", "truth")
    assert_fails(sn6_command("score", f"runs={runs}"), "missing_value", "allow")
    assert_fails(sn6_command("score", "truth=x.csv", "proposals=x.csv", "flips=true"), "conflict", "flips")
    assert_fails(sn6_command("score", "truth=x.csv"), "missing_value", "proposals")
    assert {path.name for path in runs.iterdir()} == LEFT
