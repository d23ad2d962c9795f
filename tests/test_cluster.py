"""Jobs on a SLURM cluster: what is requested, one task per device, and resuming after a preemption."""

import json
import os
import signal

import pytest
from helpers.commands import read_metrics, start, wait_for_end
from helpers.fake_slurm import directives, install
from helpers.sweeps import read_ranks, small_sweep, wait_until

pytest.importorskip("hydra_plugins.hydra_submitit_launcher")


def test_a_job_requests_one_task_and_one_gpu_for_each_device():
    from hydra import compose, initialize_config_dir

    from sn6.config.composition import CONF, VERSION_BASE

    with initialize_config_dir(str(CONF), **VERSION_BASE):
        overrides = ["cluster=slurm", "trainer.devices=4", "trainer.num_nodes=2", "name=it"]
        launcher = compose("config", overrides, return_hydra_config=True).hydra.launcher
    assert (launcher.nodes, launcher.tasks_per_node, launcher.gpus_per_node) == (2, 4, 4)


@pytest.mark.slow
def test_a_preempted_job_is_requeued_and_resumes(archive_root, tmp_path):
    sweep = small_sweep(
        archive_root,
        "cluster=slurm",
        "trainer.devices=2",
        "trainer.max_epochs=15",
        "callbacks.resume_point.every_n_steps=1",
    )
    process = start(tmp_path, sweep, **install(tmp_path))
    folder = tmp_path / "outputs/it"
    last = folder / "checkpoints/last.ckpt"
    wait_until(last.exists, process)
    requested = directives(tmp_path / "script.sh")
    assert requested["ntasks-per-node"] == requested["gpus-per-node"] == "2"
    assert requested["nodes"] == "1"
    assert requested["time"] == "1440"
    assert requested["signal"] == "USR2@120"
    assert "requeue" in requested
    for pid in (tmp_path / "tasks").read_text().split():
        os.kill(int(pid), signal.SIGUSR2)
    status, err = wait_for_end(process)
    log = "".join(path.read_text() for path in tmp_path.rglob("*_log.*"))
    assert status == 0, err + log
    assert (tmp_path / "requeued").read_text() == "requeue 7"
    assert str(last) in log  # from which it resumed
    job = json.loads((folder / "job.json").read_text())
    assert job["status"] == "finished"
    assert job["value"] == read_metrics(folder)["validation"]["f1"]
    assert [rank["ranks"] for rank in read_ranks(folder)] == [2, 2]
