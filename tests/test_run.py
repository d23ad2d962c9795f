"""Runs from end to end, by the command line."""

import csv
import json
from itertools import product

import pytest
import torch

SMALL = (
    "model.width=4",
    "data.crop=64",
    "data.batch_size=2",
    "data.num_workers=0",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=2",
    "trainer.log_every_n_steps=1",
    "trainer.limit_val_batches=2",
    "trainer.limit_test_batches=2",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "callbacks.image_logging.tiles=1",
    "callbacks.calibration.tiles=2",
    "+trainer.enable_progress_bar=false",
    "~callbacks.progress_bar",
    "name=it",
)


def words_REMOVE(model="ternausnet", **more):
    return (*SMALL, f"model={model}", "model.pretrained=null", *(f"{key}={value}" for key, value in more.items()))


@pytest.mark.parametrize(
    ("model", "loss", "data"),
    list(
        product(
            ("fcn8s", "fcn16s", "fcn32s", "unet", "ternausnet"),
            ("bce", "weighted_boundary", "focal_dice"),
            ("sar", "eo"),
        )
    ),
)
def test_every_combination_of_the_groups_trains_and_is_scored(sn6_run, archive_root, tmp_path, model, loss, data):
    done = sn6_run(*small_run(model, loss=loss, data=data), f"data.root={archive_root}")
    assert done.status == 0, done.err
    metrics = json.loads((tmp_path / "outputs/it/metrics.json").read_text())
    assert metrics["tiles"] == 2
    assert 0 <= metrics["f1"] <= metrics["ceiling_f1"] <= 1
    assert (
        metrics["scored_on"]
        == {
            "sar": "test tiles",
            "eo": "validation column 4, which also chose the epoch",
        }[data]
    )


def test_what_a_run_leaves(sn6_run, archive_root, tmp_path):
    done = sn6_run(
        *small_run(), f"data.root={archive_root}", "callbacks.image_logging.tiles=9", "callbacks.calibration.tiles=0"
    )
    assert done.status == 0, done.err
    folder = tmp_path / "outputs/it"
    assert "polygon F1" in done.err
    assert str(folder.name) in done.err
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {"f1", "precision", "recall", "iou", "tp", "fp", "fn", "val_f1", "scored_on"} <= set(metrics)
    assert "model:" in (folder / "config.yaml").read_text()
    assert "${" not in (folder / "config.yaml").read_text()
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    with (folder / "proposals.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["ImageId", "BuildingId", "PolygonWKT_Pix", "Confidence"]
    assert len({row["ImageId"] for row in rows}) == 2
    assert json.loads((folder / "footprints.geojson").read_text())["type"] == "FeatureCollection"
    figures = {path.name.split("_")[0] for path in (folder / "figures").iterdir()}
    assert figures == {"curves.png", "threshold.png", "validation"}
    for use, number in (("validation", 2), ("test", 2)):
        with (folder / f"{use}_tiles.csv").open() as file:
            tiles = list(csv.DictReader(file))
        assert len(tiles) == number
        prefix = {"validation": "val_", "test": ""}[use]
        for key in ("tp", "fp", "fn"):
            assert sum(int(tile[key]) for tile in tiles) == metrics[f"{prefix}{key}"]
    with (folder / "threshold.csv").open() as file:
        at = {float(point["threshold"]): float(point["f1"]) for point in csv.DictReader(file)}
    assert len(at) == 9
    assert at[0.5] == pytest.approx(metrics["f1"])  # a logit of 0 is the threshold of the score
    assert not list(folder.rglob("*unfinished*"))
    assert not list(folder.rglob("*part*"))


def test_a_finished_run_says_so_and_does_nothing(sn6_run, archive_root, tmp_path):
    sn6_run(*small_run(), f"data.root={archive_root}")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "outputs/it/checkpoints").iterdir()}
    again = sn6_run(*small_run(), f"data.root={archive_root}")
    assert again.status == 0
    assert "is finished" in again.err
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_stopped_run_goes_on(sn6_run, archive_root, tmp_path):
    sn6_run(*small_run(), f"data.root={archive_root}")
    (tmp_path / "outputs/it/metrics.json").unlink()  # as if stopped after the first epoch
    more = [word for word in small_run() if not word.startswith("trainer.max_epochs")]
    done = sn6_run(*more, "trainer.max_epochs=2", f"data.root={archive_root}")
    assert done.status == 0, done.err
    last = torch.load(tmp_path / "outputs/it/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 4


def test_the_best_checkpoint_is_by_polygon_f1_and_is_what_is_tested(sn6_run, archive_root, tmp_path):
    done = sn6_run(*small_run(), f"data.root={archive_root}", "trainer.limit_val_batches=null")
    assert done.status == 0, done.err
    metrics = json.loads((tmp_path / "outputs/it/metrics.json").read_text())
    assert metrics["chosen_by"] == "val/f1"
    assert metrics["val_tiles"] == metrics["tiles_by_use"]["validation"]


def test_windows_validate_as_whole_tiles_do(sn6_run, archive_root, tmp_path):
    scores = []
    for name, window in (("whole", "null"), ("windows", 96)):
        done = sn6_run(
            *small_run(model="fcn32s"),
            f"data.root={archive_root}",
            f"window={window}",
            "window_overlap=32",
            f"name={name}",
        )
        assert done.status == 0, done.err
        scores.append(json.loads((tmp_path / f"outputs/{name}/metrics.json").read_text())["loss"])
    assert scores[0] == pytest.approx(scores[1], rel=0.05)
