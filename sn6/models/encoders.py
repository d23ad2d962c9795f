"""How a network starts: VGG encoders built by timm, He initialisation, ImageNet weights."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from jaxtyping import Float
from torch import Tensor, nn

from sn6.errors import UserError

Architecture = Literal["vgg11", "vgg16"]
Pretrained = Literal["imagenet"] | None

PUBLISHED_WIDTH = 64  # filters of VGG's first convolution
HUB_REPOSITORIES = {"vgg11": "timm/vgg11.tv_in1k", "vgg16": "timm/vgg16.tv_in1k"}
HUB_FILE = "model.safetensors"
HUB_TIMEOUT = 5.0  # seconds until a hub that does not answer counts as out of reach
# torchvision's fully connected layers, timm's names for them, and their kernels as convolutions
TORCHVISION_HEAD = {"classifier.0": ("pre_logits.fc1", 7), "classifier.3": ("pre_logits.fc2", 1)}


def vgg_features(architecture: Architecture, in_channels: int, width: int) -> nn.Sequential:
    """The convolutions, ReLUs and five poolings of VGG (Simonyan, Zisserman 2015), without its head.

    Args:
        architecture: configuration A (`vgg11`) or D (`vgg16`)
        in_channels: bands of the image
        width: filters of the first convolution; the others keep their proportion to it

    Returns:
        Layers numbered as in timm and torchvision; their weights are not initialised.
    """
    from timm.models.vgg import VGG, cfgs  # takes a second, which a network without VGG does without

    layout = [v * width // PUBLISHED_WIDTH if isinstance(v, int) else v for v in cfgs[architecture]]
    with torch.device("meta"):  # the head that timm adds, over 100 million parameters, is never allocated
        features = VGG(layout, in_chans=in_channels).features
    return features.to_empty(device=torch.get_default_device())


def he_initialise(network: nn.Module) -> None:
    """Draws every convolution of `network` from N(0, 2/n), with n the values summed for one output pixel.

    Source: He et al. 2015, equation 10; U-Net paper, section 3. Biases start at zero.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            summed: float = layer.in_channels * math.prod(layer.kernel_size)
            if isinstance(layer, nn.ConvTranspose2d):  # an output pixel meets one in stride² of the kernel
                summed /= math.prod(layer.stride)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / summed))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def widen_first_layer(
    weight: Float[Tensor, "filters bands kh kw"], in_channels: int
) -> Float[Tensor, "filters new_bands kh kw"]:
    """The first convolution of a network for an image of `in_channels` bands.

    The same number of bands keep their weights. Of any other number, each band gets the mean of the old bands'
    filters times old/new: where all bands are equal, the response is that of the old network to equal bands.
    """
    if in_channels == weight.shape[1]:
        return weight
    return (weight.sum(dim=1, keepdim=True) / in_channels).repeat(1, in_channels, 1, 1)


def load_pretrained(
    architecture: Architecture,
    layers: Mapping[str, nn.Module],
    width: int,
    pretrained: Pretrained,
    weights_file: str | None,
) -> None:
    """Copies ImageNet weights into `layers`; with `pretrained=None` it does nothing.

    Args:
        architecture: the network of timm whose weights are wanted
        layers: timm's name of a part (`features`, `pre_logits.fc1`) and the module to fill.
            The first convolution is widened to its bands by `widen_first_layer`.
        width: filters of the first convolution
        pretrained: `imagenet` or None
        weights_file: `.safetensors` or `.pth` with the names of timm or torchvision, in place of the hub

    Raises:
        UserError: the options do not fit together, the hub is out of reach, the file is missing or unfit
    """
    if pretrained is None:
        if weights_file is not None:
            raise UserError(f"model.weights_file={weights_file} needs model.pretrained=imagenet; set both or none")
        return
    if width != PUBLISHED_WIDTH:
        raise UserError(
            f"model.width={width}: ImageNet weights exist for width {PUBLISHED_WIDTH} only; "
            f"set model.width={PUBLISHED_WIDTH} or model.pretrained=null"
        )
    path = weights_file or imagenet_file(architecture)
    published = read_weights(path)
    for part, layer in layers.items():
        for name, target in layer.state_dict().items():
            copy_weight(published, f"{part}.{name}", target, path, architecture)


def copy_weight(
    published: Mapping[str, Tensor], name: str, target: Tensor, path: str, architecture: Architecture
) -> None:
    """Copies `published[name]` into `target`, or says in one line why it does not fit."""
    if name not in published:
        raise UserError(f"{path}: no {name!r} in it; give the weights of timm's or torchvision's {architecture}")
    weight = published[name]
    if name == "features.0.weight" and weight.ndim == 4 and weight.shape[1] == 3:
        weight = widen_first_layer(weight.float(), target.shape[1])
    if weight.shape != target.shape:
        raise UserError(
            f"{path}: {name!r} has shape {tuple(weight.shape)}, {architecture} wants {tuple(target.shape)}; "
            f"give the weights of timm's or torchvision's {architecture}"
        )
    target.copy_(weight)


def read_weights(path: str) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` or `.pth` file under timm's names; nothing in it is executed."""
    if not Path(path).is_file():
        raise UserError(f"model.weights_file={path}: there is no such file; give a .safetensors or .pth")
    from timm.models import load_state_dict

    try:
        return with_timm_names(load_state_dict(path, weights_only=True))
    except Exception as error:  # safetensors, zip, pickle, torch and timm each raise their own
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise UserError(f"model.weights_file={path} cannot be read ({reason}); give a .safetensors or .pth") from error


def with_timm_names(weights: Mapping[str, object]) -> dict[str, Tensor]:
    """`weights` with torchvision's fully connected layers as timm's convolutions, if they are there."""
    named = {name: weight for name, weight in weights.items() if isinstance(weight, Tensor)}
    for theirs, (ours, kernel) in TORCHVISION_HEAD.items():
        if f"{theirs}.weight" in named:
            matrix = named.pop(f"{theirs}.weight")
            named[f"{ours}.weight"] = matrix.reshape(len(matrix), -1, kernel, kernel)
            named[f"{ours}.bias"] = named.pop(f"{theirs}.bias")
    return named


def imagenet_file(architecture: Architecture) -> str:
    """The published weights in the local cache of the Hugging Face hub; downloaded if they are not there.

    Raises:
        UserError: the hub is out of reach
    """
    repository = HUB_REPOSITORIES[architecture]
    cached = try_to_load_from_cache(repository, HUB_FILE)
    if isinstance(cached, str):
        return cached
    try:
        # Asks once first: the download itself repeats for minutes when nobody answers.
        get_hf_file_metadata(hf_hub_url(repository, HUB_FILE), timeout=HUB_TIMEOUT)
        return hf_hub_download(repository, HUB_FILE)
    except Exception as error:  # OSError, or an error of requests, httpx or httpx2: it depends on the version
        raise UserError(
            f"the ImageNet weights of {architecture} cannot be had from {repository} ({type(error).__name__}); "
            "set model.pretrained=null, or model.weights_file=path to a file of them"
        ) from error
