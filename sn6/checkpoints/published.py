"""Weights that others published: which network their names tell of, and the same tensors under our names.

A form is a table from the names of its modules to ours. Sources: the files of TernausNet (github.com/ternaus), of the
SpaceNet 6 baseline (its UNet11 with 4 bands), of the FCN nets converted from Caffe (fcn.berkeleyvision.org), and of the
U-Net that github.com/milesial/Pytorch-UNet made common.

The logits are the original's for sides that are multiples of 32 (TernausNet) or 16 (U-Net), and for any side of an FCN.
Of other sides TernausNet's own code takes none, and that U-Net pads the upsampled maps where ours pads the image. With
several classes UNet16 ends in the logarithm of a softmax; ours gives what goes into it. An FCN-8s that was trained "at
once" has the names of the other and scales pool4 by 0.01 and pool3 by 0.0001, which no file tells.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sn6.checkpoints.state_dict import mismatch
from sn6.errors import UserError
from sn6.models.fcn import FCN8s, FCN16s, FCN32s
from sn6.models.ternausnet import TernausNet
from sn6.models.unet import UNet

Weights = Mapping[str, Tensor]

# Places of the convolutions among the layers of VGG: of configuration A by name, of D block by block.
VGG11 = {"conv1": 0, "conv2": 3, "conv3s": 6, "conv3": 8, "conv4s": 11, "conv4": 13, "conv5s": 16, "conv5": 18}
VGG16 = {1: (0, 2), 2: (5, 7), 3: (10, 12, 14), 4: (17, 19, 21), 5: (24, 26, 28)}
UNET_DEPTH = 4


@dataclass(frozen=True)
class Form:
    """One form of names.

    Attributes:
        name: of the network, as its authors call it
        sign: a key that no other form has
        network: ours
        modules: their name of each module that has weights, and ours; a module may have several of their names
        ends: our names of the first and the last convolution, whose shapes tell bands, width and classes
        options: of ours that the form fixes
        prepare: what is done to the tensors before they are renamed
        absent: what it may mean where keys are missing
    """

    name: str
    sign: str
    network: type[nn.Module]
    modules: Mapping[str, str]
    ends: tuple[str, str]
    options: dict[str, Any]
    prepare: Callable[[Weights], Weights] = dict
    absent: str = ""


def ternausnet(name: str, sign: str, encoder: str, layers: Mapping[str, int], again: Mapping[str, int]) -> Form:
    """UNet11 or UNet16: the encoder's tensors are there twice.

    Args:
        name: of the network
        sign: see `Form`
        encoder: ours
        layers: of a decoder block, and their places in ours
        again: the second names of the encoder's convolutions, and their places in VGG
    """
    blocks = {"center": "center"} | {f"dec{5 - i}": f"decoder.{i}" for i in range(4)}
    decoder = {
        f"{theirs}.block.{layer}": f"{ours}.{i}" for theirs, ours in blocks.items() for layer, i in layers.items()
    }
    first = {f"encoder.{i}": f"encoder.{i}" for i in again.values()}
    second = {conv: f"encoder.{i}" for conv, i in again.items()}
    modules = first | second | decoder | {"dec1.conv": "decoder.4.0", "final": "head"}
    return Form(name, sign, TernausNet, modules, ("encoder.0.weight", "head.weight"), {"encoder": encoder})


def fcn(name: str, network: type[nn.Module], last: str, skips: Mapping[str, str]) -> Form:
    """One of the FCN nets, by the name of its last upsampling and the modules of its skips."""
    convolutions = {
        f"conv{block}_{k}": f"encoder.{i}" for block, places in VGG16.items() for k, i in enumerate(places, start=1)
    }
    modules = convolutions | {"fc6": "fc6", "fc7": "fc7", "score_fr": "score", last: "upsampling"} | dict(skips)
    return Form(name, f"{last}.weight", network, modules, ("encoder.0.weight", "score.weight"), {})


def unet() -> Form:
    """A pair of convolutions at 0 and 3, their batch norms at 1 and 4, as in ours."""
    levels = range(1, UNET_DEPTH + 1)
    pairs = {"inc.double_conv": "encoder.0"}
    pairs |= {f"down{level}.maxpool_conv.1.double_conv": f"encoder.{level}" for level in levels}
    pairs |= {f"up{level}.conv.double_conv": f"expanding.{level - 1}" for level in levels}
    modules = {f"{theirs}.{i}": f"{ours}.{i}" for theirs, ours in pairs.items() for i in (0, 1, 3, 4)}
    modules |= {f"up{level}.up": f"up_convolutions.{level - 1}" for level in levels} | {"outc.conv": "head"}
    return Form(
        "the U-Net of Pytorch-UNet",
        "inc.double_conv.0.weight",
        UNet,
        modules,
        ("encoder.0.0.weight", "head.weight"),
        {"batch_norm": True, "padded": True, "depth": UNET_DEPTH},
        without_biases,
        "without up1.up.weight it is the variant that upsamples bilinearly, which sn6 has not; ",
    )


def without_biases(weights: Weights) -> Weights:
    """Biases before a batch norm, which early versions have, taken off its running mean: the sum is the same."""
    result = dict(weights)
    for name in weights:
        if match := re.fullmatch(r"(.*double_conv)\.([03])\.bias", name):
            mean = f"{match[1]}.{int(match[2]) + 1}.running_mean"
            if mean in weights:
                result[mean] = weights[mean] - result.pop(name)
    return result


POOL4 = {"score_pool4": "skip_scores.0", "upscore2": "doublings.0"}
POOL3 = {"score_pool3": "skip_scores.1", "upscore_pool4": "doublings.1"}
VGG16_PAIRS = {f"conv{block}.{2 * k}": i for block, places in VGG16.items() for k, i in enumerate(places)}
FORMS = (
    ternausnet("TernausNet's UNet11", "center.block.1.weight", "vgg11", {"0.conv": 0, "1": 2}, VGG11),
    ternausnet("TernausNet's UNet16", "center.block.2.conv.weight", "vgg16", {"1.conv": 1, "2.conv": 3}, VGG16_PAIRS),
    fcn("FCN-32s", FCN32s, "upscore", {}),
    fcn("FCN-16s", FCN16s, "upscore16", POOL4),
    fcn("FCN-8s", FCN8s, "upscore8", POOL4 | POOL3),
    unet(),
)


def translate(weights: Weights, where: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Published weights under our names, and a card that tells the network that they fit.

    Args:
        weights: under whatever names
        where: key and file, for messages

    Returns:
        The tensors, and `{"form": name, "network": {"_target_": ..., option: value}}`. Names that are of no known form
        come back as they are, with an empty card.

    Raises:
        UserError: keys of a form are missing, unknown or of another shape, or one layer is there in two versions
    """
    form = next((form for form in FORMS if form.sign in weights), None)
    if form is None:
        return dict(weights), {}
    prepared = form.prepare(weights)
    theirs, unknown = names_in(prepared, form, where)
    renamed = {ours: prepared[name] for ours, name in theirs.items()}
    options = sizes(renamed, form) | form.options
    with torch.device("meta"):
        network = form.network(**options)
    differences = mismatch(network, renamed | unknown, lambda name: theirs.get(name) or their_name(name, form))
    if differences:
        hint = form.absent if "missing" in differences else ""
        raise UserError(f"{where} looks like {form.name} and is not: {differences}; {hint}give the file as published")
    target = f"{form.network.__module__}.{form.network.__qualname__}"
    return renamed, {"form": form.name, "network": {"_target_": target, **options}}


def names_in(weights: Weights, form: Form, where: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Our name of each tensor with the first of its names in the file, and the tensors that the form does not know.

    Raises:
        UserError: a tensor differs from itself under another name
    """
    theirs: dict[str, str] = {}
    unknown = {}
    for name, tensor in weights.items():
        module, _, parameter = name.rpartition(".")
        if module not in form.modules:
            unknown[name] = tensor
            continue
        first = theirs.setdefault(f"{form.modules[module]}.{parameter}", name)
        if first != name and not (tensor.shape == weights[first].shape and torch.equal(tensor, weights[first])):
            raise UserError(
                f"{where}: {first} and {name} are one layer of {form.name} and differ here; give the file as published"
            )
    return theirs, unknown


def sizes(renamed: Weights, form: Form) -> dict[str, int]:
    """Bands, width and classes by the shapes of the first and the last convolution; 1 of what is no convolution."""
    first, last = (renamed[name].shape if name in renamed else () for name in form.ends)
    return {
        "in_channels": first[1] if len(first) == 4 else 1,
        "width": first[0] if len(first) == 4 else 2,
        "classes": last[0] if len(last) == 4 else 1,
    }


def their_name(ours: str, form: Form) -> str:
    """The first name of the form for one of our tensors; any other name as it is."""
    module, _, parameter = ours.rpartition(".")
    return next((f"{theirs}.{parameter}" for theirs, name in form.modules.items() if name == module), ours)
