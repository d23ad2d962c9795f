"""The moving average of the weights: its values by hand, where it is used, resumed, and on two ranks."""

import copy

import numpy as np
import pytest
import torch
from helpers.ranks import on_ranks
from helpers.resuming import RUN, assert_same_run, log_of
from helpers.stopping import run_and_stop
from helpers.training import make_datamodule, make_segmenter, make_trainer
from lightning import Callback

from sn6.callbacks.ema import EMA
from sn6.training.quiet import quiet_libraries

DECAY = 0.3  # above (1 + n) / (10 + n) until the fourth step


class Recorder(Callback):
    """Keep the weights after each step, and those of each validation, of a training and after it."""

    def __init__(self):
        self.steps, self.validated = [], []

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step > len(self.steps):
            self.steps.append(copy.deepcopy(pl_module.network.state_dict()))

    def on_validation_batch_start(self, trainer, pl_module, *_):
        self.validated.append((trainer.global_step, copy.deepcopy(pl_module.network.state_dict())))


class Load(Callback):
    """Set all weights when a training starts, as the transfer of weights does."""

    def setup(self, trainer, pl_module, stage):
        if stage == "fit":
            with torch.no_grad():
                for parameter in pl_module.network.parameters():
                    parameter.fill_(0.01)


def make_network():
    from sn6.models.unet import UNet

    torch.manual_seed(0)
    return UNet(in_channels=4, classes=1, width=4, depth=2, batch_norm=True)


def fit(root, folder, callbacks, checkpoint=None, **more):
    """Train some steps of four crops, clipped and accumulated, and return the trainer and the segmenter."""
    module, data = make_segmenter(make_network(), lr=0.05), make_datamodule(root, crop=32, batch_size=2)
    data.setup()
    options = {"limit_val_batches": 1, "accumulate_grad_batches": 2, "gradient_clip_val": 0.1, "max_epochs": 3}
    trainer = make_trainer(1, folder, callbacks=callbacks, limit_train_batches=5, **options | more)
    with quiet_libraries():
        trainer.fit(module, data, ckpt_path=checkpoint)
    return trainer, module


def averages_of(steps, decay):
    """Return the average after each step, tensor by tensor in double precision; integers are those of the step."""
    averages = []
    for n, weights in enumerate(steps):
        d = min(decay, (1 + n) / (10 + n)) if n else 0.0
        last = averages[-1] if averages else weights
        averages.append(
            {
                name: d * last[name].double() + (1 - d) * tensor.double() if tensor.is_floating_point() else tensor
                for name, tensor in weights.items()
            }
        )
    return averages


def assert_close(weights, expected):
    assert weights.keys() >= expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name].to(tensor.dtype), tensor, rtol=1e-5, atol=1e-7, msg=name)


def network_of(state):
    """Return the tensors of the network in the state of a segmenter."""
    return {name.removeprefix("network."): one for name, one in state.items() if name.startswith("network.")}


@pytest.fixture(scope="module")
def trained(archive_root, tmp_path_factory):
    """A training with a checkpoint in the middle of its second epoch: trainer, segmenter, recorder, path."""
    folder = tmp_path_factory.mktemp("ema")
    recorder = Recorder()

    class Save(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if (trainer.current_epoch, batch_idx) == (1, 3):
                trainer.save_checkpoint(folder / "middle.ckpt")

        def on_train_end(self, trainer, pl_module):
            trainer.save_checkpoint(folder / "end.ckpt")

    trainer, module = fit(archive_root, folder, [EMA(DECAY), Load(), recorder, Save()])
    return trainer, module, recorder, folder


def test_the_average_is_that_of_the_weights_of_each_step(trained):
    _, module, recorder, folder = trained
    averages = averages_of(recorder.steps, DECAY)
    assert len(averages) == 9  # three of each epoch of five batches
    assert_close(module.network.state_dict(), averages[-1])
    middle = torch.load(folder / "middle.ckpt", weights_only=True)
    assert middle["global_step"] == 5
    assert_close(network_of(middle["state_dict"]), averages[4])
    assert_close(network_of(middle["current_model_state"]), recorder.steps[4])
    differ = [name for name, one in averages[-1].items() if not torch.allclose(one, recorder.steps[-1][name].to(one))]
    assert any("running_mean" in name for name in differ)
    assert any(name.endswith("weight") for name in differ)
    batches = {int(one) for name, one in averages[-1].items() if "num_batches_tracked" in name}
    assert batches == {15}


def test_validations_are_of_the_average(trained):
    _, _, recorder, _ = trained
    averages = averages_of(recorder.steps, DECAY)
    of_training = [(step, weights) for step, weights in recorder.validated if step]
    assert [step for step, _ in of_training] == [3, 6, 9]
    for step, weights in of_training:
        assert_close(weights, averages[step - 1])
    sanity = [weights for step, weights in recorder.validated if not step]
    assert sanity
    parameters = dict(make_network().named_parameters())
    assert all((sanity[0][name] == 0.01).all() for name in parameters)  # loaded by another callback


def test_a_checkpoint_that_is_validated_after_the_training_is_not_exchanged_with_the_average(trained):
    trainer, module, recorder, folder = trained
    recorder.validated.clear()
    for evaluate in (trainer.validate, trainer.test):
        with quiet_libraries():
            evaluate(module, trainer.datamodule, ckpt_path=folder / "middle.ckpt", verbose=False)
        assert_close(module.network.state_dict(), averages_of(recorder.steps, DECAY)[4])
    assert_close(recorder.validated[0][1], averages_of(recorder.steps, DECAY)[4])


def test_a_training_that_resumes_in_an_epoch_gives_the_same_bits(trained, archive_root):
    _, _, _, folder = trained
    fit(archive_root, folder / "resumed", [EMA(DECAY), Load(), EndCheckpoint()], folder / "middle.ckpt")
    expected, resumed = (
        torch.load(path, weights_only=True) for path in (folder / "end.ckpt", folder / "resumed/end.ckpt")
    )
    assert resumed["global_step"] == expected["global_step"] == 9
    assert resumed["averaging_state"] == expected["averaging_state"]
    for key in ("state_dict", "current_model_state"):
        assert all(torch.equal(resumed[key][name], one) for name, one in expected[key].items())


class EndCheckpoint(Callback):
    """Write a checkpoint at the end of the training."""

    def on_train_end(self, trainer, pl_module):
        trainer.save_checkpoint(f"{trainer.default_root_dir}/end.ckpt")


def test_a_compiled_network_is_averaged_too(archive_root, tmp_path):
    calls = []

    def count(graph, inputs):
        calls.append(graph)
        return graph.forward

    network, recorder = torch.nn.Conv2d(4, 1, 3, padding=1), Recorder()
    names = list(network.state_dict())
    network.compile(backend=count)
    trainer = make_trainer(1, tmp_path, callbacks=[EMA(DECAY), recorder], limit_train_batches=3, max_epochs=1)
    with quiet_libraries():
        trainer.fit(make_segmenter(network), make_datamodule(archive_root, crop=32, batch_size=2))
    assert len(calls) == 1
    assert list(network.state_dict()) == names
    assert_close(network.state_dict(), averages_of(recorder.steps, DECAY)[-1])


# --- on two ranks


def train_with_each_loss(ranks, root, folder):
    """Return the averages of three steps of four crops, for losses whose value depends on the whole sample."""
    from sn6.losses import BCEDice, FocalDice, Lovasz
    from sn6.models.unet import UNet
    from sn6.sample_weights import ByBuildings, Weighted

    results = {}
    losses = {"bce_dice": BCEDice(), "lovasz": Lovasz(), "by_buildings": Weighted(FocalDice(), ByBuildings())}
    for name, loss in losses.items():
        torch.manual_seed(0)
        module = make_segmenter(UNet(in_channels=4, classes=1, width=4, depth=2), lr=0.03, loss=loss)
        data = make_datamodule(root, crop=64, batch_size=4, targets=module.losses.targets)
        more = {"limit_val_batches": 0, "gradient_clip_val": 0.5, "max_epochs": 9}
        make_trainer(ranks, folder, callbacks=[EMA(0.9)], max_steps=3, **more).fit(module, data)
        results[name] = {key: one.numpy() for key, one in module.network.state_dict().items()}
    return results


def test_averages_and_losses_are_the_same_on_one_rank_and_on_two(archive_root, tmp_path):
    (one,) = on_ranks(train_with_each_loss, 1, archive_root, tmp_path)
    for rank in on_ranks(train_with_each_loss, 2, archive_root, tmp_path):
        for loss, weights in one.items():
            for name, expected in weights.items():
                np.testing.assert_allclose(rank[loss][name], expected, rtol=0, atol=3e-6, err_msg=f"{loss} {name}")


# --- runs of the command line

OVERRIDES = [
    *RUN,
    "callbacks.ema.decay=0.9",
    "trainer.gradient_clip_val=1.0",
    "schedule=plateau",
    "schedule.patience=0",
]


@pytest.mark.slow
def test_a_killed_run_with_ema_and_plateau_resumes_to_the_same_bits(archive_root, tmp_path):
    overrides = [*OVERRIDES, f"data.root={archive_root}"]
    for folder in ("whole", "killed"):
        (tmp_path / folder).mkdir()
    assert run_and_stop(overrides, tmp_path / "whole") == 0, log_of(tmp_path / "whole")[-3000:]
    assert run_and_stop(overrides, tmp_path / "killed", "SIGKILL it 1 2") == -9
    assert run_and_stop(overrides, tmp_path / "killed") == 0, log_of(tmp_path / "killed")[-3000:]
    assert_same_run(tmp_path / "killed/outputs/it", tmp_path / "whole/outputs/it")


@pytest.mark.slow
def test_the_average_is_kept_handed_off_and_predicted_with(archive_root, tmp_path):
    """`last.ckpt` of one epoch is its best checkpoint; the next stage starts from the averages in it."""
    from sn6.checkpoints.loading import read_checkpoint
    from sn6.checkpoints.weights_file import read_weights

    stages = "stages={eo:['data=eo'],sar:['data=sar','callbacks.sar_handoff.weights=${run_folder}/eo']}"
    more = ["trainer.max_epochs=1", f"data.root={archive_root}", stages]
    assert run_and_stop([*OVERRIDES, *more], tmp_path) == 0, log_of(tmp_path)[-3000:]
    run = tmp_path / "outputs/it"
    best = torch.load(run / "eo/checkpoints/best.ckpt", weights_only=True)
    average, weights = network_of(best["state_dict"]), network_of(best["current_model_state"])
    assert not all(torch.equal(average[name], weights[name]) for name in average)
    of_handoff, _ = read_weights(run / "eo/weights.safetensors")
    start, _ = read_weights(run / "sar/checkpoints/start.safetensors")
    predicted, _ = read_checkpoint(run / "eo/checkpoints/best.ckpt", "checkpoint")
    for name, tensor in average.items():
        assert torch.equal(of_handoff[name], tensor)
        assert torch.equal(start[name], tensor)
        assert torch.equal(predicted[name], tensor)
