"""Recognise published weights by the names of their tensors, and rename the tensors to ours.

A format maps the names of its modules to ours. Sources: the files of TernausNet (github.com/ternaus), of the SpaceNet 6
baseline (its UNet11 with 4 bands), of the FCN nets converted from Caffe (fcn.berkeleyvision.org), and of the U-Net of
github.com/milesial/Pytorch-UNet.

The logits equal the original's for heights and widths that are multiples of 32 (TernausNet) or 16 (U-Net), and for any
size of an FCN. For other sizes, TernausNet's own code fails, and Pytorch-UNet pads the upsampled maps while ours pads
the image. With several classes, the original UNet16 returns a log-softmax and ours its input. An FCN-8s that was
trained "at once" uses the same names but scales pool4 by 0.01 and pool3 by 0.0001; a file does not show which it is.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sn6.checkpoints.state_dict import describe_mismatch
from sn6.errors import UserError
from sn6.models.fcn import FCN8s, FCN16s, FCN32s
from sn6.models.ternausnet import TernausNet
from sn6.models.unet import UNet

Weights = Mapping[str, Tensor]

# Indices of the convolutions in the layers of VGG: of configuration A by name, of configuration D by block.
VGG11 = {"conv1": 0, "conv2": 3, "conv3s": 6, "conv3": 8, "conv4s": 11, "conv4": 13, "conv5s": 16, "conv5": 18}
VGG16 = {1: (0, 2), 2: (5, 7), 3: (10, 12, 14), 4: (17, 19, 21), 5: (24, 26, 28)}
UNET_DEPTH = 4


@dataclass(frozen=True)
class PublishedFormat:
    """The names of the tensors of one published network.

    Attributes:
        name: the authors' name of the network
        signature: a key that no other format has
        network: our class of the network
        modules: their name of each module with weights → ours; a module may have several names
        ends: our names of the first and last convolution, whose shapes give bands, width and classes
        options: our options that the format fixes
        prepare: transforms the tensors before they are renamed
        missing_hint: likely reason for missing keys
    """

    name: str
    signature: str
    network: type[nn.Module]
    modules: Mapping[str, str]
    ends: tuple[str, str]
    options: dict[str, Any]
    prepare: Callable[[Weights], Weights] = dict
    missing_hint: str = ""


def ternausnet_format(
    name: str, signature: str, encoder: str, layers: Mapping[str, int], second_names: Mapping[str, int]
) -> PublishedFormat:
    """Return the format of UNet11 or UNet16, whose files contain the encoder's tensors under two names.

    Args:
        name: the network's name
        signature: see `PublishedFormat`
        encoder: our name of the encoder
        layers: layers of a decoder block → their index in ours
        second_names: second names of the encoder's convolutions → their index in VGG
    """
    blocks = {"center": "center"} | {f"dec{5 - i}": f"decoder.{i}" for i in range(4)}
    decoder = {
        f"{theirs}.block.{layer}": f"{ours}.{i}" for theirs, ours in blocks.items() for layer, i in layers.items()
    }
    first = {f"encoder.{i}": f"encoder.{i}" for i in second_names.values()}
    second = {conv: f"encoder.{i}" for conv, i in second_names.items()}
    modules = first | second | decoder | {"dec1.conv": "decoder.4.0", "final": "head"}
    return PublishedFormat(
        name, signature, TernausNet, modules, ("encoder.0.weight", "head.weight"), {"encoder": encoder}
    )


def fcn_format(name: str, network: type[nn.Module], upsampling: str, skips: Mapping[str, str]) -> PublishedFormat:
    """Return the format of an FCN.

    Args:
        name: the network's name
        network: our class
        upsampling: their name of the last upsampling
        skips: their names of the modules of the skips → ours
    """
    convolutions = {
        f"conv{block}_{k}": f"encoder.{i}" for block, indices in VGG16.items() for k, i in enumerate(indices, start=1)
    }
    modules = convolutions | {"fc6": "fc6", "fc7": "fc7", "score_fr": "score", upsampling: "upsampling"} | dict(skips)
    return PublishedFormat(name, f"{upsampling}.weight", network, modules, ("encoder.0.weight", "score.weight"), {})


def unet_format() -> PublishedFormat:
    """Return the format of Pytorch-UNet: convolutions at 0 and 3 of a block, batch norms at 1 and 4, as in ours."""
    levels = range(1, UNET_DEPTH + 1)
    pairs = {"inc.double_conv": "encoder.0"}
    pairs |= {f"down{level}.maxpool_conv.1.double_conv": f"encoder.{level}" for level in levels}
    pairs |= {f"up{level}.conv.double_conv": f"expanding.{level - 1}" for level in levels}
    modules = {f"{theirs}.{i}": f"{ours}.{i}" for theirs, ours in pairs.items() for i in (0, 1, 3, 4)}
    modules |= {f"up{level}.up": f"up_convolutions.{level - 1}" for level in levels} | {"outc.conv": "head"}
    return PublishedFormat(
        "the U-Net of Pytorch-UNet",
        "inc.double_conv.0.weight",
        UNet,
        modules,
        ("encoder.0.0.weight", "head.weight"),
        {"batch_norm": True, "padded": True, "depth": UNET_DEPTH},
        fold_biases,
        "without up1.up.weight it is the bilinear variant, which sn6 does not support; ",
    )


def fold_biases(weights: Weights) -> Weights:
    """Subtract biases before a batch norm, which early versions have, from its running mean; the output is the same."""
    result = dict(weights)
    for name in weights:
        if match := re.fullmatch(r"(.*double_conv)\.([03])\.bias", name):
            mean = f"{match[1]}.{int(match[2]) + 1}.running_mean"
            if mean in weights:
                result[mean] = weights[mean] - result.pop(name)
    return result


POOL4 = {"score_pool4": "skip_scores.0", "upscore2": "doublings.0"}
POOL3 = {"score_pool3": "skip_scores.1", "upscore_pool4": "doublings.1"}
VGG16_PAIRS = {f"conv{block}.{2 * k}": i for block, indices in VGG16.items() for k, i in enumerate(indices)}
FORMATS = (
    ternausnet_format("TernausNet's UNet11", "center.block.1.weight", "vgg11", {"0.conv": 0, "1": 2}, VGG11),
    ternausnet_format(
        "TernausNet's UNet16", "center.block.2.conv.weight", "vgg16", {"1.conv": 1, "2.conv": 3}, VGG16_PAIRS
    ),
    fcn_format("FCN-32s", FCN32s, "upscore", {}),
    fcn_format("FCN-16s", FCN16s, "upscore16", POOL4),
    fcn_format("FCN-8s", FCN8s, "upscore8", POOL4 | POOL3),
    unet_format(),
)


def rename_published(weights: Weights, file: Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Rename published weights to our names, and describe the network that they fit.

    Args:
        weights: tensors by any names
        file: the file of the weights, for messages
        key: the option that names it, for messages

    Returns:
        The tensors, and `{"format": name, "network": {"_target_": ..., option: value}}`. Tensors of no known format are
        returned unchanged, with empty metadata.

    Raises:
        UserError: keys of a format are missing, unknown or of another shape, or one layer differs between its two names
    """
    known = next((entry for entry in FORMATS if entry.signature in weights), None)
    if known is None:
        return dict(weights), {}
    prepared = known.prepare(weights)
    their_names, unknown = match_names(prepared, known, file, key)
    renamed = {ours: prepared[name] for ours, name in their_names.items()}
    options = infer_sizes(renamed, known) | known.options
    with torch.device("meta"):
        network = known.network(**options)
    mismatch = describe_mismatch(
        network, renamed | unknown, lambda name: their_names.get(name) or their_name(name, known)
    )
    if mismatch:
        hint = known.missing_hint if "missing" in mismatch else ""
        raise UserError(
            f"{key}={file} looks like {known.name} but does not match it: {mismatch}; {hint}give the file as published",
            kind="mismatch",
            key=key,
            value=str(file),
        )
    target = f"{known.network.__module__}.{known.network.__qualname__}"
    return renamed, {"format": known.name, "network": {"_target_": target, **options}}


def match_names(
    weights: Weights, known: PublishedFormat, file: Path, key: str
) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return our name of each tensor → its first name in the file, and the tensors that are unknown to the format.

    Raises:
        UserError: a tensor differs from the one under its second name
    """
    their_names: dict[str, str] = {}
    unknown = {}
    for name, tensor in weights.items():
        module, _, parameter = name.rpartition(".")
        if module not in known.modules:
            unknown[name] = tensor
            continue
        first = their_names.setdefault(f"{known.modules[module]}.{parameter}", name)
        if first != name and not (tensor.shape == weights[first].shape and torch.equal(tensor, weights[first])):
            raise UserError(
                f"{key}={file}: {first} and {name} are the same layer of {known.name} but differ here; give the "
                "file as published",
                kind="mismatch",
                key=key,
                value=str(file),
            )
    return their_names, unknown


def infer_sizes(renamed: Weights, known: PublishedFormat) -> dict[str, int]:
    """Return bands, width and classes by the shapes of the first and last convolution.

    Where one is missing or not 4-dimensional, return any valid size: the mismatch is reported later.
    """
    first, last = (renamed[name].shape if name in renamed else () for name in known.ends)
    return {
        "in_channels": first[1] if len(first) == 4 else 1,
        "width": first[0] if len(first) == 4 else 2,
        "classes": last[0] if len(last) == 4 else 1,
    }


def their_name(name: str, known: PublishedFormat) -> str:
    """Return the format's first name of one of our tensors; a name that is not ours unchanged."""
    module, _, parameter = name.rpartition(".")
    return next((f"{theirs}.{parameter}" for theirs, ours in known.modules.items() if ours == module), name)
