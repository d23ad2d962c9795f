"""Weights of samples by their number of buildings: counted by hand, multiplied, and from an archive."""

import csv

import numpy as np
import pytest
import torch
from helpers.commands import assert_fails, small_run
from helpers.labels import labels_of
from helpers.training import make_datamodule
from torch import nn

from sn6.losses import BCE, FocalDice, WeightedBoundary
from sn6.sample_weights import ByBuildings, Weighted
from sn6.targets.instances import Instances
from sn6.training.loss import as_loss

NUMBERS = torch.tensor(
    [
        [[0, 0, 7, 7], [3, 0, 7, 0], [3, 3, 0, 9]],  # three buildings
        [[0, 0, 0, 0], [0, 5, 5, 0], [0, 0, 0, 5]],  # one, in two parts
        [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],  # none
    ]
).float()[:, None]
ALL = torch.ones_like(NUMBERS, dtype=torch.bool)


def test_buildings_are_counted_where_the_sample_is_valid():
    weight = ByBuildings(base=0.5, per_building=0.125)
    assert weight(ALL, NUMBERS).tolist() == [0.875, 0.625, 0.5]
    valid = ALL.clone()
    valid[0, 0, 2, 3] = False  # all of building 9
    valid[1, 0, 1] = False  # a part of building 5
    numbers = NUMBERS.masked_fill(~valid, torch.nan)
    assert weight(valid, numbers).tolist() == [0.75, 0.625, 0.5]
    assert ByBuildings(base=1.0, per_building=1.0)(ALL, NUMBERS).tolist() == [4, 2, 1]  # as the third of the challenge


def test_instances_are_numbers_of_buildings_that_were_observed():
    instances = np.array([[0, 300, 300], [70_000, 0, 5]], np.int32)
    valid = np.array([[True, True, False], [True, True, False]])
    layer = Instances().tile(labels_of(instances, valid=valid))
    assert layer.tolist() == [[[0, 300, 0], [70_000, 0, 0]]]


def test_a_weighted_loss_is_the_product_and_passes_the_maps_on():
    logits, target = torch.randn(3, 1, 3, 4), (NUMBERS > 0).float()
    boundary = 1 + torch.rand(3, 1, 3, 4)
    loss = Weighted(WeightedBoundary(), ByBuildings(base=0.5, per_building=0.125))
    maps = dict(zip(loss.targets, (boundary, NUMBERS), strict=True))
    plain = WeightedBoundary()(logits, target, ALL, weight=boundary)
    torch.testing.assert_close(loss(logits, target, ALL, **maps), plain * torch.tensor([0.875, 0.625, 0.5]))
    assert as_loss(loss, "Weighted") is loss


def test_a_sample_without_a_valid_pixel_has_loss_and_gradient_0():
    loss, valid = Weighted(FocalDice(), ByBuildings()), ALL.clone()
    valid[1] = False
    logits = torch.randn(3, 1, 3, 4).masked_fill(~valid, torch.nan).requires_grad_()
    (name,) = loss.targets
    values = loss(logits, (NUMBERS > 0).float(), valid, **{name: NUMBERS})
    values.sum().backward()
    assert values[1] == 0
    assert (logits.grad[1] == 0).all()
    assert (values[[0, 2]] > 0).all()


class Constant(nn.Module):
    """A weight of a user's own."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, valid):
        return torch.full((len(valid),), self.value)


def test_a_weight_of_a_users_own_needs_no_target():
    logits, target = torch.randn(3, 1, 3, 4), (NUMBERS > 0).float()
    loss = as_loss(Weighted(BCE(), Constant(3.0)), "Weighted")
    torch.testing.assert_close(loss(logits, target, ALL), 3 * BCE()(logits, target, ALL))


def logged(folder):
    with (folder / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


@pytest.mark.parametrize("store", [None, "disk"])
def test_buildings_of_crops_are_those_of_their_labels(archive_root, tmp_path, store):
    """From the GeoTIFFs and from a store, flipped or not: a crop of a whole tile shows all of its buildings."""
    weight = ByBuildings(base=0.0, per_building=1.0)
    store = {"store": store, "store_root": str(tmp_path)} if store else {}
    data = make_datamodule(archive_root, crop=128, batch_size=4, targets={"numbers": Instances()}, **store)
    data.setup()
    for batch in data.train_dataloader():
        numbers = weight(batch["valid"], batch["numbers"])
        assert ((batch["numbers"] > 0) <= (batch["mask"] > 0)).all()
        for number, index in zip(numbers.tolist(), batch["index"].tolist(), strict=True):
            labels = data.train_tiles.labels(index).polygons
            assert number <= len(labels)
            assert number >= 0.5 * len(labels)  # others are on nodata, covered, or cut off


@pytest.mark.slow
def test_weights_of_a_run_are_those_of_its_crops(sn6_run, archive_root, tmp_path):
    """With weights 1 + 0·n and 0 + 1·n on crops of one sample, the ratio of the first losses is a whole number."""
    values = []
    for name, base, per_building in (("one", 1.0, 0.0), ("number", 0.0, 1.0)):
        overrides = [*small_run("unet"), "model.depth=2", f"data.root={archive_root}", "data.crop=128", f"name={name}"]
        weights = [f"loss.weight.base={base}", f"loss.weight.per_building={per_building}", "optimizer.lr=0.0"]
        more = ["loss=by_buildings", "loss@loss.loss=bce", "data.batch_size=1", "callbacks.calibration=null"]
        done = sn6_run(*overrides, *more, *weights)
        assert done.status == 0, done.err
        values.append(logged(tmp_path / "outputs" / name))
    ratios = [number / one for one, number in zip(*values, strict=True)]
    assert ratios == pytest.approx([round(ratio) for ratio in ratios], abs=1e-4)
    assert max(ratios) > 1.5


def test_a_weight_out_of_range_is_refused(sn6_run):
    wrong = sn6_run(*small_run(), "loss=by_buildings", "loss.weight.per_building=-1")
    assert_fails(wrong, "invalid_value", "loss.weight.per_building", -1)
