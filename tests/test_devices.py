"""A run gives the same numbers on one device and on several, and reports devices that do not exist."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from helpers.commands import TESTS, assert_fails, assert_one_line, read_metrics, small_run, start, wait_for_end
from helpers.errors import user_error
from helpers.ranks import free_port, on_ranks
from helpers.stopping import STOP_CALLBACK, exit_status, run_and_stop, start_run
from helpers.training import make_datamodule, make_segmenter, make_trainer

from sn6.data.augment import Augmentation
from sn6.data.radar import Radar

PREDICTED = 0.8  # fraction of building pixels that the network predicts
SCRIPT = Path(sys.executable).with_name("sn6")


def score(ranks, root, folder, numbers):
    """Return scores and the table of tiles for the first `numbers` tiles, of a network that predicts most buildings."""
    from sn6.callbacks.polygon_f1 import PolygonF1
    from sn6.data.dataset import TileDataset
    from sn6.footprints.threshold import Threshold

    class MaskInImage(TileDataset):
        """Tiles whose first band is the mask, without some of its pixels."""

        def sample(self, index):
            sample = super().sample(index)
            predicted = np.random.default_rng(index).random(sample["mask"].shape) < PREDICTED
            sample["image"][0] = (sample["mask"] * predicted)[0] - 0.5
            return sample

    network = torch.nn.Conv2d(4, 1, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([4.0, 0.01, 0.01, 0.01]).reshape(1, 4, 1, 1))
        network.bias.zero_()
    results = {}
    for number in numbers:
        data = make_datamodule(root)
        data.setup()
        tiles = [*data.fold.validation, *data.fold.train][:number]
        assert len(tiles) == number
        data.validation_tiles = MaskInImage(data.data_set, tiles, data.source, data.statistics)
        polygon_f1 = PolygonF1(Threshold(min_area=0.0, simplify=0.0))
        trainer = make_trainer(ranks, folder, callbacks=[polygon_f1])
        (logged,) = trainer.validate(make_segmenter(network), data, verbose=False)
        results[number] = (logged, polygon_f1.scores, polygon_f1.by_tile.tolist())
    return results


def test_validation_is_the_same_on_one_rank_and_on_two(archive_root, tmp_path):
    (one,) = on_ranks(score, 1, archive_root, tmp_path, (1, 5, 8))
    for rank in on_ranks(score, 2, archive_root, tmp_path, (1, 5, 8)):
        assert rank == one
    for number, (logged, scores, by_tile) in one.items():
        assert scores["scored_tiles"] == len(by_tile) == number
        assert logged["val/f1"] == pytest.approx(scores["f1"])
    assert one[8][1]["tp"] > 0
    assert one[8][1]["fp"] + one[8][1]["fn"] > 0


def train_some_steps(ranks, root, folder, accumulate, augmentation):
    """Return the weights of a network without dropout and batch norm after six steps of eight augmented crops."""
    from sn6.models.unet import UNet

    torch.manual_seed(0)
    module = make_segmenter(UNet(in_channels=4, classes=1, width=4, depth=2), lr=0.03)  # 0.1 amplifies rounding
    crops = {"crop": 64, "crops_per_tile": 4, "augmentation": augmentation}
    data = make_datamodule(root, batch_size=8 // accumulate, **crops)
    more = {"max_steps": 6, "limit_val_batches": 0, "accumulate_grad_batches": accumulate, "max_epochs": 9}
    trainer = make_trainer(ranks, folder, **more)
    trainer.fit(module, data)
    assert trainer.global_step == 6
    return {name: tensor.numpy() for name, tensor in module.network.state_dict().items()}


@pytest.mark.parametrize("augmentation", [Augmentation(), pytest.param(Radar(), marks=pytest.mark.slow)])
def test_a_batch_gives_the_same_weights_on_one_rank_on_two_and_accumulated(archive_root, tmp_path, augmentation):
    from sn6.models.unet import UNet

    (one,) = on_ranks(train_some_steps, 1, archive_root, tmp_path, 1, augmentation)
    two = on_ranks(train_some_steps, 2, archive_root, tmp_path, 1, augmentation)
    (accumulated,) = on_ranks(train_some_steps, 1, archive_root, tmp_path, 2, augmentation)
    for other in (*two, accumulated):
        for name, weights in one.items():
            np.testing.assert_allclose(other[name], weights, rtol=0, atol=4e-6, err_msg=name)
    torch.manual_seed(0)
    initial = UNet(in_channels=4, classes=1, width=4, depth=2).state_dict()
    assert any(np.abs(one[name] - initial[name].numpy()).max() > 1e-3 for name in one)


def run_of(root, *more):
    """Return the overrides of a run of small tiles."""
    sizes = ("data.batch_size=4", "trainer.max_epochs=2")
    limits = ("trainer.limit_val_batches=null", "trainer.limit_test_batches=null")
    return [*small_run(), *sizes, *limits, f"data.root={root}", *more]


def results_of(folder):
    """Read the results of a run, without how long it took."""
    metrics = read_metrics(folder)
    metrics.pop("timing")
    return metrics, (folder / "validation_tiles.csv").read_text(), (folder / "proposals.csv").read_text()


@pytest.fixture(scope="module")
def on_one(archive_root, tmp_path_factory):
    """The folder of a run on one rank."""
    folder = tmp_path_factory.mktemp("one")
    assert run_and_stop(run_of(archive_root), folder) == 0, (folder / "log.txt").read_text()
    return folder / "outputs/it"


@pytest.fixture(scope="module")
def on_two(archive_root, tmp_path_factory):
    """The folder of a run by `sn6 run` on two ranks, which Lightning starts."""
    folder = tmp_path_factory.mktemp("two")
    run_by_script([sys.executable, "-m", "sn6"], folder, run_of(archive_root, "trainer.devices=2"))
    assert [path.name for path in (folder / "outputs").iterdir()] == ["it"]
    return folder / "outputs/it"


def run_by_script(program, folder, overrides):
    """Run `PROGRAM run overrides...` in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent)}
    done = subprocess.run(
        [*program, "run", *overrides], cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_console_script_on_two_ranks_gives_the_metrics_of_one(on_one, on_two):
    one, two = read_metrics(on_one), read_metrics(on_two)
    assert two.keys() == one.keys()
    for part in ("validation", "test"):
        for key in ("loss", "f1", "iou"):
            assert two[part][key] == pytest.approx(one[part][key], rel=1e-4), key
        assert two[part]["tiles"] == one[part]["tiles"]
    assert two["test"]["oracle"] == one["test"]["oracle"]
    assert two["data"] == one["data"]
    assert two["environment"] == one["environment"] | {"devices": 2}
    assert two["validation"]["epoch"] == one["validation"]["epoch"]


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPT.exists(), reason="sn6 is not installed beside this Python")
def test_the_installed_script_is_the_same_command(archive_root, on_two, tmp_path):
    run_by_script([SCRIPT], tmp_path, run_of(archive_root, "trainer.devices=2"))
    assert results_of(tmp_path / "outputs/it") == results_of(on_two)


@pytest.mark.slow
def test_a_run_on_two_ranks_that_is_killed_resumes_to_the_same_bits(archive_root, on_two, tmp_path):
    overrides = run_of(archive_root, "trainer.devices=2")
    stop = [STOP_CALLBACK, "callbacks.resume_point.every_n_steps=1"]
    status, _ = wait_for_end(start(tmp_path, [*overrides, *stop], SN6_TEST_STOP="SIGKILL it 1 1"))
    assert status == -signal.SIGKILL
    assert_one_line(*wait_for_end(start(tmp_path, overrides)), "callbacks.stop")  # the config is another one
    status, err = wait_for_end(start(tmp_path, [*overrides, *stop]))
    assert status == 0, err
    assert "outputs/it/checkpoints/last.ckpt" in err  # from which it resumed
    assert results_of(tmp_path / "outputs/it") == results_of(on_two)
    weights, expected = (
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for folder in (tmp_path / "outputs/it", on_two)
    )
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_torchrun_makes_one_run_with_the_same_numbers(archive_root, on_two, tmp_path):
    overrides = run_of(archive_root, "trainer.devices=2")
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    status, err = wait_for_end(start(tmp_path, overrides, torchrun))
    assert status == 0, err
    assert results_of(tmp_path / "outputs/it") == results_of(on_two)


@pytest.mark.slow
def test_srun_makes_one_run_with_the_same_numbers(archive_root, on_two, tmp_path):
    slurm = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "it",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    overrides = run_of(archive_root, "trainer.devices=2")
    tasks = [start(tmp_path, overrides, **slurm, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)) for rank in range(2)]
    for status, err in map(wait_for_end, tasks):
        assert status == 0, err
    assert results_of(tmp_path / "outputs/it") == results_of(on_two)


def test_torchrun_with_another_number_of_processes_is_refused(sn6_run, archive_root, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "it")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert_fails(sn6_run(*run_of(archive_root)), "conflict", "trainer.devices", 1)


@pytest.mark.parametrize(
    ("override", "kind", "key"), [(None, "missing_value", "name"), ("resume=false", "conflict", "resume")]
)
def test_torchrun_needs_one_folder_for_all_processes(sn6_run, archive_root, monkeypatch, override, kind, key):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "it")
    overrides = run_of(archive_root, *([override] if override else []))
    if override is None:
        overrides.remove("name=it")
    assert_fails(sn6_run(*overrides), kind, key)


def test_two_runs_of_one_name_run_one_after_the_other(archive_root, on_one, tmp_path):
    overrides = run_of(archive_root, "+callbacks.count._target_=helpers.stopping.CountFits")
    processes = [start_run(overrides, tmp_path) for _ in range(2)]
    assert [exit_status(process) for process in processes] == [0, 0], (tmp_path / "log.txt").read_text()
    assert len((tmp_path / "outputs/it/fits.txt").read_text().splitlines()) == 1  # the second found it finished
    assert results_of(tmp_path / "outputs/it") == results_of(on_one)


@pytest.mark.slow
def test_a_port_in_use(archive_root, tmp_path):
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        process = start(tmp_path, run_of(archive_root, "trainer.devices=2"), MASTER_PORT=port)
        assert_one_line(*wait_for_end(process), f"MASTER_PORT={port}")


def test_all_ranks_end_when_the_first_one_fails(monkeypatch):
    from lightning import Trainer

    from sn6.training.devices import stop_all_ranks_on_error

    rank = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    launcher = SimpleNamespace(procs=[rank])
    trainer = Mock(spec=Trainer, strategy=SimpleNamespace(launcher=launcher), global_rank=0)
    monkeypatch.setenv("MASTER_PORT", "77")
    with user_error("unavailable", key="MASTER_PORT", value="77"), stop_all_ranks_on_error(trainer):
        raise torch.distributed.DistNetworkError("in use")
    assert rank.returncode == -signal.SIGKILL
    assert launcher.procs == []  # Lightning kills the first rank, too, where one of these has failed


@pytest.mark.parametrize(
    ("overrides", "kind", "key", "value"),
    [
        (["data.batch_size=3", "trainer.devices=2"], "invalid_value", "data.batch_size", 3),
        (["trainer.accelerator=gpu", "trainer.devices=2"], "not_found", "trainer.accelerator", "gpu"),
        (["trainer.precision=16-mixed"], "conflict", "trainer.precision", "16-mixed"),
        (["trainer.precision=bf16-true"], "unknown_value", "trainer.precision", "bf16-true"),
        (["trainer.profiler=fast"], "invalid_value", "trainer.profiler", "fast"),
        (["sweep=grid"], "conflict", "sweep", None),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="requests what a machine with a GPU has")
def test_invalid_devices(sn6_run, archive_root, overrides, kind, key, value):
    assert_fails(sn6_run(*small_run(), f"data.root={archive_root}", *overrides), kind, key, value)


def test_devices_of_a_machine_with_one_gpu(sn6_run, archive_root, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    gpu = [*small_run(), f"data.root={archive_root}", "trainer.accelerator=gpu"]
    too_many = sn6_run(*gpu, "trainer.devices=4", "trainer.precision=32-true")
    assert_fails(too_many, "not_found", "trainer.devices", 4)
    fused = sn6_run(*gpu, "trainer.precision=16-mixed", "trainer.gradient_clip_val=1")
    assert_fails(fused, "conflict", "optimizer.fused", True)


@pytest.mark.filterwarnings("error:GPU available")
def test_a_run_on_the_cpu_of_a_machine_with_a_gpu_warns_of_nothing(sn6_run, archive_root, monkeypatch):
    from lightning.pytorch.accelerators import CUDAAccelerator

    monkeypatch.setattr(CUDAAccelerator, "is_available", lambda: True)
    finished = sn6_run(*small_run("unet"), f"data.root={archive_root}")
    assert finished.status == 0, finished.err
    assert "GPU" not in finished.err


def test_batch_norm_is_detected():
    from sn6.models.unet import UNet
    from sn6.training.devices import has_batch_norm

    assert has_batch_norm(UNet(in_channels=4, classes=1, width=4, batch_norm=True))
    assert not has_batch_norm(UNet(in_channels=4, classes=1, width=4))


def test_batch_norms_with_an_activation_share_statistics_and_come_back():
    """Lightning's own conversion drops the activation of timm's layers; SyncBatchNorm itself runs on GPUs only."""
    from timm.layers import BatchNormAct2d
    from torch import nn

    from sn6.training.devices import SyncBatchNorm

    network = nn.Sequential(nn.Sequential(nn.Conv2d(2, 3, 1), BatchNormAct2d(3)), nn.BatchNorm2d(3, momentum=0.3))
    image = torch.randn(4, 2, 5, 5)
    network(image)  # statistics
    expected, kinds = network.eval()(image), [type(layer) for layer in network.modules()]
    sync = SyncBatchNorm()
    shared = sync.apply(network)
    assert sum(isinstance(layer, nn.SyncBatchNorm) for layer in shared.modules()) == 2
    torch.testing.assert_close(shared(image), expected)  # in evaluation it runs on CPUs, too
    with torch.no_grad():
        shared[1].weight.mul_(2)
        shared[1].running_mean = shared[1].running_mean + 1
    changed = shared(image)
    back = sync.revert(shared)
    assert [type(layer) for layer in back.modules()] == kinds
    torch.testing.assert_close(back(image), changed)
    assert back[1].momentum == 0.3
