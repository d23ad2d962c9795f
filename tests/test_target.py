"""Targets of a loss: what they return, what they are named, and what their stored layers depend on."""

from dataclasses import dataclass

import numpy as np
import pytest
from helpers.errors import user_error
from helpers.labels import labels_of
from torch import nn

from sn6.data.dataset import check_target_names
from sn6.targets.target import Target, tile_layers
from sn6.training.loss import as_loss


class WithTargets(nn.Module):
    """A loss that is never called."""

    def __init__(self, targets):
        super().__init__()
        self.targets = targets

    def forward(self, logits, target, valid, **maps):
        raise AssertionError


@dataclass(frozen=True)
class Parity(Target):
    """1 on buildings of odd numbers; with what the tests below get wrong."""

    wrong: str = ""

    def tile(self, labels):
        layer = (labels.instances % 2).astype(np.float32)
        if self.wrong == "no channel":
            return layer
        return layer[None, 1:] if self.wrong == "tile" else layer[None]

    def crop(self, layer, mask, building_fraction):
        if self.wrong == "window":
            return layer[0]
        return np.asarray(layer) if self.wrong == "array for a tensor" else layer


@pytest.mark.parametrize("wrong", ["tile", "no channel", "window", "array for a tensor"])
def test_a_target_that_returns_something_else(wrong):
    with user_error("mismatch", "parity"):
        as_loss(WithTargets({"parity": Parity(wrong)}), "WithTargets")


@pytest.mark.parametrize("targets", [[Parity()], {"parity": np.zeros(3)}, "parity"], ids=["list", "array", "text"])
def test_targets_that_are_no_dict_of_targets(targets):
    with user_error("invalid_value", "loss._target_"):
        as_loss(WithTargets(targets), "WithTargets")


@pytest.mark.parametrize("name", ["image", "mask", "valid", "instances", "index"])
def test_a_target_may_not_be_named_like_another_entry_of_a_sample(name):
    check_target_names({"weight": Parity()})
    with user_error("conflict", name):
        check_target_names({name: Parity()})


def test_targets_of_other_fields_or_classes_have_other_fingerprints():
    @dataclass(frozen=True)
    class Other(Parity):
        pass

    assert Parity().fingerprint == Parity("").fingerprint
    assert len({target.fingerprint for target in (Parity(), Parity("tile"), Other())}) == 3


def test_a_layer_is_float32_and_has_a_channel():
    layer = tile_layers({"parity": Parity()}, labels_of([[0, 1], [2, 3]]))["parity"]
    assert layer.dtype == np.float32
    assert layer.tolist() == [[[0, 1], [0, 1]]]
