"""One number, however many devices; and what is said where the devices do not do."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.commands import small_run
from helpers.ranks import free_port, on_ranks

HERE = Path(__file__).parent
KNOWS = 0.8  # share of building pixels that the network is told of


def trainer(ranks, folder, **more):
    from lightning import Trainer

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        use_distributed_sampler=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        **quiet | more,
    )


def datamodule(root, **more):
    from sn6.data.datamodule import TileDataModule

    return TileDataModule(root=str(root), product="SAR-Intensity", num_workers=0, **more)


def segmenter(network, lr=0.1):
    from sn6.losses import BCE
    from sn6.segmenter import Segmenter, constant

    return Segmenter(network, BCE(), lambda parameters: torch.optim.SGD(parameters, lr=lr), constant)


def score(ranks, root, folder, numbers):
    """Scores and the table of tiles for the first `numbers` tiles, with a network that knows most of the truth."""
    from sn6.callbacks.polygon_f1 import PolygonF1
    from sn6.data.dataset import TileDataset

    class Told(TileDataset):
        """The first band is the mask, with some of it kept back."""

        def sample(self, index):
            sample = super().sample(index)
            kept = np.random.default_rng(index).random(sample["mask"].shape) < KNOWS
            sample["image"][0] = (sample["mask"] * kept)[0] - 0.5
            return sample

    network = torch.nn.Conv2d(4, 1, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([4.0, 0.01, 0.01, 0.01]).reshape(1, 4, 1, 1))
        network.bias.zero_()
    answers = {}
    for number in numbers:
        data = datamodule(root)
        data.setup()
        tiles = [*data.fold.validation, *data.fold.train][:number]
        assert len(tiles) == number
        data.validation_tiles = Told(data.archive, tiles, data.source, data.statistics)
        polygon_f1 = PolygonF1(min_area=0.0, simplify=0.0)
        run = trainer(ranks, folder, callbacks=[polygon_f1])
        (logged,) = run.validate(segmenter(network), data, verbose=False)
        answers[number] = (logged, polygon_f1.scores, polygon_f1.by_tile.tolist())
    return answers


def test_validation_is_the_same_on_one_rank_and_on_two(archive_root, tmp_path):
    (one,) = on_ranks(score, 1, archive_root, tmp_path, (1, 5, 7, 8))
    for rank in on_ranks(score, 2, archive_root, tmp_path, (1, 5, 7, 8)):
        assert rank == one
    for number, (logged, scores, by_tile) in one.items():
        assert scores["tiles"] == len(by_tile) == number
        assert logged["val/f1"] == pytest.approx(scores["f1"])
    assert one[8][1]["tp"] > 0
    assert one[8][1]["fp"] + one[8][1]["fn"] > 0


def train_some_steps(ranks, root, folder, accumulate):
    """The weights of a network without dropout and batch norm after six steps of eight crops."""
    from sn6.models.unet import UNet

    torch.manual_seed(0)
    module = segmenter(UNet(in_channels=4, classes=1, width=4, depth=2), lr=0.03)  # 0.1 makes rounding grow
    data = datamodule(root, crop=64, batch_size=8 // accumulate, crops_per_tile=4)
    run = trainer(ranks, folder, max_steps=6, limit_val_batches=0, accumulate_grad_batches=accumulate, max_epochs=9)
    run.fit(module, data)
    assert run.global_step == 6
    return {name: tensor.numpy() for name, tensor in module.network.state_dict().items()}


def test_a_batch_gives_the_same_weights_on_one_rank_on_two_and_in_parts(archive_root, tmp_path):
    (one,) = on_ranks(train_some_steps, 1, archive_root, tmp_path, 1)
    two = on_ranks(train_some_steps, 2, archive_root, tmp_path, 1)
    (parts,) = on_ranks(train_some_steps, 1, archive_root, tmp_path, 2)
    for other in (*two, parts):
        for name, weights in one.items():
            np.testing.assert_allclose(other[name], weights, rtol=0, atol=2e-6, err_msg=name)
    torch.manual_seed(0)
    from sn6.models.unet import UNet

    start = UNet(in_channels=4, classes=1, width=4, depth=2).state_dict()
    assert any(np.abs(one[name] - start[name].numpy()).max() > 1e-3 for name in one)


def command(*more, name="it"):
    """A run of small tiles by the command line."""
    return [*small_run(), "data.batch_size=4", "trainer.limit_val_batches=null", f"name={name}", *more]


def start(folder, line, before=(), **environment):
    """A process of its own with the tests' callbacks at hand."""
    environment = os.environ | {"PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}", "OMP_NUM_THREADS": "1"} | environment
    program = [sys.executable, *before, "-m", "sn6.run", *line]
    return subprocess.Popen(
        program, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_end(process):
    """Exit status and what was said."""
    _, said = process.communicate(timeout=200)
    return process.returncode, said


def left(folder):
    """The numbers of a run, without how long it took."""
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics.pop("seconds")
    return metrics, (folder / "validation_tiles.csv").read_text(), (folder / "proposals.csv").read_text()


@pytest.fixture(scope="module")
def on_two(archive_root, tmp_path_factory):
    """A run on two processes that Lightning starts."""
    folder = tmp_path_factory.mktemp("two")
    line = [*command("trainer.devices=2", "trainer.max_epochs=2"), f"data.root={archive_root}"]
    status, said = wait_for_end(start(folder, line))
    assert status == 0, said
    assert [path.name for path in (folder / "outputs").iterdir()] == ["it"]
    return folder, line


def test_a_run_on_two_processes_that_is_killed_goes_on_to_the_same_bits(on_two, tmp_path):
    folder, line = on_two
    stop = ["+callbacks.stop._target_=helpers.stopping.StopAt", "callbacks.resume_point.every_n_steps=1"]
    status, _ = wait_for_end(start(tmp_path, [*line, *stop], SN6_TEST_STOP="SIGKILL it 1 1"))
    assert status == -signal.SIGKILL
    status, said = wait_for_end(start(tmp_path, line))
    assert status == 1
    assert "callbacks.stop" in said  # the config is another one
    status, said = wait_for_end(start(tmp_path, [*line, *stop]))
    assert status == 0, said
    assert "going on from" in said
    assert left(tmp_path / "outputs/it") == left(folder / "outputs/it")
    ours, theirs = (
        torch.load(root / "outputs/it/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for root in (tmp_path, folder)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_torchrun_and_srun_make_one_run_with_the_same_numbers(on_two, tmp_path):
    folder, line = on_two
    by_torchrun = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    status, said = wait_for_end(start(tmp_path, line, by_torchrun))
    assert status == 0, said
    assert left(tmp_path / "outputs/it") == left(folder / "outputs/it")
    status, said = wait_for_end(start(tmp_path, [*line, "trainer.devices=1", "name=other"], by_torchrun))
    assert status != 0
    assert "torchrun started 2 processes" in said
    unnamed = [word for word in line if not word.startswith("name=")]
    status, said = wait_for_end(start(tmp_path, unnamed, by_torchrun))
    assert status != 0
    assert "would make a folder of its own; give name=..." in said
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
    by_srun = [*line, "name=by_srun"]
    tasks = [start(tmp_path, by_srun, **slurm, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)) for rank in range(2)]
    for status, said in map(ended, tasks):
        assert status == 0, said
    assert left(tmp_path / "outputs/by_srun") == left(folder / "outputs/it")


def test_two_runs_of_one_name_do_not_mix(on_two, tmp_path):
    _, line = on_two
    alone = [*line, "trainer.devices=1"]
    runs = [start(tmp_path, alone) for _ in range(2)]
    told = [wait_for_end(run) for run in runs]
    assert [status for status, _ in told] == [0, 0], told
    assert sum("waiting for its end" in said for _, said in told) == 1
    assert sum("is finished" in said for _, said in told) == 1


def test_a_port_in_use(archive_root, tmp_path):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = [*command("trainer.devices=2"), f"data.root={archive_root}"]
        status, said = wait_for_end(start(tmp_path, line, MASTER_PORT=port))
    assert status == 1
    assert f"sn6: MASTER_PORT={port} cannot be used" in said.splitlines()[-1]
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["data.batch_size=3", "trainer.devices=2"], ["data.batch_size=3", "2 devices", "data.batch_size=4"]),
        (["trainer.accelerator=gpu", "trainer.devices=2"], ["there is no GPU here", "trainer.accelerator=cpu"]),
        (["trainer.precision=16-mixed"], ["16-mixed needs a GPU", "bf16-mixed"]),
        (["trainer.precision=bf16-true"], ["bf16-true", "bf16-mixed"]),
        (["trainer.profiler=fast"], ["trainer.profiler=fast", "simple, advanced, pytorch"]),
        (["sweep=grid"], ["sweep=...", "add -m"]),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for what a machine with a GPU has")
def test_devices_that_do_not_do(sn6_run, archive_root, more, parts):
    fails(sn6_run(*small_run(), f"data.root={archive_root}", *more), *parts)


def test_more_gpus_than_there_are(sn6_run, archive_root, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    asked = ("trainer.accelerator=gpu", "trainer.devices=4", "trainer.precision=32-true")
    fails(sn6_run(*small_run(), f"data.root={archive_root}", *asked), "trainer.devices=4", "there are 1 GPUs here")
    fused = ("trainer.accelerator=gpu", "trainer.precision=16-mixed", "trainer.gradient_clip_val=1")
    fails(sn6_run(*small_run(), f"data.root={archive_root}", *fused), "needs optimizer.fused=false")


def test_batch_norm_is_found():
    from sn6.models.unet import UNet
    from sn6.training.devices import has_batch_norm

    assert has_batch_norm(UNet(in_channels=4, classes=1, width=4, batch_norm=True))
    assert not has_batch_norm(UNet(in_channels=4, classes=1, width=4))
