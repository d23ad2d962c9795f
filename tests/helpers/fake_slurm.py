"""Act as sbatch, srun, sacct and scontrol of a cluster of one machine and one job, without a queue.

The first argument is the name of the command; the state is in the folder FAKE_SLURM.
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
    """Return the `#SBATCH` lines of a script: `#SBATCH --ntasks-per-node=2` → `{"ntasks-per-node": "2"}`."""
    lines = [line.split("--", 1)[1] for line in script.read_text().splitlines() if line.startswith("#SBATCH --")]
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def sbatch(script: str) -> None:
    """Store the script and start it."""
    shutil.copy(script, STATE / "script.sh")
    submit()
    print(f"Submitted batch job {JOB}")


def submit() -> None:
    """Start the script, or start it again when the job is requeued."""
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


def srun(*arguments: str) -> None:
    """Start one process for each task."""
    last = "--error" if "--error" in arguments else "--output"
    command = list(arguments[arguments.index(last) + 2 :])
    tasks = [
        subprocess.Popen(command, env=os.environ | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)})
        for rank in range(int(os.environ["SLURM_NTASKS"]))
    ]
    (STATE / "tasks").write_text(" ".join(str(task.pid) for task in tasks))
    sys.exit(max(task.wait() for task in tasks))


def sacct(*_: str) -> None:
    """Report that the job runs."""
    print(f"JobID|State|NodeList\n{JOB}|RUNNING|127.0.0.1")


def scontrol(action: str, job: str) -> None:
    """Requeue the job: end its tasks and start the script again, a little later."""
    (STATE / "requeued").write_text(f"{action} {job}")
    subprocess.Popen([sys.executable, __file__, "restart"], start_new_session=True)


def restart() -> None:
    """End the tasks and start the script again, as the queue does."""
    time.sleep(1)
    for pid in (STATE / "tasks").read_text().split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    submit()


def install(folder: Path) -> dict[str, str]:
    """Write the commands to `folder`/bin, and return the environment in which they are found."""
    for command in ("sbatch", "srun", "sacct", "scontrol"):
        path = folder / "bin" / command
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {command} "$@"\n')
        path.chmod(0o755)
    return {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "FAKE_SLURM": str(folder)}


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    commands = {"sbatch": sbatch, "srun": srun, "sacct": sacct, "scontrol": scontrol, "restart": restart}
    commands[name](*arguments)
