"""Jobs on a SLURM cluster: what is asked of it, one task a device, and going on when the place is taken away."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from helpers.commands import start, wait_for_end
from helpers.fake_slurm import directives

HERE = Path(__file__).parent


@pytest.fixture
def cluster(tmp_path):
    """A folder with the commands of SLURM, and the environment in which they are found."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    for command in ("sbatch", "srun", "sacct", "scontrol"):
        path = tmp_path / "bin" / command
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            (HERE / "helpers" / "fake_slurm.py")
            .read_text()
            .replace("__file__", repr(str(HERE / "helpers" / "fake_slurm.py")))
        )
        path.write_text(f"#!{sys.executable}\n" + path.read_text())
        path.chmod(0o755)
    return {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "FAKE_SLURM": str(tmp_path)}


def test_a_job_that_is_preempted_is_queued_again_and_goes_on(archive_root, tmp_path, cluster):
    sweep = line(
        archive_root,
        "cluster=slurm",
        "trainer.devices=2",
        "trainer.max_epochs=40",
        "callbacks.resume_point.every_n_steps=1",
    )
    process = start(tmp_path, sweep, **cluster)
    folder = tmp_path / "outputs/it"
    wait_for(lambda: list(folder.glob("checkpoints/last.ckpt")), process)
    asked = directives(tmp_path / "script.sh")
    assert asked["ntasks-per-node"] == asked["gpus-per-node"] == "2"
    assert asked["nodes"] == "1"
    assert asked["time"] == "1440"
    assert asked["signal"] == "USR2@120"
    assert "requeue" in asked
    for pid in (tmp_path / "tasks").read_text().split():
        os.kill(int(pid), signal.SIGUSR2)
    status, said = wait_for_end(process)
    log = (tmp_path / "log.txt").read_text()
    assert status == 0, said + log
    assert (tmp_path / "requeued").read_text() == "requeue 7"
    assert "going on from" in log
    job = json.loads((folder / "job.json").read_text())
    assert job["status"] == "finished"
    assert job["value"] == metrics(folder)["val_f1"]
    assert [rank["ranks"] for rank in told(folder)] == [2, 2]
