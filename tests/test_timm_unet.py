"""The U-Net on encoders of timm: its decoder, its encoders, and the weights that it starts from.

timm's `test_*` networks have the structure of their families and some hundred thousand parameters.
"""

import socket

import pytest
import timm
import torch
import torch.nn.functional as F
from helpers.commands import assert_fails
from helpers.errors import user_error
from safetensors.torch import save_file
from torch import nn

from sn6.checkpoints.loading import build_on_meta
from sn6.checkpoints.transfer import transfer_weights
from sn6.models.first_layer import FirstLayer
from sn6.models.timm_encoder import TimmEncoder, encoder_shape
from sn6.models.timm_unet import TimmUNet, decoder_strides


def net(encoder="test_resnet", in_channels=4, classes=1, **options):
    return TimmUNet(in_channels, classes, encoder, **options).eval()


# --- the decoder ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_the_decoder_equals_plain_functions(half, norm):
    """Stages of 1/16 to 1/2 have a skip, that at full size has none."""
    widths = [32, 24, 16, 12] if half else [32, 24, 16, 12, 8]
    network = net(classes=2, widths=widths, norm=norm, half_size_head=half)
    image = torch.randn(2, 4, 40, 70)
    maps = network.encoder(F.pad(image, (0, 26, 0, 24)))  # to 64×96
    assert [tuple(m.shape[2:]) for m in maps] == [(64 // s, 96 // s) for s in (2, 4, 8, 16, 32)]
    x = maps.pop()
    for block in network.decoder:
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = torch.cat([x, maps.pop()], 1) if maps else x
        layers = list(block)
        for convolution in (layer for layer in layers if isinstance(layer, nn.Conv2d)):
            x = F.conv2d(x, convolution.weight, convolution.bias, padding=1)
            after = layers[layers.index(convolution) + 1]
            if norm == "batch":  # of random weights: mean 0, variance 1
                x = x / (1 + 1e-5) ** 0.5
            if norm == "group":
                groups = x.unflatten(1, (x.shape[1] // 16 if x.shape[1] % 16 == 0 else 1, -1))
                mean, variance = groups.mean((2, 3, 4), keepdim=True), groups.var((2, 3, 4), keepdim=True, correction=0)
                x = ((groups - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
            assert isinstance(after, nn.ReLU if norm == "none" else nn.Module)
            x = F.relu(x)
    x = F.conv2d(x, network.head.weight, network.head.bias, padding=1)
    if half:
        x = x.reshape(2, 2, 2, 2, 32, 48).permute(0, 1, 4, 2, 5, 3).reshape(2, 2, 64, 96)  # (class, row, column)
    torch.testing.assert_close(network(image), x[..., :40, :70], rtol=1e-4, atol=1e-4)


def test_each_channel_of_a_half_size_head_is_a_pixel_of_two_by_two():
    network = net(classes=2, half_size_head=True)
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.arange(8.0))
        logits = network(torch.randn(1, 4, 33, 35))
    for number in range(8):
        of_class, row, column = number // 4, number // 2 % 2, number % 2
        assert (logits[0, of_class, row::2, column::2] == number).all()


@pytest.mark.parametrize(
    ("encoder", "half"),
    [
        ("test_resnet", True),
        ("test_mambaout", False),
        ("test_vit", True),
        pytest.param("test_convnext", False, marks=pytest.mark.slow),
        pytest.param("test_efficientnet", True, marks=pytest.mark.slow),
    ],
)
def test_logits_have_the_size_of_the_image_and_every_parameter_learns(encoder, half):
    """Also of encoders whose maps are (b, h, w, c), and of those with one size of maps only.

    DDP fails on a parameter that no output depends on.
    """
    network = net(encoder, in_channels=2, classes=3, half_size_head=half).train()
    for size in ((33, 47), (96, 64)):
        logits = network(torch.randn(2, 2, *size))
        assert logits.shape == (2, 3, *size)
    logits.square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.slow
def test_the_logits_depend_on_each_map_of_the_encoder():
    network, seen = net("test_convnext"), []
    network.encoder.register_forward_hook(
        lambda module, inputs, maps: seen.extend(maps) or [m.detach().requires_grad_() for m in maps]
    )
    maps = []
    network.encoder.register_forward_hook(lambda module, inputs, output: maps.extend(output))
    network(torch.randn(1, 4, 64, 64)).square().sum().backward()
    assert len(maps) == len(network.encoder.shape.strides) > 2
    assert all(m.grad.any() for m in maps)


@pytest.mark.slow
def test_a_shift_by_the_stride_shifts_the_logits():
    network = net(in_channels=1, norm="none")
    image = torch.zeros(1, 1, 448, 448)
    image[..., 192:256, 192:256] = torch.randn(64, 64)
    moved = torch.roll(image, (32, -32), (2, 3))
    with torch.inference_mode():
        expected, logits = torch.roll(network(image), (32, -32), (2, 3)), network(moved)
    torch.testing.assert_close(logits[..., 96:-96, 96:-96], expected[..., 96:-96, 96:-96], rtol=1e-3, atol=1e-4)


def test_levels_of_the_decoder_are_powers_of_two():
    assert decoder_strides(32, 1) == [16, 8, 4, 2, 1]
    assert decoder_strides(16, 2) == [8, 4, 2]
    assert decoder_strides(14, 1) == [8, 4, 2, 1]  # patches of 14 pixels
    with user_error("conflict", key="model.widths", value=[8, 8]):
        net(widths=[8, 8])


# --- encoders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoder", "kind"),
    [
        ("resnet3", "unknown_value"),
        ("tf_efficientnet_b5_ns", "unknown_value"),  # an old name, which says the weights
        ("resnet34.a1_in1k", "unknown_value"),
        ("coatnet_0_224", "conflict"),  # images of 224 pixels only
        pytest.param("inception_v4", "conflict", marks=pytest.mark.slow),  # maps of other sizes than image / stride
    ],
)
def test_an_encoder_that_does_not_fit_is_an_error(encoder, kind):
    with user_error(kind, key="model.encoder", value=encoder):
        net(encoder)


@pytest.mark.slow
def test_an_encoder_with_windows_of_a_fixed_number_takes_multiples_of_its_image():
    assert encoder_shape("maxvit_tiny_tf_224", 4).multiple == 224
    assert encoder_shape("swin_tiny_patch4_window7_224", 4).multiple == 32


def test_the_trial_of_an_encoder_draws_no_random_numbers():
    encoder_shape.cache_clear()
    torch.manual_seed(3)
    first = net().state_dict()
    torch.manual_seed(3)
    second = net().state_dict()  # whose trial is remembered
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_checkpoint_declares_its_network_without_memory():
    target = {"_target_": "sn6.models.timm_unet.TimmUNet", "in_channels": 4, "encoder": "test_convnext"}
    network = build_on_meta(target | {"norm": "group", "widths": [32, 16, 16, 16], "half_size_head": True})
    assert all(parameter.is_meta for parameter in network.parameters())
    real = net("test_convnext", norm="group", widths=[32, 16, 16, 16], half_size_head=True)
    assert {n: p.shape for n, p in real.state_dict().items()} == {n: p.shape for n, p in network.state_dict().items()}


@pytest.mark.slow
def test_encoders_are_listed_without_a_run(sn6_run, tmp_path):
    done = sn6_run("model=timm_unet", "model.encoder=list:test_*vit*")
    names = [line.split()[0] for line in done.out.splitlines()[1:]]
    assert done.status == 0
    assert names == ["test_maxvit", "test_vit", "test_vit2", "test_vit3", "test_vit4"]  # but not test_vit_relpos
    assert sn6_run("experiment=quickstart", "model=timm_unet", "model.encoder=list:test_res").out.count("\n") == 2
    assert_fails(sn6_run("model=timm_unet", "model.encoder=list:resnett"), "unknown_value", "model.encoder")
    assert list(tmp_path.iterdir()) == []
    assert_fails(sn6_run("model=ternausnet", "model.encoder=list"), "invalid_value", "model.encoder", "list")


# --- pretrained weights -----------------------------------------------------------------------------------------


def published(encoder, **options):
    """Return the random weights of the whole network of timm, as its files hold them."""
    return timm.create_model(encoder, **options).state_dict()


@pytest.mark.parametrize(
    ("encoder", "options", "suffix"),
    [
        ("test_resnet", {}, ".safetensors"),
        ("test_mambaout", {}, ".pth"),
        pytest.param("test_convnext", {}, ".safetensors", marks=pytest.mark.slow),
        pytest.param("test_efficientnet", {"num_classes": 7}, ".pth", marks=pytest.mark.slow),
    ],
)
def test_every_tensor_comes_from_the_file(encoder, options, suffix, tmp_path):
    """The encoder with these weights returns the maps that the whole network of timm computes on its way."""
    whole = timm.create_model(encoder, **options).eval()
    path = str(tmp_path / f"weights{suffix}")
    save_file(whole.state_dict(), path) if suffix == ".safetensors" else torch.save(whole.state_dict(), path)
    network = net(encoder, in_channels=3, pretrained="imagenet", weights_file=path)
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected = whole.forward_intermediates(image, intermediates_only=True, output_fmt="NCHW")[-1]
        torch.testing.assert_close(network.encoder(image)[-1], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rule", ["mean", "repeat"])
def test_the_first_layer_of_imagenet_weights_is_adapted_by_the_rule(rule, tmp_path):
    weights = published("test_resnet")
    save_file(weights, tmp_path / "w.safetensors")
    options = {"pretrained": "imagenet", "weights_file": str(tmp_path / "w.safetensors")}
    loaded = net(**options, first_layer=FirstLayer(rule)).encoder.network.conv1[0].weight
    before = weights["conv1.0.weight"]
    expected = before.mean(1) if rule == "mean" else before[:, 0]
    torch.testing.assert_close(loaded[:, 3], expected * 3 / 4)


@pytest.mark.slow
def test_a_checkpoint_of_other_bands_is_adapted_in_each_parallel_first_layer():
    """The first layer of FastViT is a 3×3 and a 1×1 convolution side by side."""
    source, target = TimmUNet(3, encoder="fastvit_t8"), TimmUNet(4, encoder="fastvit_t8")
    rows = transfer_weights(target, source.state_dict(), (("R", "G", "B"), ()), "mean", False, "w", "model")
    adapted = [row.tensor for row in rows if row.action == "adapted"]
    assert adapted == source.first_layers
    assert len(adapted) == 2
    for name in adapted:
        before, after = source.state_dict()[name], target.state_dict()[name]
        torch.testing.assert_close(after, before.sum(1, keepdim=True).expand_as(after) / 4)


def test_weights_of_the_same_network_by_another_program_are_taken_in_their_order(tmp_path):
    weights = published("test_efficientnet")
    renamed = {f"_{i}.{name.rpartition('.')[2]}": tensor for i, (name, tensor) in enumerate(weights.items())}
    torch.save(renamed, tmp_path / "w.pth")
    loaded = net("test_efficientnet", 3, pretrained="imagenet", weights_file=str(tmp_path / "w.pth")).encoder.network
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("change", ["other", "missing", "order", "shape"])
def test_weights_of_another_encoder_are_an_error(change, tmp_path):
    weights = published("test_convnext" if change == "other" else "test_efficientnet")
    first, *names = weights
    if change == "missing":
        del weights[names[5]]
    elif change == "order":  # names of another program, in another order
        weights = {f"_{i}.{name.rpartition('.')[2]}": weights[name] for i, name in enumerate([*names, first])}
    elif change == "shape":
        weights[first] = weights[first][1:]
    path = tmp_path / "w.pth"
    torch.save(weights, path)
    with user_error("mismatch", key="model.weights_file", value=str(path)):
        net("test_efficientnet", pretrained="imagenet", weights_file=str(path))


def test_options_of_the_weights_that_cannot_be(tmp_path):
    with user_error("unknown_value", key="model.pretrained", value="coco"):
        net("resnet34", pretrained="coco")
    with user_error("unavailable", key="model.pretrained", value="imagenet"):
        net("legacy_seresnet18", pretrained="imagenet")  # timm has it outside the hub only
    with user_error("conflict", key="model.weights_file", value="x.pth"):
        net(weights_file="x.pth")
    with user_error("not_found", key="model.weights_file", value="x.pth"):
        net(pretrained="imagenet", weights_file="x.pth")


def test_without_internet_the_download_fails_at_once(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with user_error("unavailable", key="model.pretrained", value="r160_in1k"):
        net(pretrained="r160_in1k")


def test_the_encoder_is_a_part_that_can_be_frozen():
    network = net()
    assert isinstance(network.encoder, TimmEncoder)
    of_encoder = {
        name.removeprefix("encoder.") for name, _ in network.named_parameters() if name.startswith("encoder.")
    }
    assert of_encoder == {name for name, _ in network.encoder.named_parameters()}
    assert set(network.head_parts) == {"head"}
