"""Options that make a training faster do not change what it computes."""

import pytest
import torch
from helpers.commands import read_metrics, small_run, start, wait_for_end
from helpers.stopping import run_and_stop
from helpers.training import make_segmenter

CPU = "trainer.accelerator=cpu"
FULL = "trainer.precision=32-true"


def run_of(root, name, *more):
    """Return the overrides of a short run of a small U-Net, without those that the tests here set."""
    left_out = ("name=", "trainer.precision=", "trainer.accelerator=")
    small = [override for override in small_run("unet") if not override.startswith(left_out)]
    return [*small, "model.depth=2", f"data.root={root}", f"name={name}", *more]


def results_of(folder, name):
    """Read metrics, and the names in the best checkpoint."""
    path = folder / "outputs" / name / "checkpoints/best.ckpt"
    names = list(torch.load(path, weights_only=True, map_location="cpu")["state_dict"])
    return read_metrics(folder / "outputs" / name), names


def train(folder, root, name, *more):
    """Train in a forked process, where no types are checked, which torch.compile cannot trace."""
    assert run_and_stop(run_of(root, name, *more), folder) == 0, (folder / "log.txt").read_text()[-3000:]
    return results_of(folder, name)


def train_on_gpu(folder, root, name, *more):
    """Train in a process of its own: CUDA may not work in a forked one."""
    status, err = wait_for_end(start(folder, run_of(root, name, "trainer.accelerator=gpu", *more)))
    assert status == 0, err
    return results_of(folder, name)


@pytest.fixture(scope="module")
def plain(archive_root, tmp_path_factory):
    """Metrics and names of the weights of a run on the CPU in full precision."""
    return train(tmp_path_factory.mktemp("plain"), archive_root, "plain", CPU, FULL)


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_metrics_and_weight_names(plain, archive_root, tmp_path):
    metrics, names = train(tmp_path, archive_root, "compiled", CPU, FULL, "compile=true")
    assert names == plain[1]
    assert metrics["validation"]["loss"] == pytest.approx(plain[0]["validation"]["loss"], rel=1e-4)


def test_compile_keeps_the_names_of_the_weights():
    from sn6.models.unet import UNet

    network = UNet(in_channels=4, classes=1, width=4, depth=2)
    names = list(network.state_dict())
    network.compile()
    assert list(network.state_dict()) == names


def test_only_the_training_step_is_compiled():
    compiled = []

    def count(graph, inputs):
        compiled.append(graph)
        return graph.forward

    network = torch.nn.Conv2d(4, 1, 3, padding=1)
    network.compile(backend=count)
    segmenter = make_segmenter(network)
    sizes = (32, 64, 96)
    batches = [{"image": torch.randn(1, 4, size, size), "mask": torch.ones(1, 1, size, size)} for size in sizes]
    crops, *tiles = [batch | {"valid": batch["mask"] > 0} for batch in batches]
    with torch.no_grad():
        probabilities = [segmenter.validation_step(batch, 0)["maps"]["mask"] for batch in tiles]
    assert not compiled
    segmenter(crops["image"])
    assert len(compiled) == 1
    for batch, of_tile in zip(tiles, probabilities, strict=True):
        expected = torch.nn.functional.conv2d(batch["image"], network.weight, network.bias, padding=1)
        torch.testing.assert_close(of_tile, expected.sigmoid())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "rel"),
    [(["trainer.precision=bf16-mixed"], 0.02), ([FULL, "optimizer.fused=false"], 1e-5)],
)
def test_half_precision_and_an_unfused_optimizer_come_close(plain, archive_root, tmp_path, overrides, rel):
    metrics, _ = train(tmp_path, archive_root, "it", CPU, *overrides)
    assert metrics["validation"]["loss"] == pytest.approx(plain[0]["validation"]["loss"], rel=rel)
    assert f"trainer.precision={metrics['environment']['precision']}" in [FULL, *overrides]


def test_clipped_gradients_change_the_training(plain, archive_root, tmp_path):
    metrics, _ = train(tmp_path, archive_root, "clipped", CPU, FULL, "trainer.gradient_clip_val=1e-12")
    assert metrics["validation"]["loss"] != pytest.approx(plain[0]["validation"]["loss"], rel=1e-7)


@pytest.mark.parametrize(
    ("profiler", "column"),
    [("simple", "run_training_batch"), ("advanced", "cumulative time"), ("pytorch", "Self CPU time total")],
)
def test_a_profile_is_written_to_the_folder_of_the_run(archive_root, tmp_path, profiler, column):
    train(tmp_path, archive_root, "it", CPU, FULL, f"trainer.profiler={profiler}")
    (path,) = (tmp_path / "outputs/it").glob("fit-profile*.txt")
    assert column in path.read_text()


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_every_precision_on_a_gpu(plain, archive_root, tmp_path, precision, compiled):
    more = (f"trainer.precision={precision}", f"compile={str(compiled).lower()}")
    metrics, names = train_on_gpu(tmp_path, archive_root, "gpu", *more)
    assert names == plain[1]
    # 16-mixed leaves out its first steps, until its scale of the gradients fits; here they are all of the training
    rel = 0.06 if precision == "16-mixed" else 0.02
    assert metrics["validation"]["loss"] == pytest.approx(plain[0]["validation"]["loss"], rel=rel)
    assert metrics["validation"]["f1"] == pytest.approx(plain[0]["validation"]["f1"], abs=0.02)


@pytest.mark.gpu
def test_memory_of_the_gpu_is_logged(archive_root, tmp_path):
    train_on_gpu(tmp_path, archive_root, "it", "trainer.limit_train_batches=4")
    assert "throughput/gpu_gib" in (tmp_path / "outputs/it/metrics.csv").read_text().splitlines()[0]
