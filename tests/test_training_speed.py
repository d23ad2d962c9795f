"""What makes a training faster changes nothing else."""

import json

import pytest
import torch
from helpers.commands import small_run, start, wait_for_end

UNET = ("model=unet", "model.width=4", "model.depth=2")


def line(root, name, *more):
    """The words of a short run."""
    given = ("name=", "trainer.precision=", "trainer.accelerator=")
    return [
        *(word for word in small_run("unet") if not word.startswith(given)),
        *UNET,
        f"data.root={root}",
        f"name={name}",
        *more,
    ]


def left(folder, name):
    """The numbers of a run, and the names in its checkpoint."""
    metrics = json.loads((folder / "outputs" / name / "metrics.json").read_text())
    path = folder / "outputs" / name / "checkpoints/best.ckpt"
    return metrics, list(torch.load(path, weights_only=True, map_location="cpu")["state_dict"])


def trained(run, folder, root, name, *more):
    """A run in this process."""
    done = run(*line(root, name, *more))
    assert done.status == 0, done.err
    return left(folder, name)


def trained_apart(folder, root, name, *more):
    """A run in a process of its own: types are not checked there, which cannot be compiled."""
    status, said = wait_for_end(start(folder, line(root, name, *more)))
    assert status == 0, said
    return left(folder, name)


CPU = "trainer.accelerator=cpu"
FULL = "trainer.precision=32-true"


def test_a_compiled_network_gives_the_same_numbers_and_the_same_names(archive_root, tmp_path):
    plain, names = trained_apart(tmp_path, archive_root, "plain", CPU, FULL)
    compiled, compiled_names = trained_apart(tmp_path, archive_root, "compiled", CPU, FULL, "compile=true")
    assert compiled_names == names
    assert compiled["val_loss"] == pytest.approx(plain["val_loss"], rel=1e-4)


def test_half_precision_unfused_and_clipped_runs_come_near(sn6_run, archive_root, tmp_path):
    plain, _ = trained(sn6_run, tmp_path, archive_root, "plain", CPU, FULL)
    half, _ = trained(sn6_run, tmp_path, archive_root, "half", CPU, "trainer.precision=bf16-mixed")
    assert half["val_loss"] == pytest.approx(plain["val_loss"], rel=0.02)
    assert half["precision_of_arithmetic"] == "bf16-mixed"
    unfused, _ = trained(sn6_run, tmp_path, archive_root, "unfused", CPU, FULL, "optimizer.fused=false")
    assert unfused["val_loss"] == pytest.approx(plain["val_loss"], rel=1e-5)
    clipped, _ = trained(sn6_run, tmp_path, archive_root, "clipped", CPU, FULL, "trainer.gradient_clip_val=1e-12")
    assert clipped["val_loss"] != pytest.approx(plain["val_loss"], rel=1e-7)


@pytest.mark.parametrize(
    ("profiler", "says"),
    [("simple", "run_training_batch"), ("advanced", "cumulative time"), ("pytorch", "Self CPU time total")],
)
def test_a_profile_lies_in_the_folder_of_the_run(sn6_run, archive_root, tmp_path, profiler, says):
    trained(sn6_run, tmp_path, archive_root, "it", CPU, FULL, f"trainer.profiler={profiler}")
    (path,) = (tmp_path / "outputs/it").glob("fit-profile*.txt")
    assert says in path.read_text()


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_every_precision_on_a_gpu(archive_root, tmp_path, precision, compiled):
    plain, names = trained_apart(tmp_path, archive_root, "plain", CPU, FULL)
    asked = ("trainer.accelerator=gpu", f"trainer.precision={precision}", f"compile={str(compiled).lower()}")
    other, other_names = trained_apart(tmp_path, archive_root, "other", *asked)
    assert other_names == names
    assert other["val_loss"] == pytest.approx(plain["val_loss"], rel=0.02)
    assert other["val_f1"] == pytest.approx(plain["val_f1"], abs=0.02)


@pytest.mark.gpu
def test_memory_of_the_gpu_is_logged(sn6_run, archive_root, tmp_path):
    trained(sn6_run, tmp_path, archive_root, "it", "trainer.accelerator=gpu", "trainer.limit_train_batches=4")
    assert "speed/gpu_gib" in (tmp_path / "outputs/it/metrics.csv").read_text().splitlines()[0]
