"""Build VGG encoders with timm and initialise networks: He initialisation, or ImageNet weights."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from torch import Tensor, nn

from sn6.errors import UserError
from sn6.models.first_layer import BY_MEAN, FirstLayer

Architecture = Literal["vgg11", "vgg16"]
Pretrained = Literal["imagenet"] | None

PUBLISHED_WIDTH = 64  # filters of VGG's first convolution
HUB_REPOSITORIES = {"vgg11": "timm/vgg11.tv_in1k", "vgg16": "timm/vgg16.tv_in1k"}
FIRST_LAYER = "features.0.weight"
HUB_FILE = "model.safetensors"
HUB_TIMEOUT = 5.0  # seconds to wait for an answer of the hub
# torchvision's fully connected layers, timm's names for them, and their kernels as convolutions
TORCHVISION_HEAD = {"classifier.0": ("pre_logits.fc1", 7), "classifier.3": ("pre_logits.fc2", 1)}


def vgg_features(architecture: Architecture, in_channels: int, width: int) -> nn.Sequential:
    """Build the convolutions, ReLUs and five poolings of VGG (Simonyan, Zisserman 2015), without its head.

    Args:
        architecture: configuration A (`vgg11`) or D (`vgg16`)
        in_channels: bands of the image
        width: filters of the first convolution; the other layers scale with it

    Returns:
        Layers numbered as in timm and torchvision; their weights are not initialised.
    """
    from timm.models.vgg import VGG, cfgs  # takes a second; networks without VGG do not need it

    layout = [v * width // PUBLISHED_WIDTH if isinstance(v, int) else v for v in cfgs[architecture]]
    with torch.device("meta"):  # the head that timm adds, over 100 million parameters, is never allocated
        features = VGG(layout, in_chans=in_channels).features
    return features.to_empty(device=torch.get_default_device())


def he_initialise(network: nn.Module) -> None:
    """Draw the weights of every convolution of `network` from N(0, 2/n), n being the inputs of one output pixel.

    Source: He et al. 2015, equation 10; U-Net paper, section 3. Biases are set to zero.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            inputs: float = layer.in_channels * math.prod(layer.kernel_size)
            if isinstance(layer, nn.ConvTranspose2d):  # one in stride² of the kernel contributes to an output pixel
                inputs /= math.prod(layer.stride)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / inputs))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def load_pretrained(
    architecture: Architecture,
    layers: Mapping[str, nn.Module],
    width: int,
    pretrained: Pretrained,
    weights_file: str | None,
    first_layer: FirstLayer = BY_MEAN,
) -> None:
    """Copy ImageNet weights into `layers`; do nothing with `pretrained=None`.

    Args:
        architecture: timm's name of the network
        layers: timm's name of a part (`features`, `pre_logits.fc1`) → the module to fill
        width: filters of the first convolution
        pretrained: `imagenet` or None
        weights_file: `.safetensors` or `.pth` with the names of timm or torchvision, in place of the hub
        first_layer: how the first convolution is adapted to its bands

    Raises:
        UserError: conflicting options, the hub is out of reach, the file is missing or does not fit
    """
    if pretrained is None:
        if weights_file is not None:
            raise UserError(
                f"model.weights_file={weights_file} needs model.pretrained=imagenet; set both or neither",
                kind="conflict",
                key="model.weights_file",
                value=weights_file,
            )
        return
    if width != PUBLISHED_WIDTH:
        raise UserError(
            f"model.width={width}: ImageNet weights exist for width {PUBLISHED_WIDTH} only; "
            f"set model.width={PUBLISHED_WIDTH} or model.pretrained=null",
            kind="conflict",
            key="model.width",
            value=width,
        )
    path = weights_file or hub_file(HUB_REPOSITORIES[architecture], architecture)
    published = read_imagenet_weights(path)
    for part, layer in layers.items():
        for name, target in layer.state_dict().items():
            weight = published.get(f"{part}.{name}")
            if f"{part}.{name}" == FIRST_LAYER and weight is not None and weight.ndim == 4 and weight.shape[1] == 3:
                weight = first_layer.of(weight.float(), target.shape[1])
            copy_weight(weight, f"{part}.{name}", target, path, architecture)


def copy_weight(weight: Tensor | None, name: str, target: Tensor, path: str, architecture: Architecture) -> None:
    """Copy the published `weight` of this name into `target`.

    Raises:
        UserError: the tensor is missing or has another shape
    """
    if weight is None:
        raise UserError(
            f"{path} has no tensor {name!r}; give weights of {architecture} from timm or torchvision",
            kind="mismatch",
            key="model.weights_file",
            value=path,
        )
    if weight.shape != target.shape:
        raise UserError(
            f"{path}: tensor {name!r} has shape {tuple(weight.shape)}, {architecture} needs {tuple(target.shape)}; "
            f"give weights of {architecture} from timm or torchvision",
            kind="mismatch",
            key="model.weights_file",
            value=path,
        )
    target.copy_(weight)


def read_imagenet_weights(path: str) -> dict[str, Tensor]:
    """Read the tensors of a `.safetensors` or `.pth` file, by timm's names, without running code from it.

    Raises:
        UserError: the file is missing or cannot be read
    """
    if not Path(path).is_file():
        raise UserError(
            f"model.weights_file={path} does not exist; give a .safetensors or .pth file",
            kind="not_found",
            key="model.weights_file",
            value=path,
        )
    from timm.models import load_state_dict

    try:
        return with_timm_names(load_state_dict(path, weights_only=True))
    except Exception as error:  # safetensors, zip, pickle, torch and timm each raise their own
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise UserError(
            f"model.weights_file={path} cannot be read ({reason}); give a .safetensors or .pth file",
            kind="unreadable",
            key="model.weights_file",
            value=path,
        ) from error


def with_timm_names(weights: Mapping[str, object]) -> dict[str, Tensor]:
    """Convert torchvision's fully connected layers to timm's convolutions, if there are any."""
    named = {name: weight for name, weight in weights.items() if isinstance(weight, Tensor)}
    for theirs, (ours, kernel) in TORCHVISION_HEAD.items():
        if f"{theirs}.weight" in named:
            matrix = named.pop(f"{theirs}.weight")
            named[f"{ours}.weight"] = matrix.reshape(len(matrix), -1, kernel, kernel)
            named[f"{ours}.bias"] = named.pop(f"{theirs}.bias")
    return named


def hub_file(repository: str, encoder: str, pretrained: str = "imagenet") -> str:
    """Return the path of published weights in the local cache of the Hugging Face hub; download them if missing.

    Args:
        repository: of the hub
        encoder: name of the network, for messages
        pretrained: value of `model.pretrained`, for messages

    Raises:
        UserError: the hub is out of reach
    """
    cached = try_to_load_from_cache(repository, HUB_FILE)
    if isinstance(cached, str):
        return cached
    try:
        # One request first, because hf_hub_download repeats for minutes when the hub does not answer.
        get_hf_file_metadata(hf_hub_url(repository, HUB_FILE), timeout=HUB_TIMEOUT)
        return hf_hub_download(repository, HUB_FILE)
    except Exception as error:  # OSError, or an error of requests, httpx or httpx2: it depends on the version
        raise UserError(
            f"the ImageNet weights of {encoder} could not be downloaded from {repository} "
            f"({type(error).__name__}); set model.pretrained=null, or model.weights_file=FILE to a local copy",
            kind="unavailable",
            key="model.pretrained",
            value=pretrained,
        ) from error
