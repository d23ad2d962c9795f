"""Weights that others published: every form gives the numbers of the original, and what does not fit is named."""

from functools import partial
from importlib import import_module

import helpers.published_nets as nets
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sn6.checkpoints.init_options import check_building_class, resolve_options
from sn6.checkpoints.loading import read_checkpoint
from sn6.errors import UserError
from sn6.models.classes import building_logits
from sn6.models.ternausnet import TernausNet
from sn6.models.unet import UNet

FORMS = {
    "UNet11": (nets.unet11_file, nets.unet11),
    "baseline": (partial(nets.unet11_file, bands=4), nets.unet11),
    "UNet16": (nets.unet16_file, nets.unet16),
    "UNet16 of 11 classes": (partial(nets.unet16_file, classes=11), nets.unet16),
    "FCN-32s": (partial(nets.fcn_file, 32), partial(nets.fcn, stride=32)),
    "FCN-16s": (partial(nets.fcn_file, 16), partial(nets.fcn, stride=16)),
    "FCN-8s": (partial(nets.fcn_file, 8), partial(nets.fcn, stride=8)),
    "U-Net": (nets.unet_file, nets.unet),
    "U-Net with biases": (partial(nets.unet_file, biases=True), nets.unet),
}


def load(path):
    """The network that a file tells of, with its weights; and the card."""
    weights, card = read_checkpoint(path, "model.weights")
    options = dict(card["network"])
    module, _, name = options.pop("_target_").rpartition(".")
    network = getattr(import_module(module), name)(**options)
    network.load_state_dict(weights)
    return network.eval(), card


def saved(tmp_path, held, name="published.pth", **how):
    torch.save(held, tmp_path / name, **how)
    return tmp_path / name


def refused(path, *parts):
    with pytest.raises(UserError) as raised:
        read_checkpoint(path, "model.weights")
    line = str(raised.value.args[0])
    assert "\n" not in line
    for part in (f"model.weights={path}", *parts):
        assert part in line


@pytest.mark.parametrize(("build", "compute"), FORMS.values(), ids=FORMS.keys())
def test_the_logits_are_those_of_the_original(tmp_path, build, compute):
    weights = build()
    network, card = load(saved(tmp_path, weights))
    image = torch.randn(1, card["network"]["in_channels"], 64, 96)
    with torch.no_grad():
        expected, logits = compute(weights, image), network(image)
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_an_fcn_takes_any_size_as_the_original_does(tmp_path, stride):
    weights = nets.fcn_file(stride, classes=2)
    image = torch.randn(1, 3, 37, 70)
    with torch.no_grad():
        expected, logits = nets.fcn(weights, image, stride), load(saved(tmp_path, weights))[0](image)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (partial(nets.unet11_file, bands=4, width=6), {"in_channels": 4, "width": 6, "classes": 1, "encoder": "vgg11"}),
        (partial(nets.unet16_file, classes=11), {"in_channels": 3, "width": 4, "classes": 11, "encoder": "vgg16"}),
        (partial(nets.fcn_file, 16, bands=5), {"in_channels": 5, "width": 2, "classes": 21}),
        (nets.unet_file, {"in_channels": 3, "width": 4, "classes": 2, "batch_norm": True, "padded": True, "depth": 4}),
    ],
)
def test_bands_classes_width_and_options_are_read_from_the_file(tmp_path, build, told):
    _, card = load(saved(tmp_path, build()))
    assert card["network"].items() >= told.items()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: {"model": w, "epoch": 3, "step": 1200},
        lambda w: {"state_dict": w, "optimizer": {"lr": 0.1}},
        lambda w: {"model_state_dict": w},
        lambda w: {f"module.{name}": tensor for name, tensor in w.items()},
        lambda w: {"model": {f"module.{name}": tensor for name, tensor in w.items()}},
        lambda w: w | {"mask_values": [0, 255]},
    ],
)
def test_wrappings_come_off(tmp_path, wrap):
    weights = nets.unet11_file(bands=4)
    network, _ = load(saved(tmp_path, wrap(weights)))
    assert torch.equal(network.state_dict()["encoder.6.weight"], weights["conv3s.weight"])


def test_old_files_and_safetensors_are_read_too(tmp_path):
    weights = nets.unet11_file()
    save_file(weights, tmp_path / "w.safetensors")
    old = saved(tmp_path, {"model": weights}, "TernausNet.pt", _use_new_zipfile_serialization=False)
    for path in (old, tmp_path / "w.safetensors"):
        network, card = load(path)
        assert card["form"] == "TernausNet's UNet11"
        assert torch.equal(network.state_dict()["head.bias"], weights["final.bias"])


def test_a_file_without_the_second_names_will_do(tmp_path):
    weights = {name: tensor for name, tensor in nets.unet16_file().items() if not name.startswith("conv")}
    network, _ = load(saved(tmp_path, weights))
    assert torch.equal(network.state_dict()["encoder.28.bias"], weights["encoder.28.bias"])


def test_two_versions_of_one_layer_are_refused(tmp_path):
    weights = nets.unet11_file()
    weights["conv3s.weight"] = weights["conv3s.weight"] + 1e-3
    refused(saved(tmp_path, weights), "encoder.6.weight and conv3s.weight are one layer", "differ here")


@pytest.mark.parametrize(
    ("build", "name", "change", "parts"),
    [
        (nets.unet11_file, "dec3.block.1.weight", None, ["TernausNet's UNet11", "missing: dec3.block.1.weight"]),
        (nets.unet16_file, "edge.weight", torch.zeros(3), ["TernausNet's UNet16", "unknown: edge.weight"]),
        (nets.unet_file, "outc.conv.bias", torch.zeros(9), ["of another shape: outc.conv.bias (9,), not (2,)"]),
        (nets.unet_file, "inc.double_conv.0.weight", torch.zeros(9), ["inc.double_conv.0.weight (9,)"]),
        (
            partial(nets.fcn_file, 8),
            "fc6.weight",
            torch.zeros(128, 784),
            ["FCN-8s", "fc6.weight (128, 784), not (128,"],
        ),
        (partial(nets.fcn_file, 8), "score_fr.weight", None, ["missing: score_fr.weight"]),
    ],
)
def test_keys_that_do_not_fit_are_named_as_the_file_names_them(tmp_path, build, name, change, parts):
    weights = build()
    weights.pop(name, None)
    if change is not None:
        weights[name] = change
    refused(saved(tmp_path, weights), *parts)


def test_the_bilinear_unet_is_told_apart(tmp_path):
    weights = {name: tensor for name, tensor in nets.unet_file().items() if ".up." not in name}
    refused(saved(tmp_path, weights), "missing: up1.up.weight", "the variant that upsamples bilinearly")


class UNet11(nn.Module):
    """What torch.save writes of a whole module: the name of its code."""


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_pickled_module_is_refused_by_name(tmp_path, as_zip):
    path = saved(tmp_path, {"model": UNet11()}, "whole.pth", _use_new_zipfile_serialization=as_zip)
    refused(path, "without running code from it: it pickles test_published.UNet11", ".state_dict()")


class Danger:
    def __reduce__(self):
        import os

        return os.mkdir, ("it_ran",)


def test_no_code_of_a_file_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(saved(tmp_path, {"state_dict": Danger()}), "it pickles posix.mkdir")
    assert not (tmp_path / "it_ran").exists()


def test_files_without_weights_are_told(tmp_path):
    refused(saved(tmp_path, [torch.zeros(2)]), "holds no weights by name but a list")
    refused(saved(tmp_path, {"epoch": 3}), "holds no weights by name; it has epoch")
    (tmp_path / "text.pth").write_text("no tensors")
    refused(tmp_path / "text.pth", r"broken, cut short or no checkpoint (not written by torch); give a checkpoint")


# --- what is said against what the file fixes

SIXTEEN = {"_target_": "sn6.models.ternausnet.TernausNet", "encoder": "vgg16", "classes": 11, "width": 8}
NOTHING_SAID = {"in_channels": 4, "classes": None, "width": None, "encoder": None, "pretrained": None}


def options(held=SIXTEEN, reset_head=False, network=TernausNet, **said):
    return resolve_options(network, NOTHING_SAID | said, held, reset_head, "model.weights=w.pth")


def test_what_is_not_said_is_taken_from_the_weights():
    assert options() == NOTHING_SAID | {"encoder": "vgg16", "classes": 11, "width": 8}
    assert options(width=8, encoder="vgg16") == options()
    assert options(held={}) == NOTHING_SAID | {"encoder": "vgg11", "classes": 1, "width": 64}
    assert options(held={}, width=16)["width"] == 16


def test_a_new_head_has_the_classes_that_are_said():
    assert options(reset_head=True)["classes"] == 1
    assert options(reset_head=True, classes=3)["classes"] == 3


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            {"encoder": "vgg11"},
            r"model\.encoder=vgg11, and model\.weights=w\.pth has encoder=vgg16; leave model\.encoder",
        ),
        ({"width": 64}, r"model\.width=64, and .* has width=8; leave model\.width out"),
        (
            {"classes": 1},
            r"model\.classes=1, and .* has classes=11; .* model\.reset_head=true to start the last layers",
        ),
        ({"network": UNet}, r"is of TernausNet, and model=unet was asked for; set model=ternausnet"),
    ],
)
def test_a_contradiction_is_one_line(said, told):
    with pytest.raises(UserError, match=told):
        options(**said)


# --- several classes


def test_building_is_above_zero_where_it_is_the_argmax():
    logits = torch.randn(2, 21, 30, 40)
    margin = building_logits(logits, 15)
    assert margin.shape == (2, 1, 30, 40)
    assert torch.equal(margin[:, 0] > 0, logits.argmax(dim=1) == 15)
    one = logits[:, :1]
    assert torch.equal(building_logits(one, None), one)


def test_the_class_of_building_is_asked_for():
    for classes, building_class in ((21, None), (21, 21), (1, 0)):
        with pytest.raises(UserError, match=r"model\.building_class="):
            check_building_class(classes, building_class)
    check_building_class(21, 20)
    check_building_class(1, None)
