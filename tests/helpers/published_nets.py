"""Implement the published networks again, with torch.nn.functional only and by the names of their files.

For each network, one function draws the tensors of a file (names and shapes of the published code, at any width) and
one computes the logits from them.
"""

import torch
import torch.nn.functional as F


def draw(weights, name, *shape, bias=True):
    """Draw the weight of a layer whose output is about as large as its input, and a bias."""
    weights[f"{name}.weight"] = torch.randn(shape) * (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
    if bias:
        weights[f"{name}.bias"] = torch.randn(shape[0]) * 0.1


def draw_transposed(weights, name, inputs, outputs, kernel, stride, bias=True):
    """Draw the same for a transposed convolution: one in stride² of its kernel contributes to an output pixel."""
    fan_in = inputs * (kernel / stride) ** 2
    weights[f"{name}.weight"] = torch.randn(inputs, outputs, kernel, kernel) * (2 / fan_in) ** 0.5
    if bias:
        weights[f"{name}.bias"] = torch.randn(outputs) * 0.1


def add_copy(weights, name, other):
    """Add the tensors of `other` under another name."""
    for part in ("weight", "bias"):
        weights[f"{name}.{part}"] = weights[f"{other}.{part}"].clone()


def relu_conv(w, name, x, padding=1):
    """Compute a convolution and ReLU."""
    return F.relu(F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=padding))


# --- TernausNet: UNet11 of the paper's figure 1, and UNet16


def unet11_file(bands=3, width=4):
    """Draw the file of UNet11, which has one class."""
    w, weights, inputs = width, {}, bands
    names = ("conv1", "conv2", "conv3s", "conv3", "conv4s", "conv4", "conv5s", "conv5")
    for index, outputs, name in zip((0, 3, 6, 8, 11, 13, 16, 18), (1, 2, 4, 4, 8, 8, 8, 8), names, strict=True):
        draw(weights, f"encoder.{index}", outputs * w, inputs, 3, 3)
        add_copy(weights, name, f"encoder.{index}")
        inputs = outputs * w
    for name, i, m, o in (
        ("center", 8 * w, 8 * w, 4 * w),
        ("dec5", 12 * w, 8 * w, 4 * w),
        ("dec4", 12 * w, 8 * w, 2 * w),
        ("dec3", 6 * w, 4 * w, w),
        ("dec2", 3 * w, 2 * w, w // 2),
    ):
        draw(weights, f"{name}.block.0.conv", m, i, 3, 3)
        draw_transposed(weights, f"{name}.block.1", m, o, 3, 2)
    draw(weights, "dec1.conv", w // 2, w + w // 2, 3, 3)
    draw(weights, "final", 1, w // 2, 1, 1)
    return weights


def unet11(w, x):
    """Compute the logits of UNet11."""

    def block(name, x):
        x = relu_conv(w, f"{name}.block.0.conv", x)
        weight, bias = w[f"{name}.block.1.weight"], w[f"{name}.block.1.bias"]
        return F.relu(F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1))

    conv1 = relu_conv(w, "conv1", x)
    conv2 = relu_conv(w, "conv2", F.max_pool2d(conv1, 2))
    conv3 = relu_conv(w, "conv3", relu_conv(w, "conv3s", F.max_pool2d(conv2, 2)))
    conv4 = relu_conv(w, "conv4", relu_conv(w, "conv4s", F.max_pool2d(conv3, 2)))
    conv5 = relu_conv(w, "conv5", relu_conv(w, "conv5s", F.max_pool2d(conv4, 2)))
    x = block("center", F.max_pool2d(conv5, 2))
    for name, skip in (("dec5", conv5), ("dec4", conv4), ("dec3", conv3), ("dec2", conv2)):
        x = block(name, torch.cat([x, skip], 1))
    x = relu_conv(w, "dec1.conv", torch.cat([x, conv1], 1))
    return F.conv2d(x, w["final.weight"], w["final.bias"])


VGG16 = {1: (0, 2), 2: (5, 7), 3: (10, 12, 14), 4: (17, 19, 21), 5: (24, 26, 28)}
FILTERS = {1: 1, 2: 2, 3: 4, 4: 8, 5: 8}  # of each block, in units of the width


def unet16_file(bands=3, width=4, classes=1):
    """Draw the file of UNet16."""
    w, weights, inputs = width, {}, bands
    for block, indices in VGG16.items():
        for k, index in enumerate(indices):
            draw(weights, f"encoder.{index}", FILTERS[block] * w, inputs, 3, 3)
            add_copy(weights, f"conv{block}.{2 * k}", f"encoder.{index}")
            inputs = FILTERS[block] * w
    for name, i, m, o in (
        ("center", 8 * w, 8 * w, 4 * w),
        ("dec5", 12 * w, 8 * w, 4 * w),
        ("dec4", 12 * w, 8 * w, 4 * w),
        ("dec3", 8 * w, 4 * w, w),
        ("dec2", 3 * w, 2 * w, w // 2),
    ):
        draw(weights, f"{name}.block.1.conv", m, i, 3, 3)
        draw(weights, f"{name}.block.2.conv", o, m, 3, 3)
    draw(weights, "dec1.conv", w // 2, w + w // 2, 3, 3)
    draw(weights, "final", classes, w // 2, 1, 1)
    return weights


def unet16(w, x):
    """Compute the logits of UNet16."""

    def decoder_block(name, x):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return relu_conv(w, f"{name}.block.2.conv", relu_conv(w, f"{name}.block.1.conv", x))

    skips = []
    for block, indices in VGG16.items():
        for k in range(len(indices)):
            x = relu_conv(w, f"conv{block}.{2 * k}", x)
        skips.append(x)
        x = F.max_pool2d(x, 2)
    x = decoder_block("center", x)
    for name in ("dec5", "dec4", "dec3", "dec2"):
        x = decoder_block(name, torch.cat([x, skips.pop()], 1))
    x = relu_conv(w, "dec1.conv", torch.cat([x, skips.pop()], 1))
    return F.conv2d(x, w["final.weight"], w["final.bias"])


# --- FCN-32s, 16s and 8s, converted from Caffe


def fcn_file(stride, bands=3, width=2, classes=21):
    """Draw the file of an FCN."""
    w, weights, inputs = width, {}, bands
    for block, indices in VGG16.items():
        for k in range(1, len(indices) + 1):
            draw(weights, f"conv{block}_{k}", FILTERS[block] * w, inputs, 3, 3)
            inputs = FILTERS[block] * w
    draw(weights, "fc6", 64 * w, 8 * w, 7, 7)
    draw(weights, "fc7", 64 * w, 64 * w, 1, 1)
    draw(weights, "score_fr", classes, 64 * w, 1, 1)
    skips = {32: (), 16: (("score_pool4", 8),), 8: (("score_pool4", 8), ("score_pool3", 4))}[stride]
    for name, filters in skips:
        draw(weights, name, classes, filters * w, 1, 1)
    doublings = {32: (), 16: ("upscore2",), 8: ("upscore2", "upscore_pool4")}[stride]
    for name in doublings:
        draw_transposed(weights, name, classes, classes, 4, 2, bias=False)
    last = {32: "upscore", 16: "upscore16", 8: "upscore8"}[stride]
    draw_transposed(weights, last, classes, classes, 2 * stride, stride, bias=False)
    return weights


def fcn(w, x, stride):
    """Compute the logits of an FCN."""

    def score(name, x):
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def cut(x, offset, like):
        return x[:, :, offset : offset + like.shape[2], offset : offset + like.shape[3]]

    image, pools = x, []
    for block, indices in VGG16.items():
        for k in range(1, len(indices) + 1):
            x = relu_conv(w, f"conv{block}_{k}", x, padding=100 if (block, k) == (1, 1) else 1)
        x = F.max_pool2d(x, 2, stride=2, ceil_mode=True)
        pools.append(x)
    x = relu_conv(w, "fc7", relu_conv(w, "fc6", x, padding=0), padding=0)
    x = score("score_fr", x)
    if stride <= 16:
        x = F.conv_transpose2d(x, w["upscore2.weight"], stride=2)
        x = x + cut(score("score_pool4", pools[3]), 5, x)
    if stride == 8:
        x = F.conv_transpose2d(x, w["upscore_pool4.weight"], stride=2)
        x = x + cut(score("score_pool3", pools[2]), 9, x)
    last, offset = {32: ("upscore", 19), 16: ("upscore16", 27), 8: ("upscore8", 31)}[stride]
    return cut(F.conv_transpose2d(x, w[f"{last}.weight"], stride=stride), offset, image)


# --- U-Net as Pytorch-UNet names it


def unet_file(bands=3, width=4, classes=2, biases=False):
    """Draw the file of a U-Net; `biases` adds those before a batch norm, as in its first versions."""
    weights = {}

    def pair(name, inputs, outputs):
        for index, i in ((0, inputs), (3, outputs)):
            draw(weights, f"{name}.{index}", outputs, i, 3, 3, bias=biases)
            norm = f"{name}.{index + 1}"
            weights[f"{norm}.weight"] = 1 + 0.2 * torch.randn(outputs)
            weights[f"{norm}.bias"] = 0.2 * torch.randn(outputs)
            weights[f"{norm}.running_mean"] = 0.2 * torch.randn(outputs)
            weights[f"{norm}.running_var"] = 0.5 + torch.rand(outputs)
            weights[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    pair("inc.double_conv", bands, width)
    for level in range(1, 5):
        pair(f"down{level}.maxpool_conv.1.double_conv", width * 2 ** (level - 1), width * 2**level)
    for level in range(1, 5):
        outputs = width * 2 ** (4 - level)
        draw_transposed(weights, f"up{level}.up", 2 * outputs, outputs, 2, 2)
        pair(f"up{level}.conv.double_conv", 2 * outputs, outputs)
    draw(weights, "outc.conv", classes, width, 1, 1)
    return weights


def unet(w, x):
    """Compute the logits of Pytorch-UNet."""

    def pair(name, x):
        for index in (0, 3):
            norm = f"{name}.{index + 1}"
            x = F.conv2d(x, w[f"{name}.{index}.weight"], w.get(f"{name}.{index}.bias"), padding=1)
            statistics = w[f"{norm}.running_mean"], w[f"{norm}.running_var"]
            x = F.relu(F.batch_norm(x, *statistics, w[f"{norm}.weight"], w[f"{norm}.bias"], eps=1e-5))
        return x

    x = pair("inc.double_conv", x)
    skips = [x]
    for level in range(1, 5):
        x = pair(f"down{level}.maxpool_conv.1.double_conv", F.max_pool2d(x, 2))
        skips.append(x)
    skips.pop()
    for level in range(1, 5):
        x = F.conv_transpose2d(x, w[f"up{level}.up.weight"], w[f"up{level}.up.bias"], stride=2)
        x = pair(f"up{level}.conv.double_conv", torch.cat([skips.pop(), x], 1))
    return F.conv2d(x, w["outc.conv.weight"], w["outc.conv.bias"])
