"""Every run leaves `weights.safetensors`: the tensors and the operating point of its best checkpoint, and no more."""

import os
import shutil

import pytest
import torch
from helpers.commands import read_metrics
from helpers.forked import python_m

from sn6.checkpoints.loading import find_weights, read_checkpoint
from sn6.checkpoints.run_files import EO_WEIGHTS, FINAL_WEIGHTS
from sn6.checkpoints.weights_file import read_weights
from sn6.training.results import write_weights_file

ALLOWED = "allow=helpers.bright.FirstBand"


def tensors_of(checkpoint):
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    return {name.removeprefix("network."): tensor for name, tensor in state.items() if name.startswith("network.")}


def assert_same_tensors(one, two):
    assert one.keys() == two.keys()
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_a_radar_run_leaves_the_tensors_of_its_best_checkpoint(finished_run):
    run = finished_run / "outputs/it"
    path, best = run / "weights.safetensors", run / "checkpoints/best.ckpt"
    assert_same_tensors(read_weights(path)[0], tensors_of(best))
    assert path.stat().st_size < best.stat().st_size / 2  # no optimizer in it
    others = run / "metrics.json"  # whoever may read these may read the weights
    assert os.stat(path).st_mode == os.stat(others).st_mode


def test_its_metadata_are_those_of_the_checkpoint_after_the_calibration(calibrated_run):
    _, of_file = read_checkpoint(calibrated_run / "weights.safetensors", "checkpoint")
    _, of_best = read_checkpoint(calibrated_run / "checkpoints/best.ckpt", "checkpoint")
    assert of_file.model_copy(update={"versions": {}}) == of_best
    assert of_file.versions.keys() >= {"sn6", "torch", "python"}
    point = read_metrics(calibrated_run)["operating_point"]
    assert point["calibrated_on"] is not None
    assert of_file.footprints.items() <= point.items()
    assert of_file.footprints["threshold"] == point["threshold"]


def test_a_copy_without_checkpoints_predicts_the_same(calibrated_run, bright_root, tmp_path):
    shutil.copytree(calibrated_run, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints"))
    for name, run in (("a", calibrated_run), ("b", tmp_path / "copy")):
        words = [f"checkpoint={run}", ALLOWED, f"root={bright_root}", "split=train", f"out={tmp_path}/{name}"]
        done = python_m(["sn6.predict", *words], tmp_path)
        assert done.status == 0, done.err
    a, b = ((tmp_path / name / "proposals.csv").read_bytes() for name in ("a", "b"))
    assert a == b
    assert b"POLYGON ((" in a


def test_weights_that_cannot_be_used_end_no_run_and_leave_no_file_of_before(finished_run, tmp_path):
    broken = torch.load(finished_run / "outputs/it/checkpoints/best.ckpt", weights_only=True)
    name = next(name for name in broken["state_dict"] if name.startswith("network."))
    broken["state_dict"][name].fill_(float("nan"))
    torch.save(broken, tmp_path / "best.ckpt")
    (tmp_path / "weights.safetensors").write_bytes(b"of an earlier end")
    write_weights_file(tmp_path, str(tmp_path / "best.ckpt"))
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]


def test_which_file_of_a_folder_is_read(tmp_path):
    """A run in stages has those of its last stage; the SAR hand-off takes those of the first."""
    stages = ["sar/weights.safetensors", "eo/weights.safetensors", "sar/checkpoints/best.ckpt"]
    for name in stages:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_weights(tmp_path, "checkpoint", FINAL_WEIGHTS) == tmp_path / stages[2]
    assert find_weights(tmp_path, "checkpoint", EO_WEIGHTS) == tmp_path / stages[1]
    (tmp_path / stages[2]).unlink()
    assert find_weights(tmp_path, "checkpoint", FINAL_WEIGHTS) == tmp_path / stages[0]


@pytest.mark.slow
def test_each_stage_leaves_its_own_and_a_resumed_one_writes_them_again(archive_root, tmp_path):
    from helpers.resuming import RUN

    stages = "stages={eo:['data=eo'],sar:['data=sar','callbacks.sar_handoff.weights=${run_folder}/eo']}"
    words = ["sn6.run", *RUN, f"data.root={archive_root}", stages]
    assert python_m(words, tmp_path).status == 0
    run = tmp_path / "outputs/it"
    for stage in ("eo", "sar"):
        assert_same_tensors(
            read_weights(run / stage / "weights.safetensors")[0], tensors_of(run / stage / "checkpoints/best.ckpt")
        )
    assert not (run / "weights.safetensors").exists()
    for path in (run / "metrics.json", run / "sar/metrics.json"):  # as a run that was killed before it wrote them
        path.unlink()
    path = run / "sar/weights.safetensors"
    weights, metadata = read_weights(path)
    path.unlink()  # its tensors are mapped from it
    path.write_bytes(b"of an earlier end")
    done = python_m(words, tmp_path)
    assert done.status == 0, done.err
    assert_same_tensors(read_weights(path)[0], weights)
    assert read_weights(path)[1] == metadata
