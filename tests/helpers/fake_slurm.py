"""A cluster of one machine: what sbatch, srun, sacct and scontrol do for one job, without the queue.

Called by the name of the command that it stands for; keeps its state in the folder FAKE_SLURM.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

STATE = Path(os.environ.get("FAKE_SLURM", "."))
JOB = "7"


def directives(script: Path) -> dict[str, str]:
    """`#SBATCH --ntasks-per-node=2` → `{"ntasks-per-node": "2"}`."""
    lines = [line.split("--", 1)[1] for line in script.read_text().splitlines() if line.startswith("#SBATCH --")]
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def sbatch(script: str) -> None:
    """Keeps the script and starts it."""
    shutil.copy(script, STATE / "script.sh")
    submit()
    print(f"Submitted batch job {JOB}")


def submit() -> None:
    """Starts the script, once more when it is queued again."""
    tasks = directives(STATE / "script.sh")["ntasks-per-node"]
    environment = os.environ | {
        "SLURM_JOB_ID": JOB,
        "SLURM_JOB_NAME": "sn6",
        "SLURM_NTASKS": tasks,
        "SLURM_NTASKS_PER_NODE": tasks,
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_JOB_NODELIST": "127.0.0.1",
    }
    with (STATE / "log.txt").open("a") as log:
        subprocess.Popen(
            ["bash", str(STATE / "script.sh")], env=environment, stdout=log, stderr=log, start_new_session=True
        )


def srun(*words: str) -> None:
    """One process for each task."""
    command = list(words[words.index("--error") + 2 if "--error" in words else words.index("--output") + 2 :])
    tasks = [
        subprocess.Popen(command, env=os.environ | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)})
        for rank in range(int(os.environ["SLURM_NTASKS"]))
    ]
    (STATE / "tasks").write_text(" ".join(str(task.pid) for task in tasks))
    sys.exit(max(task.wait() for task in tasks))


def sacct(*_: str) -> None:
    """All jobs run."""
    print(f"JobID|State|NodeList\n{JOB}|RUNNING|127.0.0.1")


def scontrol(action: str, job: str) -> None:
    """Ends the tasks and starts the script again."""
    (STATE / "requeued").write_text(f"{action} {job}")
    subprocess.Popen([sys.executable, __file__, "again"], start_new_session=True)


def again() -> None:
    """What the queue does a little later."""
    time.sleep(1)
    for pid in (STATE / "tasks").read_text().split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    submit()


if __name__ == "__main__":
    name, *words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    if name == Path(__file__).name:
        name, *words = words
    {"sbatch": sbatch, "srun": srun, "sacct": sacct, "scontrol": scontrol, "again": again}[name](*words)
