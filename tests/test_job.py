"""A job of a sweep: its process, its GPUs, and whether it is finished already."""

import json
import pickle
from contextlib import ExitStack

import pytest
import yaml
from helpers.errors import user_error


def test_a_job_runs_in_a_process_of_its_own():
    from sn6.sweeps.job import run_in_subprocess

    assert run_in_subprocess(["--version"], {}) == 0
    assert run_in_subprocess(["--version"], {"PYTHONHOME": "/nowhere"}) == 1


def test_only_the_status_of_a_stopped_job_is_pickled():
    from sn6.sweeps.job import JobExit

    error = JobExit(143)
    error.attached = [error]  # as Hydra attaches the result of the job
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is SystemExit
    assert copied.code == 143
    assert not vars(copied)


def test_a_gpu_has_one_job_at_a_time(tmp_path, monkeypatch):
    from sn6.sweeps.gpus import acquire_gpus

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with ExitStack() as first:
        assert acquire_gpus(["0", "1", "2"], 2, first) == ["0", "1"]
        with ExitStack() as second:
            assert acquire_gpus(["0", "1", "2"], 1, second) == ["2"]
    with ExitStack() as third:
        assert acquire_gpus(["0", "1", "2"], 3, third) == ["0", "1", "2"]
    with ExitStack() as fourth, user_error("not_found", "trainer.devices", 4):
        acquire_gpus(["0", "1", "2"], 4, fourth)


@pytest.mark.parametrize("text", ["a=1,b=2", "it's", "C:\\x y", "[1,2]", "{a}"])
def test_a_quoted_name_reaches_a_job_unchanged(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from sn6.config.composition import quote

    (override,) = OverridesParser.create().parse_overrides([f"name={quote(text)}"])
    assert override.value() == text or str(override.value()) == text


def test_a_finished_job_is_known_without_a_process(tmp_path):
    """It has the same overrides, and the same config after null was resolved."""
    from hydra import compose, initialize_config_dir

    from sn6.config.composition import CONF, VERSION_BASE, to_plain
    from sn6.sweeps.job import is_finished
    from sn6.training.resolved_config import resolve

    overrides = ["model=unet", "data.crop=64"]
    names = ["name=it", "group=it", "folder=it", "run_folder=it", "data.root=archive", "trainer.accelerator=cpu"]

    def composed(*given):
        with initialize_config_dir(str(CONF), **VERSION_BASE):
            return compose("config", [*names, *given])

    def finished(*given):
        return is_finished(composed(*given), list(given), tmp_path)

    config = resolve(to_plain(composed("name=it/1", "folder=other", *overrides))).to_dict()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert not finished(*overrides)  # it may have been stopped
    (tmp_path / "metrics.json").write_text('{"validation": {"f1": 0.5}}')
    assert not finished(*overrides)
    for status in ("started", "failed"):
        (tmp_path / "job.json").write_text(json.dumps({"overrides": overrides, "status": status}))
        assert not finished(*overrides)
    (tmp_path / "job.json").write_text(json.dumps({"overrides": overrides, "status": "finished"}))
    assert finished(*overrides)
    assert finished(*overrides, "logger=wandb", "trainer.log_every_n_steps=3", "on_failed_job=stop")  # may change
    assert finished(*overrides, "model.classes=1")  # the default of the network
    assert not finished("model=unet", "data.crop=32")
    assert not finished(*overrides, "trainer.max_epochs=51")
    config["optimizer"]["lr"] = 0.5
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert not finished(*overrides)  # conf/ has another default now
