"""Commands import only what they use: imports cost seconds of every start, and memory."""

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "lightning", "torchmetrics", "torchvision", "timm", "matplotlib", "wandb", "tensorboard", "optuna"}
COMMANDS = ("run", "predict", "export", "score", "simulate", "download", "check", "show", "compare")


def imported(command, *overrides, cwd=None):
    """Exit status and the heavy packages that `python -m sn6.<command> overrides...` has imported at its end."""
    code = f"""
import json, runpy, sys
sys.argv = {["sn6." + command, *overrides]!r}
status = 0
try:
    runpy.run_module("sn6.{command}", run_name="__main__", alter_sys=True)
except SystemExit as stop:
    status = stop.code or 0
print(json.dumps([status, sorted({HEAVY!r} & set(sys.modules))]))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=cwd)
    status, heavy = json.loads(done.stdout.splitlines()[-1])
    return status, heavy


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command):
    assert imported(command, "--help") == (0, [])


@pytest.mark.parametrize(
    ("overrides", "status"), [(["--cfg", "job"], 0), (["--info"], 0), (["model=unett"], 1), (["model.widht=3"], 1)]
)
def test_the_config_is_shown_and_an_unknown_key_refused_without_torch(overrides, status, tmp_path):
    assert imported("run", *overrides, cwd=tmp_path) == (status, [])


def test_a_training_imports_what_it_uses():
    """VGG is built without timm, which would import W&B; loggers are imported when they are chosen."""
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
    overrides = [f"truth={labels}", f"proposals={proposals}", f"root={archive_root}", f"out={tmp_path / 'score.json'}"]
    assert imported("score", *overrides) == (0, [])
    assert json.loads((tmp_path / "score.json").read_text())["overall"]["f1"] == 1
