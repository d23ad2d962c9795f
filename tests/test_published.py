"""Load published weights: every form gives the logits of the original, and mismatches are reported."""

from functools import partial
from importlib import import_module

import helpers.published_nets as nets
import pytest
import torch
from helpers.errors import user_error
from safetensors.torch import save_file
from torch import nn

from sn6.checkpoints.init_options import check_building_class, resolve_options
from sn6.checkpoints.loading import read_checkpoint
from sn6.checkpoints.weights_file import write_weights
from sn6.models.logits import building_logits
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
    """Return the network that a file fits, with its weights, and the metadata."""
    weights, metadata = read_checkpoint(path, "model.weights")
    options = dict(metadata.network)
    module, _, name = options.pop("_target_").rpartition(".")
    network = getattr(import_module(module), name)(**options)
    network.load_state_dict(weights)
    return network.eval(), metadata


def save(tmp_path, checkpoint, name="published.pth", **options):
    torch.save(checkpoint, tmp_path / name, **options)
    return tmp_path / name


def assert_unusable(path, kind, *names):
    """Assert that reading fails with this kind, and names tensors or classes of the file."""
    with user_error(kind, key="model.weights", value=str(path)) as caught:
        read_checkpoint(path, "model.weights")
    assert all(name in str(caught.value) for name in names)


@pytest.mark.parametrize(("build", "compute"), FORMS.values(), ids=FORMS.keys())
def test_the_logits_equal_those_of_the_original(tmp_path, build, compute):
    weights = build()
    network, metadata = load(save(tmp_path, weights))
    image = torch.randn(1, metadata.network["in_channels"], 64, 96)
    with torch.no_grad():
        expected, logits = compute(weights, image), network(image)
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_an_fcn_equals_the_original_for_any_size(tmp_path, stride):
    weights = nets.fcn_file(stride, classes=2)
    image = torch.randn(1, 3, 37, 70)
    with torch.no_grad():
        expected, logits = nets.fcn(weights, image, stride), load(save(tmp_path, weights))[0](image)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("build", "options"),
    [
        (partial(nets.unet11_file, bands=4, width=6), {"in_channels": 4, "width": 6, "classes": 1, "encoder": "vgg11"}),
        (partial(nets.unet16_file, classes=11), {"in_channels": 3, "width": 4, "classes": 11, "encoder": "vgg16"}),
        (partial(nets.fcn_file, 16, bands=5), {"in_channels": 5, "width": 2, "classes": 21}),
        (nets.unet_file, {"in_channels": 3, "width": 4, "classes": 2, "batch_norm": True, "padded": True, "depth": 4}),
    ],
)
def test_bands_classes_width_and_options_are_read_from_the_file(tmp_path, build, options):
    _, metadata = load(save(tmp_path, build()))
    assert metadata.network.items() >= options.items()


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
def test_state_dicts_are_unwrapped(tmp_path, wrap):
    weights = nets.unet11_file(bands=4)
    network, _ = load(save(tmp_path, wrap(weights)))
    assert torch.equal(network.state_dict()["encoder.6.weight"], weights["conv3s.weight"])


def test_the_old_format_of_torch_and_safetensors_are_read_too(tmp_path):
    weights = nets.unet11_file()
    save_file(weights, tmp_path / "w.safetensors")
    old = save(tmp_path, {"model": weights}, "TernausNet.pt", _use_new_zipfile_serialization=False)
    for path in (old, tmp_path / "w.safetensors"):
        network, metadata = load(path)
        assert metadata.format == "TernausNet's UNet11"
        assert torch.equal(network.state_dict()["head.bias"], weights["final.bias"])


def test_the_second_names_are_optional(tmp_path):
    weights = {name: tensor for name, tensor in nets.unet16_file().items() if not name.startswith("conv")}
    network, _ = load(save(tmp_path, weights))
    assert torch.equal(network.state_dict()["encoder.28.bias"], weights["encoder.28.bias"])


def test_second_names_that_differ_from_the_first_are_an_error(tmp_path):
    weights = nets.unet11_file()
    weights["conv3s.weight"] = weights["conv3s.weight"] + 1e-3
    assert_unusable(save(tmp_path, weights), "mismatch", "encoder.6.weight", "conv3s.weight")


@pytest.mark.parametrize(
    ("build", "name", "change", "network"),
    [
        (nets.unet11_file, "dec3.block.1.weight", None, "UNet11"),
        (nets.unet16_file, "edge.weight", torch.zeros(3), "UNet16"),
        (nets.unet_file, "outc.conv.bias", torch.zeros(9), "Pytorch-UNet"),
        (nets.unet_file, "inc.double_conv.0.weight", torch.zeros(9), "Pytorch-UNet"),
        (partial(nets.fcn_file, 8), "fc6.weight", torch.zeros(128, 784), "FCN-8s"),
        (partial(nets.fcn_file, 8), "score_fr.weight", None, "FCN-8s"),
    ],
)
def test_tensors_that_do_not_fit_are_reported_by_their_names_in_the_file(tmp_path, build, name, change, network):
    weights = build()
    weights.pop(name, None)
    if change is not None:
        weights[name] = change
    shape = () if change is None or name == "edge.weight" else (str(tuple(change.shape)),)
    assert_unusable(save(tmp_path, weights), "mismatch", network, name, *shape)


def test_the_bilinear_unet_is_an_error(tmp_path):
    weights = {name: tensor for name, tensor in nets.unet_file().items() if ".up." not in name}
    assert_unusable(save(tmp_path, weights), "mismatch", "up1.up.weight")


class UNet11(nn.Module):
    """A module, of which torch.save pickles the name of its class."""


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_pickled_module_is_an_error_that_names_its_class(tmp_path, as_zip):
    path = save(tmp_path, {"model": UNet11()}, "whole.pth", _use_new_zipfile_serialization=as_zip)
    assert_unusable(path, "unreadable", "test_published.UNet11")


class Danger:
    def __reduce__(self):
        import os

        return os.mkdir, ("code_ran",)


def test_code_in_a_file_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_unusable(save(tmp_path, {"state_dict": Danger()}), "unreadable", "posix.mkdir")
    assert not (tmp_path / "code_ran").exists()


def test_files_without_named_tensors_are_an_error(tmp_path):
    assert_unusable(save(tmp_path, [torch.zeros(2)]), "wrong_data", "list")
    assert_unusable(save(tmp_path, {"epoch": 3}), "wrong_data", "epoch")
    (tmp_path / "text.pth").write_text("no tensors")
    assert_unusable(tmp_path / "text.pth", "unreadable")


# --- requested options and those of the weights

SIXTEEN = {"_target_": "sn6.models.ternausnet.TernausNet", "encoder": "vgg16", "classes": 11, "width": 8}
NO_OPTIONS = {"in_channels": 4, "classes": None, "width": None, "encoder": None, "pretrained": None}


def options(from_checkpoint=SIXTEEN, reset_head=False, network=TernausNet, **requested):
    return resolve_options(network, NO_OPTIONS | requested, from_checkpoint, reset_head, "model.weights=w.pth")


def test_options_that_are_not_given_are_taken_from_the_weights():
    assert options() == NO_OPTIONS | {"encoder": "vgg16", "classes": 11, "width": 8}
    assert options(width=8, encoder="vgg16") == options()
    assert options(from_checkpoint={}) == NO_OPTIONS | {"encoder": "vgg11", "classes": 1, "width": 64}
    assert options(from_checkpoint={}, width=16)["width"] == 16


def test_a_new_head_has_the_requested_number_of_classes():
    assert options(reset_head=True)["classes"] == 1
    assert options(reset_head=True, classes=3)["classes"] == 3


@pytest.mark.parametrize(
    ("requested", "key", "value"),
    [
        ({"encoder": "vgg11"}, "model.encoder", "vgg11"),
        ({"width": 64}, "model.width", 64),
        ({"classes": 1}, "model.classes", 1),
        ({"network": UNet}, "model", "unet"),
    ],
)
def test_options_that_contradict_the_weights_are_an_error(requested, key, value):
    with user_error("mismatch", key=key, value=value):
        options(**requested)


# --- several classes


def test_the_logit_of_building_is_above_zero_where_it_is_the_argmax():
    logits = torch.randn(2, 21, 30, 40)
    margin = building_logits(logits, 15)
    assert margin.shape == (2, 1, 30, 40)
    assert torch.equal(margin[:, 0] > 0, logits.argmax(dim=1) == 15)
    single = logits[:, :1]
    assert torch.equal(building_logits(single, None), single)


def test_the_class_of_building_must_exist():
    for classes, building_class in ((21, None), (21, 21), (1, 0)):
        with user_error("conflict", key="model.building_class", value=building_class):
            check_building_class(classes, building_class)
    check_building_class(21, 20)
    check_building_class(1, None)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_a_file_of_version_0_1_is_refused(tmp_path, suffix):
    """Its threshold is a logit, which would pass for a probability."""
    path, weights = tmp_path / f"old{suffix}", TernausNet(4, width=4).state_dict()
    of_data = {"split": "columns", "ground": [[0, 0, 450, 450]]}
    if suffix == ".ckpt":
        state = {f"network.{name}": tensor for name, tensor in weights.items()}
        torch.save({"state_dict": state, "TileDataModule": of_data, "callbacks": {}, "epoch": 1}, path)
    else:
        write_weights(path, weights, {"footprints": {"threshold": 0.405}, **of_data})
    with user_error("wrong_data", "checkpoint", str(path)):
        read_checkpoint(path, "checkpoint")
