"""A loss of another package or of the user: what it is called with, its targets, and the mistakes that are refused."""

import csv
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.commands import assert_fails, small_run
from helpers.errors import user_error
from helpers.ranks import on_ranks
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from sn6.losses import BCE, FocalDice, WeightedBoundary
from sn6.training.loss import PixelLoss, as_loss

OWN_LOSS = """
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sn6.targets.target import Target


@dataclass(frozen=True)
class Size(Target):
    power: float

    def tile(self, labels):
        areas = np.bincount(labels.instances.ravel()).astype(np.float32)
        areas[0] = 1
        return areas[labels.instances][None] ** np.float32(self.power)


class BySize(nn.Module):
    def __init__(self, power: float = -0.5):
        super().__init__()
        self.targets = {"size": Size(power)}

    def forward(self, logits, target, valid, size):
        losses = nn.functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
        return (size * losses * valid).sum(dim=(1, 2, 3)) / valid.sum(dim=(1, 2, 3)).clamp(min=1)
"""


def samples(seed=0, shape=(3, 1, 11, 7)):
    """Draw logits, target and valid pixels; the second sample has no valid pixel, and NaN in its place."""
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(shape, generator=generator)
    target = (torch.rand(shape, generator=generator) < 0.3).float()
    valid = torch.rand(shape, generator=generator) < 0.7
    valid[1] = False
    logits[~valid] = torch.nan
    return logits, target, valid


def test_a_plain_module_is_called_on_the_valid_pixels_of_each_sample():
    logits, target, valid = samples()
    logits.requires_grad_()
    losses = as_loss(nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)), "BCE")(logits, target, valid)
    for i in (0, 2):
        plain = F.binary_cross_entropy_with_logits(
            logits[i][valid[i]], target[i][valid[i]], pos_weight=torch.tensor(3.0)
        )
        torch.testing.assert_close(losses[i], plain)
    torch.testing.assert_close(losses, BCE(positive_weight=3.0)(logits, target, valid))
    losses.sum().backward()
    assert losses[1] == 0
    assert (logits.grad[~valid] == 0).all()
    assert (logits.grad[valid] != 0).all()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_more_than_one_value_is_averaged(reduction):
    logits, target, valid = samples()
    losses = as_loss(nn.BCEWithLogitsLoss(reduction=reduction), "BCE")(logits, target, valid)
    mean = as_loss(nn.BCEWithLogitsLoss(), "BCE")(logits, target, valid)
    pixels = valid.sum(dim=(1, 2, 3)) if reduction == "sum" else 1
    torch.testing.assert_close(losses, mean * pixels)


def test_a_plain_module_gets_float32_where_the_network_is_in_half_precision():
    class OfFloat(nn.Module):
        def forward(self, logits, target):
            assert logits.dtype == target.dtype == torch.float32
            assert logits.ndim == 3
            assert (logits[0, :, None] @ target[0, ..., None]).dtype == torch.float32
            return F.binary_cross_entropy_with_logits(logits, target)

    logits, target, valid = samples()
    with torch.autocast("cpu", torch.bfloat16):
        losses = as_loss(OfFloat(), "OfFloat")(logits.bfloat16(), target, valid)
    assert losses.dtype == torch.float32


@pytest.mark.parametrize("name", ["DiceLoss", "JaccardLoss", "TverskyLoss", "FocalLoss", "LovaszLoss"])
def test_losses_of_segmentation_models(name):
    losses = pytest.importorskip("segmentation_models_pytorch.losses")
    module = getattr(losses, name)(mode="binary")
    logits, target, valid = samples()
    values = as_loss(module, name)(logits, target, valid)
    for i in (0, 2):
        plain = module(logits[i][valid[i]][None, None], target[i][valid[i]][None, None])
        torch.testing.assert_close(values[i], plain)


def gradients(ranks):
    """Return the gradients of a network whose last sample has no valid pixel, divided among the ranks."""
    torch.manual_seed(1)
    network, rank = nn.Conv2d(2, 1, 3, padding=1), int(os.environ.get("LOCAL_RANK", 0))
    _, target, valid = samples(shape=(2, 1, 6, 6))
    images = torch.randn(2, 2, 6, 6)
    if ranks > 1:
        distributed.init_process_group("gloo", rank=rank, world_size=ranks)
        network = DistributedDataParallel(network)
    mine = slice(rank, 2, ranks)
    loss = PixelLoss(nn.BCEWithLogitsLoss())
    for _ in range(2):  # DDP reports a parameter without a gradient at the next forward pass
        network.zero_grad()
        loss(network(images[mine]), target[mine], valid[mine]).mean().backward()
    result = [parameter.grad.tolist() for parameter in network.parameters()]
    if ranks > 1:
        distributed.destroy_process_group()
    return result


def test_a_rank_without_a_valid_pixel_takes_part_with_gradient_0():
    (one,) = on_ranks(gradients, 1)
    for rank in on_ranks(gradients, 2):
        for values, expected in zip(rank, one, strict=True):
            np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize("loss", [BCE(), WeightedBoundary(), FocalDice()], ids=repr)
def test_losses_in_our_form_stay_as_they_are(loss):
    assert as_loss(loss, "ours") is loss


def own(forward):
    """Return a loss in our form with this `forward(logits, target, valid)`."""

    def method(self, logits, target, valid):
        return forward(logits, target, valid)

    return type("Own", (nn.Module,), {"forward": method})()


def of_pixels(logits, target):
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def of_samples(logits, target):
    return of_pixels(logits, target).mean(dim=(1, 2, 3))


def of_valid_pixels(logits, target, valid):
    return torch.stack([x[v].mean() for x, v in zip(of_pixels(logits, target), valid, strict=True)])


WRONG = {
    "a function": F.binary_cross_entropy_with_logits,
    "of probabilities": nn.BCELoss(),
    "always 0 for one class": nn.CrossEntropyLoss(),
    "of class indices": nn.NLLLoss(),
    "of values": nn.MSELoss(),
    "of -1 and 1": nn.SoftMarginLoss(),
    "one value": own(lambda logits, target, valid: of_pixels(logits, target).mean()),
    "a map": own(lambda logits, target, valid: of_pixels(logits, target)),
    "None": own(lambda logits, target, valid: None),
    "a score": own(lambda logits, target, valid: -of_samples(logits, target)),
    "no gradient": own(lambda logits, target, valid: of_samples(logits, target).detach()),
    "NaN without a valid pixel": own(of_valid_pixels),
    "an exception": own(lambda logits, target, valid: logits.nothing()),
}


@pytest.mark.parametrize("module", WRONG.values(), ids=WRONG.keys())
def test_what_is_no_loss_of_one_class_is_refused(module):
    with user_error("invalid_value", "loss._target_", "package.Name") as caught:
        as_loss(module, "package.Name")
    assert "\n" not in str(caught.value)


def test_the_trial_of_a_loss_changes_nothing():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, logits, target):
            self.calls += 1
            return F.binary_cross_entropy_with_logits(logits + 0.01 * torch.rand_like(logits), target)

    state = torch.get_rng_state()
    assert as_loss(Counting(), "Counting").module.calls == 0
    assert torch.equal(torch.get_rng_state(), state)


# --- from a folder outside of the package


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """Write a module and the folder of its config groups, as a user does."""
    (tmp_path / "own_losses.py").write_text(OWN_LOSS)
    (tmp_path / "my_conf/loss").mkdir(parents=True)
    (tmp_path / "my_conf/loss/by_size.yaml").write_text("_target_: own_losses.BySize\npower: -0.25\n")
    (tmp_path / "my_conf/loss/stock.yaml").write_text("_target_: torch.nn.BCEWithLogitsLoss\n")
    (tmp_path / "my_conf/loss/positive.yaml").write_text(
        "_target_: torch.nn.BCEWithLogitsLoss\npos_weight: {_target_: torch.tensor, data: 3.0}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "my_conf"


def logged(folder, key="train/loss"):
    """Return the values of metrics.csv."""
    with (folder / "metrics.csv").open() as file:
        return [float(row[key]) for row in csv.DictReader(file) if row[key]]


def test_a_loss_with_a_target_of_its_own_from_geotiffs_and_from_a_store(sn6_run, archive_root, own_folder, tmp_path):
    overrides = [*small_run("unet"), "model.depth=2", f"data.root={archive_root}", "loss=by_size", "data=eo"]
    losses = []
    for store in ("null", "disk"):
        more = [f"name=store-{store}", f"data.store={store}", f"data.store_root={tmp_path}/store"]
        done = sn6_run("--config-dir", str(own_folder), *overrides, *more)
        assert done.status == 0, done.err
        folder = tmp_path / f"outputs/store-{store}"
        losses.append((logged(folder), logged(folder, "val/loss")))
    assert losses[0] == losses[1]
    assert len(losses[0][0]) == 2
    assert list((tmp_path / "store").glob("root-*/PS-RGB/Size-*/*.npy"))


def test_a_stock_loss_equals_ours(sn6_run, archive_root, own_folder, tmp_path):
    losses = []
    for name, more in (("stock", []), ("positive", []), ("bce", ["loss.positive_weight=3.0"])):
        overrides = [*small_run("unet"), "model.depth=2", f"data.root={archive_root}", f"loss={name}", f"name={name}"]
        done = sn6_run("--config-dir", str(own_folder), *overrides, *more)
        assert done.status == 0, done.err
        assert sn6_run("--config-dir", str(own_folder), *overrides, *more).status == 0  # is finished, and the same run
        losses.append(logged(tmp_path / "outputs" / name))
    assert losses[1] == pytest.approx(losses[2], rel=1e-5)
    assert losses[0] != pytest.approx(losses[1], rel=1e-2)


def test_a_wrong_loss_ends_a_run_before_it_trains(sn6_run, archive_root):
    overrides = [*small_run(), f"data.root={archive_root}", "~loss.positive_weight", "loss._target_=torch.nn.BCELoss"]
    assert_fails(sn6_run(*overrides), "invalid_value", "loss._target_", "torch.nn.BCELoss")
