"""Runs from end to end, by the command line."""

import csv
import json
from pathlib import Path

import pytest
import torch
from helpers.commands import call, read_metrics, small_run

# Every network, every loss and both kinds of images, each with several of the others: they do not interact.
COMBINATIONS = [
    ("fcn8s", "bce", "sar"),
    ("fcn16s", "weighted_boundary", "eo"),
    ("fcn32s", "focal_dice", "sar"),
    ("unet", "bce", "eo"),
    ("ternausnet", "weighted_boundary", "sar"),
    ("ternausnet", "focal_dice", "eo"),
]


@pytest.fixture(scope="module")
def finished(archive_root, tmp_path_factory):
    """The folder and stderr of a run, on all validation tiles."""
    from sn6.run import main

    folder = tmp_path_factory.mktemp("run")
    more = ("callbacks.image_logging.tiles=9", "callbacks.calibration=null", "trainer.limit_val_batches=null")
    capture = pytest.MonkeyPatch()
    with capture.context() as monkeypatch:
        monkeypatch.chdir(folder)
        done = call(main, ["sn6.run", *small_run(), f"data.root={archive_root}", *more], monkeypatch, Silent())
    assert done.status == 0
    return folder / "outputs/it"


class Silent:
    """Stands in for capsys, which has a test's scope."""

    def readouterr(self):
        return "", ""


@pytest.mark.parametrize(("model", "loss", "data"), COMBINATIONS)
def test_networks_losses_and_data_train_and_are_scored(sn6_run, archive_root, tmp_path, model, loss, data):
    done = sn6_run(*small_run(model, loss=loss, data=data), f"data.root={archive_root}")
    assert done.status == 0, done.err
    metrics = read_metrics(tmp_path / "outputs/it")
    assert metrics["test"]["tiles"] == 2
    assert 0 <= metrics["test"]["f1"] <= metrics["test"]["oracle"]["f1"] <= 1
    assert metrics["test"]["scored_on"].startswith({"sar": "test tiles", "eo": "validation column 4"}[data])


def test_files_of_a_run(finished):
    assert "model:" in (finished / "config.yaml").read_text()
    assert "${" not in (finished / "config.yaml").read_text()
    assert {path.name for path in (finished / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    with (finished / "proposals.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["ImageId", "BuildingId", "PolygonWKT_Pix", "Confidence"]
    assert len({row["ImageId"] for row in rows}) == 2
    assert json.loads((finished / "footprints.geojson").read_text())["type"] == "FeatureCollection"
    figures = {path.name.split("_")[0] for path in (finished / "figures").iterdir()}
    assert figures == {"curves.png", "threshold.png", "validation", "test"}
    assert not list(finished.rglob("*part*"))


@pytest.mark.parametrize("use", ["validation", "test"])
def test_counts_of_the_tiles_sum_to_those_of_the_run(finished, use):
    metrics = read_metrics(finished)[use]
    with (finished / f"{use}_tiles.csv").open() as file:
        tiles = list(csv.DictReader(file))
    assert len(tiles) == metrics["tiles"]
    for key in ("tp", "fp", "fn"):
        assert sum(int(tile[key]) for tile in tiles) == metrics[key]


def test_the_score_by_threshold_contains_the_score(finished):
    with (finished / "threshold.csv").open() as file:
        at = {float(point["threshold"]): float(point["f1"]) for point in csv.DictReader(file)}
    assert len(at) == 9
    metrics = read_metrics(finished)
    assert metrics["operating_point"]["threshold"] == 0.5
    assert at[0.5] == pytest.approx(metrics["test"]["f1"])


def test_the_best_checkpoint_is_selected_by_polygon_f1_on_all_validation_tiles(finished):
    metrics = read_metrics(finished)
    assert metrics["validation"]["selected_by"] == "val/f1"
    assert metrics["validation"]["tiles"] == metrics["data"]["tiles"]["validation"]


def test_open_values_of_the_config_are_filled_in(sn6_run, archive_root, tmp_path):
    open_keys = ("model.width", "trainer.precision", "model=")
    overrides = [line for line in small_run() if not line.startswith(open_keys)]
    done = sn6_run(*overrides, "model=unet", "model.depth=2", f"data.root={archive_root}")
    assert done.status == 0, done.err
    import yaml

    config = yaml.safe_load((tmp_path / "outputs/it/config.yaml").read_text())
    assert {key: config["model"][key] for key in ("width", "depth", "classes", "batch_norm", "padded")} == {
        "width": 64,
        "depth": 2,
        "classes": 1,
        "batch_norm": False,
        "padded": True,
    }
    assert config["trainer"]["precision"] in ("32-true", "bf16-mixed")


def test_a_finished_run_is_left_as_it_is(sn6_run, archive_root, tmp_path):
    overrides = (*small_run(), f"data.root={archive_root}")
    sn6_run(*overrides)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "outputs/it").rglob("*") if path.is_file()}
    again = sn6_run(*overrides)
    assert again.status == 0
    assert str(tmp_path / "outputs/it") in again.err
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_an_invalid_command_does_not_move_a_run_aside(sn6_run, archive_root, tmp_path):
    overrides = [*small_run(), f"data.root={archive_root}"]
    assert sn6_run(*overrides).status == 0
    assert sn6_run(*overrides, "resume=false", "seed=a").status == 1
    assert (tmp_path / "outputs/it/metrics.json").exists()
    assert not (tmp_path / "outputs/it.old1").exists()


def test_a_stopped_run_resumes(sn6_run, archive_root, tmp_path):
    sn6_run(*small_run(), f"data.root={archive_root}")
    (tmp_path / "outputs/it/metrics.json").unlink()  # as if stopped after the first epoch
    more = [line for line in small_run() if not line.startswith("trainer.max_epochs")]
    done = sn6_run(*more, "trainer.max_epochs=2", f"data.root={archive_root}")
    assert done.status == 0, done.err
    last = torch.load(tmp_path / "outputs/it/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 4


def test_windows_validate_as_whole_tiles_do(sn6_run, archive_root, tmp_path):
    losses = []
    for name, window in (("whole", "null"), ("windows", 96)):
        more = (f"data.root={archive_root}", f"window={window}", "window_overlap=32", f"name={name}")
        done = sn6_run(*small_run(model="fcn32s"), *more)
        assert done.status == 0, done.err
        losses.append(read_metrics(tmp_path / f"outputs/{name}")["test"]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_a_run_makes_its_simulated_archive(sn6_run, tmp_path):
    simulation = "simulation={scale: tiny, tiles: 12, test_tiles: 2, size: 64, seed: 2}"
    done = sn6_run(*small_run(), "data.root=made", "data.crop=32", simulation, "callbacks.calibration=null")
    assert done.status == 0, done.err
    assert len(list((tmp_path / "made/train/AOI_11_Rotterdam/SAR-Intensity").glob("*.tif"))) == 12
    assert read_metrics(tmp_path / "outputs/it")["test"]["scored_on"] == "test tiles"


def test_gradients_are_clipped_with_mixed_precision_and_a_fused_optimizer(sn6_run, archive_root, tmp_path):
    """The first moment of Adam is a mean of the gradients, so that its norm is no larger than theirs."""
    overrides = [line for line in small_run() if not line.startswith("trainer.precision=")]
    clipping = ("trainer.precision=bf16-mixed", "trainer.gradient_clip_val=1e-3", "optimizer.fused=true")
    done = sn6_run(*overrides, *clipping, f"data.root={archive_root}", "callbacks.calibration=null")
    assert done.status == 0, done.err
    last = torch.load(tmp_path / "outputs/it/checkpoints/last.ckpt", weights_only=True)
    (optimizer,) = last["optimizer_states"]
    moments = torch.cat([state["exp_avg"].flatten() for state in optimizer["state"].values()])
    assert 1e-5 < float(moments.norm()) < 1e-3


@pytest.mark.parametrize("name", ["1999", "2027-01-05", "on", "a=b, c"])
def test_names_stay_text(sn6_run, archive_root, tmp_path, name):
    overrides = [line for line in small_run() if not line.startswith("name=")]
    done = sn6_run(*overrides, f"name={name}", f"data.root={archive_root}", "callbacks.calibration=null")
    assert done.status == 0, done.err
    assert [path.name for path in Path("outputs").iterdir()] == [name]


@pytest.mark.parametrize(
    ("length", "steps"),
    [
        (["trainer.max_epochs=2", "trainer.check_val_every_n_epoch=3"], [4]),
        (["trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2"], [4, 6]),
        (["trainer.max_epochs=3", "trainer.max_steps=5", "trainer.check_val_every_n_epoch=2"], [4, 5]),
        (["trainer.max_epochs=3", "trainer.max_steps=4"], [2, 4]),
    ],
)
def test_the_end_of_a_training_is_validated(sn6_run, archive_root, tmp_path, length, steps):
    overrides = [*small_run(), f"data.root={archive_root}", "trainer.limit_train_batches=2", *length]
    done = sn6_run(*overrides, "callbacks.calibration=null")
    assert done.status == 0, done.err
    with (tmp_path / "outputs/it/metrics.csv").open(newline="") as file:
        assert [int(row["step"]) + 1 for row in csv.DictReader(file) if row["val/loss"]] == steps
