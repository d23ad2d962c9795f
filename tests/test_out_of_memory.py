"""Memory that runs out: one line with the keys that make a step smaller, and a run that goes on."""

import pytest
import torch
from helpers.commands import assert_fails, read_metrics, small_run

ON_GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
ON_CPU = RuntimeError(  # as PyTorch's allocator raises it
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "1099511627776 bytes. Error code 12 (Cannot allocate memory)"
)
ON_CUDNN = RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")


@pytest.fixture
def overrides(archive_root):
    return [*small_run("unet"), "model.depth=2", f"data.root={archive_root}", "callbacks.calibration=null"]


@pytest.fixture
def fail_at(monkeypatch):
    """Let the network fail with an error in its pass number `number`, of the training or of the evaluation."""
    from sn6.models.unet import UNet

    forward, passes = UNet.forward, {True: 0, False: 0}

    def install(error, is_training=True, number=1):
        def fail(network, image):
            passes[network.training] += 1
            if network.training == is_training and passes[is_training] == number:
                raise error
            return forward(network, image)

        monkeypatch.setattr(UNet, "forward", fail)

    return install


def test_the_text_is_that_of_the_allocator():
    with pytest.raises(RuntimeError, match="allocate memory"):
        torch.empty(2**60, dtype=torch.uint8)


@pytest.mark.parametrize("error", [ON_GPU, ON_CPU, ON_CUDNN], ids=["gpu", "cpu", "cudnn"])
def test_a_first_step_that_does_not_fit(sn6_run, overrides, tmp_path, fail_at, error):
    fail_at(error)
    done = sn6_run(*overrides)
    assert_fails(done, "failed", "data.batch_size", 2)
    for key in ("data.crop=64", "data.batch_size=1", "trainer.accumulate_grad_batches=2"):
        assert key in str(done.error)
    assert not (tmp_path / "outputs/it/checkpoints/last.ckpt").exists()
    if error is ON_GPU:  # nothing was trained: the same name takes smaller batches
        done = sn6_run(*overrides, "data.batch_size=1", "trainer.accumulate_grad_batches=2")
        assert done.status == 0, done.err


@pytest.mark.slow
def test_a_later_step_that_does_not_fit(sn6_run, overrides, tmp_path, fail_at):
    """The steps before it are kept; another batch size gives other steps, which the message says."""
    overrides = [*overrides, "trainer.max_epochs=2", "callbacks.resume_point.every_n_steps=1"]
    done = sn6_run(*overrides, "name=whole")
    assert done.status == 0, done.err
    fail_at(ON_GPU, number=4)
    done = sn6_run(*overrides)
    assert_fails(done, "failed", "data.batch_size", 2)
    last = tmp_path / "outputs/it/checkpoints/last.ckpt"
    assert last.relative_to(tmp_path).as_posix() in str(done.error)
    assert torch.load(last, weights_only=True)["global_step"] == 3
    assert_fails(sn6_run(*overrides, "data.batch_size=1"), "conflict", "data.batch_size", 1)
    done = sn6_run(*overrides)
    assert done.status == 0, done.err
    metrics = [read_metrics(tmp_path / "outputs" / name)["validation"] for name in ("it", "whole")]
    assert metrics[0] == metrics[1]


def test_a_tile_that_does_not_fit(sn6_run, overrides, fail_at):
    fail_at(ON_GPU, is_training=False)
    assert_fails(sn6_run(*overrides), "failed", "data.eval_batch_size", 1)


def test_another_error_is_not_one_of_memory(sn6_run, overrides, fail_at):
    fail_at(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        sn6_run(*overrides)
