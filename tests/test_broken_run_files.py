"""Files in a run's folder that are empty, cut, foreign or damaged: one line, or the run is not finished."""

import random
import shutil

import pytest
import torch
from helpers.errors import user_error
from helpers.resuming import RUN, assert_same_run, log_of, metrics_of
from helpers.stopping import read_user_error, run_and_stop
from helpers.training import make_datamodule

from sn6.checkpoints.loading import load_tensors
from sn6.checkpoints.weights_file import read_weights, write_weights
from sn6.errors import UserError
from sn6.training.resume import rows_before

EMPTY, CUT, BINARY, LIST, FOREIGN = "empty", "cut", "binary", "list", "foreign"
DAMAGES = (EMPTY, CUT, BINARY, LIST, FOREIGN)


def damage(path, how):
    """Replace a file by something else."""
    content = path.read_bytes()
    path.write_bytes(
        {
            EMPTY: b"",
            CUT: content[: len(content) // 2],
            BINARY: bytes(range(256)),
            LIST: b"[1, 2]\n",
            FOREIGN: b'{"accuracy": 0.9, "model": "resnet", "test": 3}\n',
        }[how]
    )


@pytest.fixture(scope="module")
def overrides(archive_root):
    return [*RUN, f"data.root={archive_root}"]


@pytest.fixture(scope="module")
def finished(finished_run):
    return finished_run / "outputs/it"


@pytest.fixture(scope="module")
def stopped(killed_run):
    return killed_run / "outputs/it"


@pytest.fixture
def run_of(tmp_path):
    """Copy a run to `outputs/it` of a folder for one test."""
    return lambda run: shutil.copytree(run, tmp_path / "outputs/it")


@pytest.mark.parametrize("how", DAMAGES)
def test_broken_metrics_are_not_finished_and_foreign_ones_are_refused(overrides, finished, run_of, tmp_path, how):
    run = run_of(finished)
    damage(run / "metrics.json", how)
    status = run_and_stop(overrides, tmp_path)
    assert "Traceback" not in log_of(tmp_path)
    if how in (LIST, FOREIGN):
        assert (status, read_user_error(tmp_path)) == (1, ("wrong_data", str(run / "metrics.json"), None))
    else:
        assert status == 0, log_of(tmp_path)[-3000:]
        assert_same_run(run, finished)


@pytest.mark.parametrize("name", ["config.yaml", "inputs.json"])
@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("state", ["stopped", "finished"])
def test_broken_config_is_one_line(overrides, run_of, tmp_path, request, name, how, state):
    run = run_of(request.getfixturevalue(state))
    damage(run / name, how)
    assert run_and_stop(overrides, tmp_path) == 1
    kind, key, _ = read_user_error(tmp_path)
    assert kind in ("unreadable", "wrong_data", "conflict")
    assert key == str(run / name) or kind == "conflict"
    assert "Traceback" not in log_of(tmp_path)
    assert log_of(tmp_path).strip().splitlines()[-1].startswith("sn6: ")


@pytest.mark.parametrize("how", DAMAGES)
def test_broken_table_of_a_stopped_run(overrides, finished, stopped, run_of, tmp_path, how):
    run = run_of(stopped)
    damage(run / "metrics.csv", how)
    assert run_and_stop(overrides, tmp_path) == 0, log_of(tmp_path)[-3000:]
    assert metrics_of(run) == metrics_of(finished)


def test_a_row_that_was_cut_short_is_left_out(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"epoch,step,val\r\n0,1,0.25\r\n0,2,0.5\r\n0,3,0.12")  # of 0.125
    assert rows_before(path, 9) == [
        {"epoch": "0", "step": "1", "val": "0.25"},
        {"epoch": "0", "step": "2", "val": "0.5"},
    ]


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
@pytest.mark.parametrize("seed", range(3))
def test_flipped_bit_in_a_checkpoint(overrides, finished, stopped, run_of, tmp_path, name, seed):
    run = run_of(stopped)
    path = run / "checkpoints" / name
    content = bytearray(path.read_bytes())
    tensor = next(iter(torch.load(path, weights_only=True)["state_dict"].values()))
    place = content.index(bytes(tensor.untyped_storage()))  # the weights of the first layer
    content[place + random.Random(seed).randrange(tensor.nbytes)] ^= 1 << seed
    path.write_bytes(content)
    torch.load(path, weights_only=True)  # torch notices nothing
    status = run_and_stop(overrides, tmp_path)
    assert "Traceback" not in log_of(tmp_path)
    if name == "last.ckpt":
        assert status == 0, log_of(tmp_path)[-3000:]
        assert_same_run(run, finished)
    else:
        assert (status, read_user_error(tmp_path)[0]) == (1, "unreadable")


@pytest.mark.parametrize("how", [*DAMAGES, "missing", "another program's"])
def test_broken_best_checkpoint(overrides, stopped, run_of, tmp_path, how):
    run = run_of(stopped)
    path = run / "checkpoints/best.ckpt"
    if how == "missing":
        path.unlink()
    elif how == "another program's":
        torch.save({"state_dict": {"conv.weight": torch.zeros(3)}}, path)
    else:
        damage(path, how)
    assert run_and_stop(overrides, tmp_path) == 1
    assert read_user_error(tmp_path)[0] in ("unreadable", "not_found", "conflict")
    assert "Traceback" not in log_of(tmp_path)


def test_last_checkpoint_of_another_run_is_refused(overrides, stopped, run_of, tmp_path):
    """The weights fit, and the run would go on from those of another one."""
    run = run_of(stopped)
    path = run / "checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"]["config"]["seed"] = 7
    torch.save(checkpoint, path)
    assert run_and_stop(overrides, tmp_path) == 1
    assert read_user_error(tmp_path)[:2] == ("conflict", str(path))


def read(path):
    """Read a file of weights: the tensors."""
    return read_weights(path)[0] if path.suffix == ".safetensors" else load_tensors(path, "checkpoint")["state_dict"]


@pytest.mark.parametrize("name", ["weights.safetensors", "best.ckpt"])
def test_every_flipped_bit_is_noticed_or_does_no_harm(tmp_path, name):
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1.5, -2.5]), "c": torch.tensor(7)}
    path = tmp_path / name
    if path.suffix == ".safetensors":
        write_weights(path, weights, {"threshold": 0.5})
    else:
        torch.save({"state_dict": weights}, path)
    content, noticed = path.read_bytes(), 0
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            tensors = read(path)
        except (UserError, KeyError):
            noticed += 1
        else:
            assert tensors.keys() == weights.keys()
            assert all(torch.equal(tensors[key], tensor) for key, tensor in weights.items())
    assert noticed > len(content) / 3


def test_checkpoint_written_without_checksums_is_read(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"state_dict": {"a": torch.ones(3)}}, tmp_path / "other.ckpt")
    finally:
        torch.serialization.set_crc32_options(before)
    assert torch.equal(load_tensors(tmp_path / "other.ckpt", "checkpoint")["state_dict"]["a"], torch.ones(3))


def test_weights_of_a_version_without_a_digest_are_read(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(3)}, tmp_path / "old.safetensors", {"sn6": '{"epoch": 3}'})
    weights, metadata = read_weights(tmp_path / "old.safetensors")
    assert torch.equal(weights["a"], torch.ones(3))
    assert metadata == {"epoch": 3}
    save_file({"a": torch.ones(3)}, tmp_path / "list.safetensors", {"sn6": "[1]"})
    with user_error("unreadable", tmp_path / "list.safetensors"):
        read_weights(tmp_path / "list.safetensors")


def test_other_pixels_in_files_of_the_same_size_are_refused(archive_root):
    """The index does not tell, the mean of the training tiles does."""
    datamodule = make_datamodule(archive_root)
    datamodule.setup()
    state = datamodule.state_dict()
    datamodule.load_state_dict(state | {"mean": [value * (1 + 1e-9) for value in state["mean"]]})  # another machine
    for key in ("mean", "std"):
        with user_error("conflict", "data.root", str(archive_root)):
            datamodule.load_state_dict(state | {key: [value * 1.0001 for value in state[key]]})
