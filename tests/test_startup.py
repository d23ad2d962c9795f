"""What a command need not import, it does not: seconds of every start, and memory for as long as it runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import sn6

HEAVY = {"torch", "lightning", "torchmetrics", "torchvision", "timm", "matplotlib", "wandb", "tensorboard", "optuna"}
DOORS = sorted(
    path.stem for path in Path(sn6.__file__).parent.glob("*.py") if '__name__ == "__main__"' in path.read_text()
)


def imported(door, *words, cwd=None):
    """Exit status and the heavy packages that `python -m sn6.<door> words...` has imported at its end."""
    code = f"""
import json, runpy, sys
sys.argv = {["sn6." + door, *words]!r}
status = 0
try:
    runpy.run_module("sn6.{door}", run_name="__main__", alter_sys=True)
except SystemExit as stop:
    status = stop.code or 0
print(json.dumps([status, sorted({HEAVY!r} & set(sys.modules))]))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=cwd)
    status, heavy = json.loads(done.stdout.splitlines()[-1])
    return status, heavy


def test_all_doors_are_looked_at():
    assert {"run", "predict", "score", "simulate", "download", "check", "show", "statistics"} <= set(DOORS)


@pytest.mark.parametrize("door", DOORS)
def test_help_imports_nothing_heavy(door):
    assert imported(door, "--help") == (0, [])


@pytest.mark.parametrize(
    ("words", "status"), [(["--cfg", "job"], 0), (["--info"], 0), (["model=unett"], 1), (["model.widht=3"], 1)]
)
def test_the_config_is_shown_and_a_wrong_word_refused_without_torch(words, status, tmp_path):
    assert imported("run", *words, cwd=tmp_path) == (status, [])


def test_a_training_imports_what_it_uses():
    """Networks are built and tables drawn without timm, which would bring W&B; loggers come when they are chosen."""
    code = (
        "import sn6.run, sn6.training.experiment, sn6.models.fcn, sn6.models.ternausnet, sn6.callbacks.sar_handoff, sys"
    )
    unused = {"timm", "wandb", "tensorboard", "optuna", "geopandas", "pandas"}
    command = [sys.executable, "-c", f"{code}; sys.exit(str({unused!r} & set(sys.modules)))"]
    assert subprocess.run(command, capture_output=True, text=True).stderr.strip() == "set()"


def test_a_score_is_counted_without_torch(archive_root, tmp_path):
    labels = next(archive_root.glob("test_public_truth/*.csv"))
    proposals = tmp_path / "proposals.csv"
    proposals.write_text(labels.read_text().replace("Mean_Building_Height", "Confidence", 1))
    words = [f"truth={labels}", f"proposals={proposals}", f"root={archive_root}", f"out={tmp_path / 'score.json'}"]
    assert imported("score", *words) == (0, [])
    assert json.loads((tmp_path / "score.json").read_text())["overall"]["f1"] == 1
