"""The networks against their papers: sizes, parameter counts, and plain second implementations."""

import socket
import time

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

import sn6.models.weights as weights_module
from sn6.door import checked_arguments
from sn6.errors import UserError
from sn6.models.fcn import FCN8s, FCN16s, FCN32s, bilinear_upsampling
from sn6.models.ternausnet import TernausNet
from sn6.models.unet import UNet
from sn6.models.weights import he_initialise, load_pretrained, widen_first_layer
from sn6.models.windows import predict_windows

SMALL = {
    "FCN8s": lambda **k: FCN8s(width=2, **k),
    "FCN16s": lambda **k: FCN16s(width=2, **k),
    "FCN32s": lambda **k: FCN32s(width=2, **k),
    "UNet": lambda **k: UNet(width=4, **k),
    "UNet valid": lambda **k: UNet(width=4, padded=False, **k),
    "UNet batch norm": lambda **k: UNet(width=4, batch_norm=True, dropout=0.5, **k),
    "TernausNet": lambda **k: TernausNet(width=4, **k),
}
small = pytest.mark.parametrize("build", SMALL.values(), ids=SMALL.keys())


@pytest.fixture(autouse=True)
def one_thread():
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def randomise(network):
    """Weights of every layer, the scores that start at zero too."""
    he_initialise(network)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
    return network.eval()


def parameters(network):
    return sum(p.numel() for p in network.parameters())


# --- sizes, bands, gradients, memory formats -------------------------------------------------------------------


@small
@pytest.mark.parametrize(("height", "width"), [(33, 47), (64, 64), (1, 5), (101, 32)])
def test_logits_have_the_size_of_the_image(build, height, width):
    logits = build(in_channels=5, classes=3).eval()(torch.randn(1, 5, height, width))
    assert logits.shape == (1, 3, height, width)


@small
def test_every_parameter_learns_and_none_is_held_twice(build):
    """The scores of an FCN start at zero, so the layers before them have gradients from the second step on.

    DDP fails on a parameter that no output depends on.
    """
    network = build()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        network(torch.randn(2, 4, 65, 80)).sub(1).square().mean().backward()
        assert all(p.grad is not None for p in network.parameters())
        optimizer.step()
    assert [name for name, p in network.named_parameters() if not p.grad.any()] == []
    assert len(list(network.parameters())) == len(network.state_dict()) - sum(1 for _ in network.buffers())


@small
def test_channels_last_and_bfloat16_give_the_same_logits(build):
    network = randomise(build())
    image = torch.randn(2, 4, 41, 39)
    expected = network(image)
    network.to(memory_format=torch.channels_last)
    image = image.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(image)
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - expected).abs().max() < 0.1 * expected.abs().max()
    logits.float().mean().backward()


@pytest.mark.parametrize("name", ["FCN8s", "UNet valid", "TernausNet"])
def test_compiling_in_place_changes_neither_logits_nor_names(name, monkeypatch):
    """The compiler cannot follow the checks of shapes that these tests switch on, so they are off here."""
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    network = randomise(SMALL[name]())
    image, names = torch.randn(1, 4, 41, 39), list(network.state_dict())
    expected = network(image)
    network.compile(backend="eager", fullgraph=True)
    torch.testing.assert_close(network(image), expected)
    assert list(network.state_dict()) == names


def test_options_are_checked_by_their_types():
    for network in (FCN8s, UNet, TernausNet):
        assert checked_arguments(network, {"width": "16"}, "model") == {"width": 16}
        with pytest.raises(UserError, match="in_channels=0"):
            checked_arguments(network, {"in_channels": 0}, "model")
    with pytest.raises(UserError, match="pretrained='coco'"):
        checked_arguments(FCN16s, {"pretrained": "coco"}, "model")
    with pytest.raises(UserError, match="width=15"):
        checked_arguments(TernausNet, {"width": 15}, "model")


# --- parameter counts from the papers --------------------------------------------------------------------------


def conv(inputs, outputs, kernel):
    return inputs * outputs * kernel**2 + outputs


def test_unet_has_the_parameters_of_figure_1():
    expected = conv(1, 64, 3) + conv(64, 64, 3)
    for wide in (128, 256, 512, 1024):  # down: double the channels; up: halve them, then join the skip
        expected += conv(wide // 2, wide, 3) + conv(wide, wide, 3)
        expected += conv(wide, wide // 2, 2) + conv(wide, wide // 2, 3) + conv(wide // 2, wide // 2, 3)
    expected += conv(64, 2, 1)
    with torch.device("meta"):
        assert parameters(UNet(in_channels=1, classes=2)) == expected == 31_030_658
        assert len([m for m in UNet().modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]) == 23


def test_ternausnet_has_the_parameters_of_unet11():
    vgg11 = [(3, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 512), (512, 512)]
    blocks = [(512, 512, 256), (768, 512, 256), (768, 512, 128), (384, 256, 64), (192, 128, 32)]
    expected = sum(conv(*shape, 3) for shape in vgg11)
    expected += sum(conv(i, m, 3) + conv(m, o, 3) for i, m, o in blocks) + conv(96, 32, 3) + conv(32, 1, 1)
    with torch.device("meta"):
        assert parameters(TernausNet(in_channels=3)) == expected


@pytest.mark.parametrize(
    ("network", "skips", "upsampling"),
    [
        (FCN32s, [], 21 * 21 * 64 * 64),
        (FCN16s, [512], 21 * 21 * (4 * 4 + 32 * 32)),
        (FCN8s, [512, 256], 21 * 21 * (4 * 4 + 4 * 4 + 16 * 16)),
    ],
)
def test_fcn_has_the_parameters_of_the_published_nets(network, skips, upsampling):
    vgg16_without_classifier = 138_357_544 - conv(4096, 1000, 1)  # Simonyan, Zisserman: 138 million
    expected = vgg16_without_classifier + sum(conv(w, 21, 1) for w in [4096, *skips]) + upsampling
    with torch.device("meta"):
        assert parameters(network(in_channels=3, classes=21)) == expected
    if network is FCN8s:
        assert expected == 134_489_759


# --- second implementations ------------------------------------------------------------------------------------


def layers(module):
    """Weight and bias of the convolutions of `module`, in order."""
    return iter([(m.weight, m.bias) for m in module.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)])


@pytest.mark.parametrize(("network", "stride"), [(FCN32s, 32), (FCN16s, 16), (FCN8s, 8)])
@pytest.mark.parametrize("size", [(33, 47), (96, 100)])
def test_fcn_computes_the_published_net(network, stride, size):
    net = randomise(network(in_channels=3, classes=2, width=2))
    image = torch.randn(1, 3, *size)
    encoder, pools, x, padding = layers(net.encoder), [], image, 100
    for convolutions in (2, 2, 3, 3, 3):
        for _ in range(convolutions):
            x, padding = F.relu(F.conv2d(x, *next(encoder), padding=padding)), 1
        x = F.max_pool2d(x, 2, ceil_mode=True)
        pools.append(x)
    x = F.relu(F.conv2d(x, net.fc6.weight, net.fc6.bias))
    x = F.relu(F.conv2d(x, net.fc7.weight, net.fc7.bias))
    x = F.conv2d(x, net.score.weight, net.score.bias)
    for i, (pool, cut) in enumerate([(pools[3], 5), (pools[2], 9)][: {32: 0, 16: 1, 8: 2}[stride]]):
        x = F.conv_transpose2d(x, net.doublings[i].weight, stride=2)
        skip = F.conv2d(pool, net.skip_scores[i].weight, net.skip_scores[i].bias)
        x = x + skip[:, :, cut : cut + x.shape[2], cut : cut + x.shape[3]]
    x = F.conv_transpose2d(x, net.upsampling.weight, stride=stride)
    cut = {32: 19, 16: 27, 8: 31}[stride]
    expected = x[:, :, cut : cut + size[0], cut : cut + size[1]]
    torch.testing.assert_close(net(image), expected, rtol=1e-4, atol=1e-4)


def test_unpadded_unet_computes_figure_1_on_a_mirrored_image():
    """572×572 in, 388×388 out."""
    net = randomise(UNet(in_channels=2, classes=3, width=2, padded=False))
    image = torch.randn(1, 2, 388, 388)
    x = torch.from_numpy(np.pad(image.numpy(), ((0, 0), (0, 0), (92, 92), (92, 92)), mode="reflect"))
    down, skips = layers(net.contracting), []
    for size in (568, 280, 136, 64, 28):
        for _ in range(2):
            x = F.relu(F.conv2d(x, *next(down)))
        assert x.shape[2:] == (size, size)
        skips.append(x)
        x = F.max_pool2d(x, 2)
    x, up, merge = skips.pop(), layers(net.up_convolutions), layers(net.expanding)
    for cut, size in ((4, 52), (16, 100), (40, 196), (88, 388)):
        x = torch.cat([skips.pop()[:, :, cut:-cut, cut:-cut], F.conv_transpose2d(x, *next(up), stride=2)], 1)
        for _ in range(2):
            x = F.relu(F.conv2d(x, *next(merge)))
        assert x.shape[2:] == (size, size)
    expected = F.conv2d(x, net.head.weight, net.head.bias)
    torch.testing.assert_close(net(image), expected, rtol=1e-4, atol=1e-5)


def test_the_mirror_is_as_long_as_it_must_be():
    """A 7×5 image has a margin of 92 pixels on each side, 13 and more times its own size."""
    net = randomise(UNet(in_channels=1, width=2, padded=False))
    image = torch.randn(1, 1, 7, 5)
    large = np.pad(image.numpy(), ((0, 0), (0, 0), (96, 101), (96, 119)), mode="reflect")
    inside = net(torch.from_numpy(large))[..., 96:103, 96:101]
    torch.testing.assert_close(net(image), inside, rtol=1e-4, atol=1e-5)


def test_padded_unet_by_plain_functions():
    net = randomise(UNet(in_channels=2, width=3, depth=2))
    image = torch.randn(2, 2, 12, 16)
    down, skips, x = layers(net.contracting), [], image
    for _ in range(3):
        for _ in range(2):
            x = F.relu(F.conv2d(x, *next(down), padding=1))
        skips.append(x)
        x = F.max_pool2d(x, 2)
    x, up, merge = skips.pop(), layers(net.up_convolutions), layers(net.expanding)
    for _ in range(2):
        x = torch.cat([skips.pop(), F.conv_transpose2d(x, *next(up), stride=2)], 1)
        for _ in range(2):
            x = F.relu(F.conv2d(x, *next(merge), padding=1))
    torch.testing.assert_close(net(image), F.conv2d(x, net.head.weight, net.head.bias))


def test_unet_logits_away_from_a_cut_do_not_depend_on_it():
    net = randomise(UNet(in_channels=1, width=2, depth=2, padded=False))
    image = torch.randn(1, 1, 96, 96)
    part = net(image[..., 8:80, 12:88])[..., 20:-20, 20:-20]
    torch.testing.assert_close(part, net(image)[..., 28:60, 32:68], rtol=1e-4, atol=1e-5)


def test_ternausnet_by_plain_functions():
    net = randomise(TernausNet(in_channels=2, width=4))
    image = torch.randn(2, 2, 70, 40)
    x = F.pad(image, (0, 24, 0, 26))  # to 96×64
    encoder, skips = layers(net.encoder), []
    for convolutions in (1, 1, 2, 2, 2):
        for _ in range(convolutions):
            x = F.relu(F.conv2d(x, *next(encoder), padding=1))
        skips.append(x)
        x = F.max_pool2d(x, 2)

    def block(x, convolutions):
        x = F.relu(F.conv2d(x, *next(convolutions), padding=1))
        return F.relu(F.conv_transpose2d(x, *next(convolutions), stride=2, padding=1, output_padding=1))

    x, decoder = block(x, layers(net.center)), layers(net.decoder)
    for _ in range(4):
        x = block(torch.cat([x, skips.pop()], 1), decoder)
    x = F.relu(F.conv2d(torch.cat([x, skips.pop()], 1), *next(decoder), padding=1))
    expected = F.conv2d(x, net.head.weight, net.head.bias)[..., :70, :40]
    assert expected.shape == net(image).shape
    torch.testing.assert_close(net(image), expected)


# --- how a network starts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_upsampling_starts_bilinear(factor):
    """A ramp stays a ramp of 1/factor a pixel, in its own class only."""
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
def test_he_initialisation_doubles_what_relu_halves(layer):
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


@pytest.mark.parametrize("bands", [1, 2, 4, 8])
def test_a_widened_layer_answers_grey_as_the_rgb_layer_does(bands):
    weight, grey = torch.randn(6, 3, 3, 3), torch.randn(2, 1, 9, 9)
    widened = F.conv2d(grey.expand(-1, bands, -1, -1), widen_first_layer(weight, bands))
    torch.testing.assert_close(widened, F.conv2d(grey.expand(-1, 3, -1, -1), weight), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(widen_first_layer(weight, bands)[:, 0], weight.mean(1) * 3 / bands)


def test_three_bands_keep_their_weights():
    weight = torch.randn(6, 3, 3, 3)
    assert torch.equal(widen_first_layer(weight, 3), weight)


def shapes_in_timm(architecture):
    """Name and shape of every weight of timm's network, which is not allocated."""
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


def test_fcn_takes_the_fully_connected_layers_too(tmp_path, monkeypatch):
    """At 1/32 of the width: the published one has 134 million parameters."""
    published = shapes_in_timm("vgg16")
    layout = [v // 32 if isinstance(v, int) else v for v in weights_module.cfgs["vgg16"]]
    monkeypatch.setitem(weights_module.cfgs, "vgg16", layout)
    monkeypatch.setattr(weights_module, "PUBLISHED_WIDTH", 2)
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
    ("content", "said"),
    [
        (None, "there is no such file"),
        (b"no tensors", "cannot be read"),
        ({"features.0.bias": torch.zeros(4)}, "no 'features.0.weight' in it"),
        ({"features.0.weight": torch.zeros(4, 3, 5, 5)}, r"has shape \(4, 4, 5, 5\), vgg11 wants \(4, 4, 3, 3\)"),
        ({"features.0.weight": torch.zeros(9, 3, 3, 3)}, r"has shape \(9, 4, 3, 3\), vgg11 wants \(4, 4, 3, 3\)"),
        ({"features.0.weight": 3}, "no 'features.0.weight' in it"),
        ([torch.zeros(3)], "cannot be read"),
        ({"features.0.weight": nn.ReLU()}, "cannot be read"),  # a pickled object, which is never executed
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_unfit_file_is_told_in_one_line(tmp_path, content, said, suffix):
    path = tmp_path / f"weights{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif suffix == ".safetensors" and isinstance(content, dict) and torch.is_tensor(next(iter(content.values()))):
        save_file(content, path)
    elif content is not None:
        torch.save(content, path)
        said = said if suffix == ".pth" else "cannot be read"
    layers = {"features": nn.Sequential(nn.Conv2d(4, 4, 3))}
    with pytest.raises(UserError, match=said) as raised:
        load_pretrained("vgg11", layers, 64, "imagenet", str(path))
    assert "\n" not in str(raised.value.args[0])
    assert str(path) in str(raised.value)


def test_options_that_do_not_go_together_are_told():
    with pytest.raises(UserError, match=r"model\.width=16: .* set model\.width=64 or model\.pretrained=null"):
        TernausNet(width=16, pretrained="imagenet")
    with pytest.raises(UserError, match=r"model\.weights_file=x\.pth needs model\.pretrained=imagenet"):
        TernausNet(width=4, weights_file="x.pth")


def test_without_a_network_the_hub_fails_at_once_and_names_the_ways_out(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(UserError, match=r"set model\.pretrained=null, or model\.weights_file=path") as raised:
        TernausNet(pretrained="imagenet")
    assert time.monotonic() - started < 5
    assert "\n" not in str(raised.value.args[0])


def test_weights_in_the_hubs_cache_need_no_network(tmp_path, monkeypatch):
    """As the hub lays them down: `refs/main` names a commit, under which the file lies."""
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


# --- whole tiles in windows ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "window", "overlap"), [((67, 45), 16, 5), ((33, 100), 40, 0), ((31, 31), 30, 29), ((50, 20), 25, 24)]
)
def test_windows_of_a_pointwise_network_give_the_single_pass(size, window, overlap):
    network, image = nn.Conv2d(4, 3, 1).eval(), torch.randn(2, 4, *size)
    with torch.no_grad():
        torch.testing.assert_close(predict_windows(network, image, window, overlap), network(image), rtol=0, atol=1e-5)


def test_the_network_sees_no_more_than_one_window_and_every_pixel():
    seen = torch.zeros(61, 90)

    def network(part):
        assert max(part.shape[2:]) <= 32
        rows, columns = part[0, 0].long(), part[0, 1].long()
        seen[rows, columns] += 1
        return part[:, :1].bfloat16()

    rows, columns = torch.meshgrid(torch.arange(61.0), torch.arange(90.0), indexing="ij")
    logits = predict_windows(network, torch.stack([rows, columns])[None], window=32, overlap=8)
    assert seen.min() >= 1
    assert logits.dtype == torch.float32


def test_windows_blend_without_a_seam():
    """Two windows that disagree by 1: the blend goes over from one to the other in even steps."""
    calls = iter([0.0, 1.0])
    logits = predict_windows(lambda part: torch.full_like(part, next(calls)), torch.zeros(1, 1, 8, 24), 16, 8)
    steps = logits[0, 0, 0].diff()
    assert (logits[..., :8] == 0).all()
    assert (logits[..., 16:] == 1).all()
    torch.testing.assert_close(steps[8:15], torch.full((7,), 0.125))


def test_a_small_image_goes_through_as_it_is():
    image = torch.randn(1, 2, 30, 32)
    assert predict_windows(lambda whole: whole, image, window=32, overlap=8) is image


@pytest.mark.parametrize("overlap", [32, 40, -1])
def test_an_overlap_that_leaves_no_step_is_refused(overlap):
    with pytest.raises(UserError, match=f"overlap={overlap} does not go with window=32"):
        predict_windows(lambda x: x, torch.zeros(1, 1, 64, 64), 32, overlap)
