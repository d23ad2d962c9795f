"""Initialise networks: at random, and with ImageNet weights."""

import socket
import time

import pytest
import timm
import torch
import torch.nn.functional as F
from helpers.errors import user_error
from safetensors.torch import save_file
from timm.models.vgg import cfgs
from torch import nn

from sn6.models.encoders import he_initialise, load_pretrained
from sn6.models.fcn import FCN8s, bilinear_upsampling
from sn6.models.ternausnet import TernausNet


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_upsampling_is_initialised_to_bilinear_interpolation(factor):
    """A ramp stays a ramp of 1/factor per pixel, and other classes stay 0."""
    image = torch.zeros(1, 2, 6, 7)
    image[0, 1] = torch.arange(7.0) + 10 * torch.arange(6.0)[:, None]
    with torch.no_grad():
        out = bilinear_upsampling(2, factor)(image)[0, :, factor:-factor, factor:-factor]
    assert (out[0] == 0).all()
    torch.testing.assert_close(out[1].diff(dim=1), torch.full_like(out[1, :, 1:], 1 / factor), rtol=0, atol=1e-4)
    torch.testing.assert_close(out[1].diff(dim=0), torch.full_like(out[1, 1:], 10 / factor), rtol=0, atol=1e-4)
    assert out[1].mean().item() == pytest.approx(image[0, 1].mean().item())


def test_fcn_scores_start_at_zero():
    assert not FCN8s(width=2)(torch.randn(1, 4, 40, 40)).any()


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(40, 60, 3), nn.ConvTranspose2d(80, 40, 2, stride=2), nn.ConvTranspose2d(60, 60, 4, stride=2)],
)
def test_he_initialisation_doubles_the_mean_square_that_relu_halves(layer):
    """The mean square of a layer's output is twice that of its input (He et al., equation 9)."""
    he_initialise(layer)
    out = layer(torch.randn(8, layer.in_channels, 24, 24))[..., 4:-4, 4:-4]
    assert out.square().mean().item() == pytest.approx(2, rel=0.1)


def test_ternausnet_learns_one_sample_from_scratch():
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    mask = (((rows // 16) + (columns // 16)) % 2).float()[None, None]
    image = mask + 0.3 * torch.randn(1, 4, 64, 64)
    network = TernausNet(width=16)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(40):
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(network(image), mask).backward()
        optimizer.step()
    assert ((network(image) > 0) == (mask > 0)).float().mean() > 0.98


def shapes_in_timm(architecture):
    """Return name and shape of every weight of timm's network, without allocating it."""
    with torch.device("meta"):
        return {name: weight.shape for name, weight in timm.create_model(architecture).state_dict().items()}


def test_pretrained_weights_come_from_a_local_file(tmp_path):
    shapes = shapes_in_timm("vgg11")
    weights = {name: torch.randn(shape) for name, shape in shapes.items() if name.startswith("features.")}
    save_file(weights, tmp_path / "vgg11.safetensors")
    torch.save(weights, tmp_path / "vgg11.pth")
    for name, bands in (("vgg11.safetensors", 3), ("vgg11.pth", 5)):
        network = TernausNet(in_channels=bands, pretrained="imagenet", weights_file=str(tmp_path / name))
        loaded = network.encoder.state_dict()
        assert len(loaded) == len(weights)
        for key, weight in weights.items():
            if key == "features.0.weight" and bands != 3:
                weight = weight.mean(dim=1, keepdim=True).repeat(1, bands, 1, 1) * 3 / bands
            torch.testing.assert_close(loaded[key.removeprefix("features.")], weight)


def test_torchvisions_fully_connected_layers_become_convolutions(tmp_path):
    fc6, fc7 = nn.Linear(2 * 49, 5), nn.Linear(5, 5)
    weights = {"classifier.0." + k: v for k, v in fc6.state_dict().items()}
    weights |= {"classifier.3." + k: v for k, v in fc7.state_dict().items()}
    torch.save(weights, tmp_path / "vgg16.pth")
    as_conv = {"pre_logits.fc1": nn.Conv2d(2, 5, 7), "pre_logits.fc2": nn.Conv2d(5, 5, 1)}
    load_pretrained("vgg16", as_conv, 64, "imagenet", str(tmp_path / "vgg16.pth"))
    x = torch.randn(3, 2, 7, 7)
    convolved = as_conv["pre_logits.fc2"](as_conv["pre_logits.fc1"](x))
    torch.testing.assert_close(convolved.flatten(1), fc7(fc6(x.flatten(1))))


def test_fcn_loads_the_fully_connected_layers_too(tmp_path, monkeypatch):
    """The network has 1/32 of the published width, which has 134 million parameters."""
    published = shapes_in_timm("vgg16")
    layout = [v // 32 if isinstance(v, int) else v for v in cfgs["vgg16"]]
    monkeypatch.setitem(cfgs, "vgg16", layout)
    monkeypatch.setattr("sn6.models.encoders.PUBLISHED_WIDTH", 2)
    weights = {}
    for name, shape in published.items():
        if name.startswith(("features.", "pre_logits.")):
            weights[name] = torch.randn([size // 32 if size > 7 else size for size in shape])
    save_file(weights, tmp_path / "vgg16.safetensors")
    file = str(tmp_path / "vgg16.safetensors")
    network = FCN8s(in_channels=3, width=2, pretrained="imagenet", weights_file=file)
    loaded = {f"features.{k}": v for k, v in network.encoder.state_dict().items()}
    loaded |= {f"pre_logits.fc1.{k}": v for k, v in network.fc6.state_dict().items()}
    loaded |= {f"pre_logits.fc2.{k}": v for k, v in network.fc7.state_dict().items()}
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)
    assert not network.score.weight.any()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (None, "not_found"),
        (b"no tensors", "unreadable"),
        ({"features.0.bias": torch.zeros(4)}, "mismatch"),
        ({"features.0.weight": torch.zeros(4, 3, 5, 5)}, "mismatch"),
        ({"features.0.weight": torch.zeros(9, 3, 3, 3)}, "mismatch"),
        ({"features.0.weight": 3}, "mismatch"),  # which is not a tensor
        ([torch.zeros(3)], "unreadable"),
        ({"features.0.weight": nn.ReLU()}, "unreadable"),  # a pickled object, whose code must not run
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_does_not_fit_is_an_error(tmp_path, content, kind, suffix):
    path = tmp_path / f"weights{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif suffix == ".safetensors" and isinstance(content, dict) and torch.is_tensor(next(iter(content.values()))):
        save_file(content, path)
    elif content is not None:
        torch.save(content, path)
        kind = kind if suffix == ".pth" else "unreadable"
    layers = {"features": nn.Sequential(nn.Conv2d(4, 4, 3))}
    with user_error(kind, key="model.weights_file", value=str(path)):
        load_pretrained("vgg11", layers, 64, "imagenet", str(path))


def test_conflicting_options_are_an_error():
    with user_error("conflict", key="model.width", value=16):
        TernausNet(width=16, pretrained="imagenet")
    with user_error("conflict", key="model.weights_file", value="x.pth"):
        TernausNet(width=4, weights_file="x.pth")


def test_without_internet_the_download_fails_at_once(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    started = time.monotonic()
    with user_error("unavailable", key="model.pretrained", value="imagenet"):
        TernausNet(pretrained="imagenet")
    assert time.monotonic() - started < 5


def test_weights_in_the_cache_of_the_hub_need_no_internet(tmp_path, monkeypatch):
    """The cache is as the hub writes it: `refs/main` contains a commit, whose folder contains the file."""
    repository = tmp_path / "models--timm--vgg11.tv_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    (repository / "snapshots" / "c0ffee").mkdir(parents=True)
    weights = {"features.0.weight": torch.randn(4, 3, 3, 3), "features.0.bias": torch.randn(4)}
    save_file(weights, repository / "snapshots" / "c0ffee" / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", None)
    layer = nn.Conv2d(3, 4, 3)
    load_pretrained("vgg11", {"features": nn.Sequential(layer)}, 64, "imagenet", None)
    assert torch.equal(layer.weight, weights["features.0.weight"])
