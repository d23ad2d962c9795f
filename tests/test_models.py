"""Check the networks against their papers: sizes, parameter counts, and independent implementations."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.errors import user_error
from torch import nn

from sn6.cli import validate_arguments
from sn6.models.encoders import he_initialise
from sn6.models.fcn import FCN8s, FCN16s, FCN32s
from sn6.models.logits import compute_outputs
from sn6.models.resunet import ResUNet
from sn6.models.ternausnet import TernausNet
from sn6.models.unet import UNet

SMALL = {
    "FCN8s": lambda **k: FCN8s(width=2, **k),
    "FCN16s": lambda **k: FCN16s(width=2, **k),
    "FCN32s": lambda **k: FCN32s(width=2, **k),
    "UNet": lambda **k: UNet(width=4, **k),
    "UNet valid": lambda **k: UNet(width=4, padded=False, **k),
    "UNet batch norm": lambda **k: UNet(width=4, batch_norm=True, dropout=0.5, **k),
    "TernausNet": lambda **k: TernausNet(width=4, **k),
    "ResUNet": lambda **k: ResUNet(width=4, **k),
}
small = pytest.mark.parametrize("build", SMALL.values(), ids=SMALL.keys())


def randomise(network):
    """Draw the weights of every layer, also of those that are initialised to zero."""
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
def test_every_parameter_learns_and_none_is_registered_twice(build):
    """The scores of an FCN start at zero, so the layers before them have gradients from the second step.

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


@small
def test_channels_last_gives_the_same_gradients(build):
    network, image, gradients = randomise(build()), torch.randn(2, 4, 64, 64), []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        network.to(memory_format=memory_format).zero_grad()
        network(image.contiguous(memory_format=memory_format)).square().mean().backward()
        gradients.append({name: one.grad.clone() for name, one in network.named_parameters()})
    contiguous, channels_last = gradients
    for name, expected in contiguous.items():
        torch.testing.assert_close(channels_last[name], expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("capability", "trains", "is_contiguous"), [("AVX2", True, True), ("AVX2", False, False), ("AVX512", True, False)]
)
def test_maps_are_contiguous_where_that_is_faster(monkeypatch, capability, trains, is_contiguous):
    """Measured: the backward pass on a CPU without AVX-512; a forward pass alone takes less with channels last."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    orders, network = [], nn.Conv2d(4, 1, 3, padding=1)
    network.register_forward_pre_hook(lambda _, inputs: orders.append(inputs[0].is_contiguous()))
    with torch.set_grad_enabled(trains):
        compute_outputs(network, torch.randn(2, 4, 8, 8), multiple=1)
    assert orders == [is_contiguous]


@pytest.mark.parametrize("name", ["FCN8s", "UNet valid", "TernausNet", "ResUNet"])
def test_compiling_in_place_changes_neither_logits_nor_names(name, monkeypatch):
    """The compiler cannot trace the shape checks that the tests enable, so this test disables them."""
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    network = randomise(SMALL[name]())
    image, names = torch.randn(1, 4, 41, 39), list(network.state_dict())
    expected = network(image)
    network.compile(backend="eager", fullgraph=True)
    torch.testing.assert_close(network(image), expected)
    assert list(network.state_dict()) == names


def test_options_are_checked_by_their_types():
    for network in (FCN8s, UNet, TernausNet, ResUNet):
        assert validate_arguments(network, {"width": "16"}, "model") == {"width": 16}
        with user_error("invalid_value", key="in_channels", value=0):
            validate_arguments(network, {"in_channels": 0}, "model")
    with user_error("invalid_value", key="pretrained", value="coco"):
        validate_arguments(FCN16s, {"pretrained": "coco"}, "model")
    with user_error("invalid_value", key="width", value=15):
        validate_arguments(TernausNet, {"width": 15}, "model")


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


def test_resunet_has_the_parameters_of_its_widths():
    """Convolutions before a batch norm have no bias; the batch norm has two parameters a channel."""

    def norm_conv(inputs, outputs, kernel):
        return inputs * outputs * kernel**2 + 2 * outputs

    expected = norm_conv(4 * 2 * 2, 32, 3)  # 2×2 pixels of four bands
    for inputs, outputs, blocks in [(32, 32, 1), (32, 64, 2), (64, 128, 2), (128, 192, 2), (192, 256, 1)]:
        expected += norm_conv(inputs, outputs, 3) + (2 * blocks - 1) * norm_conv(outputs, outputs, 3)
        expected += norm_conv(inputs, outputs, 1) if inputs != outputs else 0
    for inputs, outputs in [(256 + 192, 128), (128 + 128, 96), (96 + 64, 64), (64 + 32, 32)]:
        expected += norm_conv(inputs, outputs, 3) + norm_conv(outputs, outputs, 3)
    expected += conv(32, 4 * 3, 3)
    with torch.device("meta"):
        assert parameters(ResUNet(classes=3)) == expected == 4_144_716


# --- independent implementations --------------------------------------------------------------------------------


def layers(module):
    """Return weight and bias of the convolutions of `module`, in order."""
    return iter([(m.weight, m.bias) for m in module.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)])


@pytest.mark.parametrize(("network", "stride"), [(FCN32s, 32), (FCN16s, 16), (FCN8s, 8)])
@pytest.mark.parametrize("size", [(33, 47), (96, 100)])
def test_fcn_equals_the_published_net(network, stride, size):
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


def test_unpadded_unet_equals_figure_1_on_a_mirrored_image():
    """The input is 572×572, the output 388×388."""
    net = randomise(UNet(in_channels=2, classes=3, width=2, padded=False))
    image = torch.randn(1, 2, 388, 388)
    x = torch.from_numpy(np.pad(image.numpy(), ((0, 0), (0, 0), (92, 92), (92, 92)), mode="reflect"))
    down, skips = layers(net.encoder), []
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


def test_a_small_image_is_mirrored_several_times():
    """A 7×5 image gets a margin of 92 pixels on each side, at least 13 times its own size."""
    net = randomise(UNet(in_channels=1, width=2, padded=False))
    image = torch.randn(1, 1, 7, 5)
    large = np.pad(image.numpy(), ((0, 0), (0, 0), (96, 101), (96, 119)), mode="reflect")
    inside = net(torch.from_numpy(large))[..., 96:103, 96:101]
    torch.testing.assert_close(net(image), inside, rtol=1e-4, atol=1e-5)


def test_padded_unet_equals_plain_functions():
    net = randomise(UNet(in_channels=2, width=3, depth=2))
    image = torch.randn(2, 2, 12, 16)
    down, skips, x = layers(net.encoder), [], image
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


def test_unet_logits_far_from_a_crop_border_do_not_depend_on_it():
    net = randomise(UNet(in_channels=1, width=2, depth=2, padded=False))
    image = torch.randn(1, 1, 96, 96)
    part = net(image[..., 8:80, 12:88])[..., 20:-20, 20:-20]
    torch.testing.assert_close(part, net(image)[..., 28:60, 32:68], rtol=1e-4, atol=1e-5)


def test_ternausnet_equals_plain_functions():
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


def test_resunet_equals_plain_functions():
    """Its first layer is a 3×3 convolution of the image whose 2×2 pixels were moved to channels."""
    net = randomise(ResUNet(in_channels=2, classes=3, width=2))
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 2)
    image = torch.randn(2, 2, 70, 40)
    state = iter(net.state_dict().values())

    def norm_conv(x, stride=1, kernel=None):
        kernel = next(state) if kernel is None else kernel
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        weight, bias, mean, variance, _ = (next(state)[..., None, None] for _ in range(5))
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    x = F.pad(image, (0, 24, 0, 26))  # to 96×64
    x = x.reshape(2, 2, 48, 2, 32, 2).permute(0, 1, 3, 5, 2, 4).reshape(2, 8, 48, 32)  # (bands, row, column)
    kernel = next(state).reshape(2, 2, 3, 2, 3, 2).permute(0, 1, 3, 5, 2, 4).reshape(2, 8, 3, 3)
    x, skips = F.relu(norm_conv(x, kernel=kernel)), []
    for level, blocks in enumerate((1, 2, 2, 2, 1)):
        for block in range(blocks):
            halves = level > 0 and block == 0
            residual = norm_conv(F.relu(norm_conv(x, 2 if halves else 1)))
            x = F.relu(residual + (norm_conv(x, 2) if halves else x))
        skips.append(x)
    x = skips.pop()
    while skips:
        x = torch.cat([x.repeat_interleave(2, 2).repeat_interleave(2, 3), skips.pop()], 1)
        x = F.relu(norm_conv(F.relu(norm_conv(x))))
    x = F.conv2d(x, next(state), next(state), padding=1)  # channels: (class, row, column)
    expected = x.reshape(2, 3, 2, 2, 48, 32).permute(0, 1, 4, 2, 5, 3).reshape(2, 3, 96, 64)[..., :70, :40]
    assert next(state, None) is None
    torch.testing.assert_close(net(image), expected, rtol=1e-4, atol=1e-4)


def test_a_batch_with_one_value_a_channel_is_an_error_of_the_batch():
    """At 1/32 of its size an image of 32 pixels is one value, which has no variance."""
    network, image = ResUNet(width=4), torch.randn(1, 4, 32, 32)
    with user_error("conflict", key="data.batch_size", value=1):
        compute_outputs(network, image, multiple=1)
    assert compute_outputs(network.eval(), image, multiple=1).isfinite().all()
