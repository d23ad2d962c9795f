"""The same values go to metrics.csv, W&B and TensorBoard; W&B stays offline without a key and never asks for one."""

import csv
import http.server
import json
import sys
import threading
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas
import pytest
import shapely
import torch
from helpers.commands import assert_fails, assert_one_line, small_run, start, wait_for_end
from helpers.errors import user_error
from helpers.wandb_file import read_offline_runs
from lightning.pytorch.callbacks import ModelCheckpoint
from matplotlib.image import imread

STAGES = "stages={eo:['data=eo'],sar:['data=sar','callbacks.sar_handoff.weights=${run_folder}/eo']}"
SCALARS = {
    "train/loss",
    "val/f1",
    "val/precision",
    "val/recall",
    "val/iou",
    "val/loss",
    "test/f1",
    "test/oracle_f1",
    "lr-AdamW",
    "throughput/step_seconds",
    "throughput/crops_per_second",
    "throughput/tiles_per_second",
}


@pytest.fixture(autouse=True)
def without_a_key(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)  # Lightning sets it where a run is offline
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked at the terminal"))


def csv_values(path, key):
    with path.open() as file:
        return [float(row[key]) for row in csv.DictReader(file) if row.get(key)]


def covered(root, image_id):
    """Return which pixels of a tile have their centre in a building of the table of labels."""
    (table,) = root.rglob("SN6_Train_AOI_11_Rotterdam_Buildings.csv")
    rows = pandas.read_csv(table).query("ImageId == @image_id")
    buildings = shapely.union_all(shapely.from_wkt(rows["PolygonWKT_Pix"]))
    y, x = np.mgrid[:128, :128] + 0.5
    return shapely.contains_xy(buildings, x, y)


@pytest.mark.slow
def test_a_run_of_two_stages_is_on_all_dashboards(sn6_run, archive_root, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loggers = ["logger=[wandb,tensorboard]", "logger.wandb.checkpoint_artifact=true"]
    more = ["trainer.limit_train_batches=4", "trainer.limit_val_batches=null", "callbacks.image_logging.tiles=2"]
    done = sn6_run(*small_run(), f"data.root={archive_root}", STAGES, *loggers, *more)
    assert done.status == 0, done.err
    runs = {}
    for stage in ("eo", "sar"):
        folder = tmp_path / "outputs/it" / stage
        (runs[stage],) = read_offline_runs(folder)
        history = runs[stage]["history"]
        assert set(history) >= SCALARS
        for key in SCALARS:
            assert csv_values(folder / "metrics.csv", key) == pytest.approx(history[key])
        assert runs[stage]["config"]["trainer"]["max_epochs"] == 1
        pictures = [key for key in history if key.startswith("validation/") and key != "validation/tiles"]
        assert len(pictures) == 2
        for key in pictures:
            (picture,) = history[key][-1]["filenames"]
            (path,) = folder.rglob(Path(picture).name)
            assert path.stat().st_size <= 200_000
            (masks,) = history[key.replace("validation/", "validation_masks/")][-1]["all_masks"]
            assert set(masks) == {"ground truth", "proposals"}
            (path,) = folder.rglob(Path(masks["ground truth"]["path"]).name)
            np.testing.assert_array_equal(imread(path) > 0, covered(archive_root, key.partition("/")[2]))
        assert {"validation/tiles", "test/tiles", "test/threshold"} <= set(history)
        with (folder / "validation_tiles.csv").open() as file:
            assert history["validation/tiles"][-1]["nrows"] == len(list(csv.DictReader(file)))
        assert runs[stage]["artifacts"]
        metrics, summary = json.loads((folder / "metrics.json").read_text()), runs[stage]["summary"]
        for prefix, part in (("val", "validation"), ("test", "test")):
            for key in ("f1", "precision", "recall", "iou", "loss", "tp", "fp", "fn"):
                assert summary[f"{prefix}/{key}"] == pytest.approx(metrics[part][key])
        assert summary["val/epoch"] == metrics["validation"]["epoch"]
        assert runs[stage]["job_type"] == stage
        product = {"eo": "PS-RGB", "sar": "SAR-Intensity"}[stage]
        assert set(runs[stage]["tags"]) == {stage, "TernausNet", "mask", "BCE", "SpaceNet6", product}
        board = EventAccumulator(str(next(folder.glob("tensorboard/events*")).parent))
        board.Reload()
        assert set(board.Tags()["scalars"]) >= SCALARS
        values = [event.value for event in board.Scalars("train/loss")]
        assert values == pytest.approx(csv_values(folder / "metrics.csv", "train/loss"), rel=1e-6)
        assert {*pictures, "test/threshold"} <= set(board.Tags()["images"])
        assert "validation/tiles/text_summary" in board.Tags()["tensors"]
        assert board.Scalars("final/test/f1")[-1].value == pytest.approx(metrics["test"]["f1"], rel=1e-6)
        assert set(board.summary_metadata) >= {"_hparams_/experiment", "_hparams_/session_start_info"}
    assert "handoff" in runs["sar"]["history"]
    assert runs["eo"]["id"] != runs["sar"]["id"]
    assert (runs["eo"]["name"], runs["sar"]["name"]) == ("it/eo", "it/sar")
    assert runs["eo"]["group"] == runs["sar"]["group"] == "it"


def test_the_summary_keeps_the_best_validation(tmp_path):
    from sn6.training.loggers import WandbRunLogger, finish_loggers

    logger, checkpoint = WandbRunLogger(str(tmp_path), offline=True), ModelCheckpoint(monitor="val/f1", mode="max")
    checkpoint.best_model_score = torch.tensor(0.5)
    for step, (f1, loss) in enumerate([(0.5, 3.0), (0.4, 2.0)]):
        logger.log_metrics({"val/f1": f1, "val/loss": loss}, step)
        checkpoint.current_score = torch.tensor(f1)
        logger.after_save_checkpoint(checkpoint)  # as of the last epoch, which is no better
    finish_loggers()
    (run,) = read_offline_runs(tmp_path)
    assert run["history"]["val/f1"] == [0.5, 0.4]
    assert (run["summary"]["val/f1"], run["summary"]["val/loss"]) == (0.5, 3.0)


def test_a_resumed_run_keeps_its_id(sn6_run, archive_root, tmp_path):
    overrides = [*small_run(), f"data.root={archive_root}", "logger=[wandb,tensorboard]"]
    assert sn6_run(*overrides).status == 0
    (tmp_path / "outputs/it/metrics.json").unlink()  # as if stopped after the first epoch
    without_length = [override for override in overrides if not override.startswith("trainer.max_epochs")]
    done = sn6_run(*without_length, "trainer.max_epochs=2")
    assert done.status == 0, done.err
    folders = list((tmp_path / "outputs/it/wandb").glob("offline-run-*"))  # named offline-run-<time>-<id>
    assert len(folders) == 2
    assert len({folder.name.rpartition("-")[2] for folder in folders}) == 1


def test_a_missing_tensorboard_is_reported_before_anything_is_made(sn6_run, archive_root, tmp_path, monkeypatch):
    overrides = [*small_run(), f"data.root={archive_root}", "logger=[wandb,tensorboard]"]
    for package in ("tensorboard", "tensorboardX"):
        monkeypatch.setitem(sys.modules, package, None)  # an import fails as if it were not installed
    assert_fails(sn6_run(*overrides), "unavailable", "logger.tensorboard")
    assert_fails(sn6_run(*overrides, STAGES), "unavailable", "logger.tensorboard")
    assert_fails(sn6_run("-m", "seed=0,1", *overrides), "unavailable", "logger.tensorboard")
    assert not (tmp_path / "outputs").exists() or not any((tmp_path / "outputs").iterdir())


def test_an_error_of_wandb_is_reported():
    import wandb

    from sn6.training.loggers import WandbRunLogger, log_config

    logger = Mock(spec=WandbRunLogger)
    logger.log_hyperparams.side_effect = wandb.errors.CommError("no network")
    with user_error("unavailable", key="logger.wandb"):
        log_config(logger, {})


@pytest.mark.slow
def test_a_refused_key_is_reported(archive_root, tmp_path):
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(401)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps({"errors": [{"message": "invalid API key"}]}).encode())

        do_GET = do_POST

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {"WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}", "WANDB_API_KEY": "a" * 40}
        overrides = [*small_run(), f"data.root={archive_root}", "logger=wandb"]
        # in a process of its own: W&B reads its settings once a process
        status, err = wait_for_end(start(tmp_path, overrides, **environment))
        server.shutdown()
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("sn6: ")]  # W&B adds lines after it
    assert_one_line(status, line, "logger.wandb.offline=true")
