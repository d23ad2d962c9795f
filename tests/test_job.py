"""A job of a sweep: its process, its GPUs, and whether it is finished already."""

import json
import pickle
from contextlib import ExitStack

import pytest
import yaml
from helpers.errors import user_error

from sn6.files import exclusive_lock

TRACEBACK = 'Traceback (most recent call last):\n  File "own.py", line 3, in loss\n    raise\n    ^^^^^\n{}'


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


@pytest.mark.parametrize(
    ("status", "text", "reason"),
    [
        (1, "unknown key 'x'", "unknown key 'x'"),
        (1, TRACEBACK.format("ValueError: bad\nsecond line\n  indented"), "ValueError: bad"),
        (1, f"{TRACEBACK.format('KeyError: 1')}\n\nDuring that:\n\n{TRACEBACK.format('own.Wrong: 2')}", "own.Wrong: 2"),
        (1, '  File "own.py", line 3\n    x = (\n        ^\nSyntaxError: unclosed', "SyntaxError: unclosed"),
        (137, None, "SIGKILL"),
        (139, None, "SIGSEGV"),
        (2, None, "2"),
        (1, "", "1"),
    ],
)
def test_the_reason_of_a_failure_is_recorded(tmp_path, status, text, reason):
    from sn6.sweeps.comparison import read_jobs
    from sn6.sweeps.job_file import JobRecord

    record = JobRecord(tmp_path / "job", ["seed=1"], "validation.f1")
    record.start()
    assert read_jobs(tmp_path, []) == []
    if text is not None:
        (tmp_path / "job/error.txt").write_text(text)
    record.end(status)
    (job,) = read_jobs(tmp_path, ["seed"])
    assert (job.status, job.values, job.value) == ("failed", {"seed": "1"}, None)
    assert reason in job.error
    assert "\n" not in job.error
    record.start()  # again
    assert not (tmp_path / "job/error.txt").exists()
    record.end(137)
    assert "SIGKILL" in read_jobs(tmp_path, [])[0].error


def test_a_stopped_job_is_no_failed_one(tmp_path):
    from sn6.sweeps.comparison import best_first, read_jobs
    from sn6.sweeps.job_file import JobRecord, record_stopped_jobs

    for name, status in (("a", 143), ("b", 130), ("c", None)):
        record = JobRecord(tmp_path / name, [f"seed={name}"], "validation.f1")
        record.start()
        if status is not None:
            record.end(status)
    assert [(job.status, job.error) for job in read_jobs(tmp_path, [])] == [
        ("stopped", "stopped by SIGTERM"),
        ("stopped", "stopped by SIGINT"),
    ]
    with exclusive_lock(tmp_path / "c/.lock", "runs"):
        record_stopped_jobs(tmp_path, 143)
    assert len(read_jobs(tmp_path, [])) == 2  # c is still run
    record_stopped_jobs(tmp_path, 143)
    jobs = read_jobs(tmp_path, ["seed"])
    assert [job.status for job in jobs] == ["stopped"] * 3
    assert [job.folder for job in best_first(jobs, "validation.f1")] == ["a", "b", "c"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"status": "finished"}', '{"overrides": 3}', "\0\0"])
def test_a_broken_job_file_is_none(tmp_path, content):
    from sn6.sweeps.comparison import read_jobs
    from sn6.sweeps.job_file import JobRecord

    (tmp_path / "a").mkdir()
    (tmp_path / "a/job.json").write_text(content)
    (tmp_path / "a/metrics.json").write_text('{"validation": {"f1": 0.25}}')
    assert read_jobs(tmp_path, ["seed"]) == []
    JobRecord(tmp_path / "a", ["seed=1"], "validation.f1").end(0)
    assert [(job.status, job.value) for job in read_jobs(tmp_path, ["seed"])] == [("finished", 0.25)]


def test_an_error_before_the_run_is_written_for_the_sweep(tmp_path, monkeypatch):
    from sn6.errors import UserError
    from sn6.sweeps.failure import REASON_FILE, read_reason, record_reason

    monkeypatch.setenv(REASON_FILE, str(tmp_path / "error.txt"))
    with user_error("unknown_key"), record_reason():
        raise UserError("no such key", kind="unknown_key")
    assert read_reason(tmp_path / "error.txt") == "no such key"
    with pytest.raises(ZeroDivisionError), record_reason():
        1 / 0  # noqa: B018
    assert read_reason(tmp_path / "error.txt") == "no such key"  # the run itself has written its reason
    (tmp_path / "error.txt").unlink()
    with pytest.raises(ZeroDivisionError), record_reason():
        1 / 0  # noqa: B018
    assert read_reason(tmp_path / "error.txt").startswith("ZeroDivisionError")
