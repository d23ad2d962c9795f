"""Act as the commands of a cluster of one machine, without a queue: jobs and arrays start when they are submitted.

The first argument is the name of the command; the state is in the folder FAKE_SLURM: `states/ID` of each job, which
says RUNNING, COMPLETED, FAILED or CANCELLED, `script.sh` of the last submission, and `tasks`, its processes.
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
FIRST = 7  # id of the first job
COMMANDS = ("sbatch", "srun", "sacct", "scontrol", "squeue", "scancel")


def directives(script: Path) -> dict[str, str]:
    """Return the `#SBATCH` lines of a script: `#SBATCH --ntasks-per-node=2` → `{"ntasks-per-node": "2"}`."""
    lines = [line.split("--", 1)[1] for line in script.read_text().splitlines() if line.startswith("#SBATCH --")]
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def sbatch(script: str) -> None:
    """Store the script and start it, once for each job of an array."""
    (STATE / "states").mkdir(exist_ok=True)
    number = FIRST + len(list(STATE.glob("script*_.sh")))
    shutil.copy(script, STATE / "script.sh")
    shutil.copy(script, STATE / f"script{number}_.sh")
    (STATE / "tasks").write_text("")
    array = directives(STATE / "script.sh").get("array", "").strip("'")
    last = int(array.partition("%")[0].partition("-")[2]) if array else None
    for job in [str(number)] if last is None else [f"{number}_{index}" for index in range(last + 1)]:
        start(job)
    print(f"Submitted batch job {number}")


def start(job: str) -> None:
    """Start the script of a job in the background."""
    state(job).write_text("RUNNING")
    with (STATE / "log.txt").open("a") as log:
        subprocess.Popen([sys.executable, __file__, "attend", job], stdout=log, stderr=log, start_new_session=True)


def attend(job: str) -> None:
    """Run the script of a job, and store how it ended."""
    number, _, index = job.partition("_")
    script = STATE / f"script{number}_.sh"
    tasks = directives(script)["ntasks-per-node"]
    environment = os.environ | {
        "SLURM_JOB_ID": str(int(number) + int(index or 0)),
        "SLURM_JOB_NAME": "sn6",
        "SLURM_NTASKS": tasks,
        "SLURM_NTASKS_PER_NODE": tasks,
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_JOB_NODELIST": "127.0.0.1",
    }
    if index:
        environment |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": index}
    again = STATE / f"again{job}"
    status = subprocess.call(["bash", str(script)], env=environment)
    while again.exists():  # it has been requeued
        again.unlink()
        status = subprocess.call(["bash", str(script)], env=environment)
    if state(job).read_text() == "RUNNING":
        state(job).write_text("FAILED" if status else "COMPLETED")


def state(job: str) -> Path:
    """Return the file of the state of a job."""
    return STATE / "states" / job


def srun(*arguments: str) -> None:
    """Start one process for each task, with its output in the files that are requested."""
    last = "--error" if "--error" in arguments else "--output"
    command = list(arguments[arguments.index(last) + 2 :])
    tasks = [start_task(command, arguments, rank) for rank in range(int(os.environ["SLURM_NTASKS"]))]
    with (STATE / "tasks").open("a") as file:
        file.write("".join(f"{task.pid} " for task in tasks))
    (STATE / f"pids{this_job()}").write_text(" ".join(str(task.pid) for task in tasks))
    sys.exit(max(abs(task.wait()) for task in tasks))


def start_task(command: list[str], arguments: tuple[str, ...], rank: int) -> subprocess.Popen:
    """Start the process of a task in a session of its own."""
    ranks = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
    out, err = (open_log(arguments[arguments.index(name) + 1], rank) for name in ("--output", "--error"))
    return subprocess.Popen(command, env=os.environ | ranks, stdout=out, stderr=err, start_new_session=True)


def open_log(pattern: str, rank: int) -> int:
    """Open the log of a task to append to it."""
    number, _, index = this_job().partition("_")
    for letter, value in {"A": number, "a": index, "j": this_job(), "t": rank}.items():
        pattern = pattern.replace(f"%{letter}", str(value))
    Path(pattern).parent.mkdir(parents=True, exist_ok=True)
    return os.open(pattern, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def this_job() -> str:
    """Return the id of the job that this process is in."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


def sacct(*arguments: str) -> None:
    """Report the states of all jobs, as `-o JobID,State,NodeList` or `--format=JobID,State` with `--noheader`."""
    if "--noheader" not in arguments:
        print("JobID|State|NodeList")
    for path in sorted((STATE / "states").glob("*")):
        print(f"{path.name}|{path.read_text()}|127.0.0.1")


def squeue(*arguments: str) -> None:
    """Print the ids of the jobs that run, of those that are named; an error where none of these is known."""
    numbers = next(one.partition("=")[2].split(",") for one in arguments if one.startswith("--jobs="))
    known = [path for path in (STATE / "states").glob("*") if path.name.partition("_")[0] in numbers]
    if not known:
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    print("\n".join(path.name for path in known if path.read_text() == "RUNNING"))


def scancel(*numbers: str) -> None:
    """End the tasks of jobs and arrays."""
    with (STATE / "cancelled").open("a") as file:
        file.write("".join(f"{number}\n" for number in numbers))
    for path in (STATE / "states").glob("*"):
        if path.name.partition("_")[0] in numbers and path.read_text() == "RUNNING":
            path.write_text("CANCELLED by 0")
            end_tasks(path.name)


def end_tasks(job: str) -> None:
    """Kill the tasks of a job."""
    kill(*(STATE / f"pids{job}").read_text().split())


def kill(*pids: str) -> None:
    """Kill tasks and the processes that they have started."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.killpg(int(pid), signal.SIGKILL)


def scontrol(action: str, job: str) -> None:
    """Requeue the job: its script starts again when its tasks have ended, which are killed a little later."""
    (STATE / "requeued").write_text(f"{action} {job}")
    (STATE / f"again{job}").touch()
    pids = (STATE / f"pids{job}").read_text().split()
    subprocess.Popen([sys.executable, __file__, "kill_soon", *pids], start_new_session=True)


def kill_soon(*pids: str) -> None:
    """Kill tasks after a second."""
    time.sleep(1)
    kill(*pids)


def install(folder: Path) -> dict[str, str]:
    """Write the commands to `folder`/bin, and return the environment in which they are found."""
    for command in COMMANDS:
        path = folder / "bin" / command
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {command} "$@"\n')
        path.chmod(0o755)
    return {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "FAKE_SLURM": str(folder)}


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    globals()[name](*arguments)
