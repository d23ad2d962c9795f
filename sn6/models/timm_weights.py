"""Load ImageNet weights into an encoder of timm: from the Hugging Face hub, or from a file."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sn6.errors import UserError, first_line
from sn6.models.encoders import hub_file, read_imagenet_weights
from sn6.models.first_layer import RGB, FirstLayer
from sn6.models.timm_encoder import TimmEncoder, first_layers, joined_name

IMAGENET = "imagenet"  # the weights that timm takes by default
MAX_NAMES = 3  # tensors that a message lists


def load_pretrained(
    encoder: TimmEncoder, name: str, pretrained: str | None, weights_file: str | None, first_layer: FirstLayer
) -> None:
    """Copy pretrained weights into an encoder; do nothing with `pretrained=None`.

    The whole network of timm is loaded first, with all names compared, since it converts the weights of other programs;
    then its tensors are copied into the encoder, which has a part of them.

    Args:
        encoder: to fill
        name: of timm
        pretrained: `imagenet`, a tag of timm's weights, or None
        weights_file: `.safetensors` or `.pth` in place of the hub
        first_layer: how the first layer is adapted to the encoder's bands

    Raises:
        UserError: conflicting options, an unknown tag, the hub is out of reach, the file is missing or does not fit
    """
    if pretrained is None:
        if weights_file is not None:
            raise UserError(
                f"model.weights_file={weights_file} needs model.pretrained={IMAGENET} or a tag; set both or neither",
                kind="conflict",
                key="model.weights_file",
                value=weights_file,
            )
        return
    config = pretrained_config(name, pretrained, weights_file)
    path = weights_file or hub_file(config.hf_hub_id, f"{name}.{config.tag}", pretrained)
    with torch.random.fork_rng(devices=[]):  # the encoder beside them was drawn already
        complete = complete_network(name, config, read_imagenet_weights(path), path)
    copy_weights(complete, encoder, first_layers(encoder, name), first_layer)


def pretrained_config(name: str, pretrained: str, weights_file: str | None) -> Any:
    """Return what timm knows of the weights: their address, and the names of the first and last layers.

    Raises:
        UserError: timm knows no such weights, or has them from elsewhere than the hub and no file is given
    """
    import timm
    from timm.models import get_pretrained_cfg

    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
    if pretrained not in (IMAGENET, *tags):
        listed = ", ".join((IMAGENET, *tags, "null"))
        raise UserError(
            f"model.encoder={name} has no weights model.pretrained={pretrained}; choose from {listed}",
            kind="unknown_value",
            key="model.pretrained",
            value=pretrained,
        )
    config: Any = get_pretrained_cfg(name if pretrained == IMAGENET else f"{name}.{pretrained}")
    if weights_file is None and not config.hf_hub_id:
        source = f"only at {config.url}; give a copy by model.weights_file=FILE" if config.url else "nowhere"
        raise UserError(
            f"the weights of model.encoder={name} are {source}, or set model.pretrained=null",
            kind="unavailable",
            key="model.pretrained",
            value=pretrained,
        )
    return config


def complete_network(name: str, config: Any, weights: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """Return the tensors of the whole network of timm for three bands, filled with `weights`; its head may differ.

    Raises:
        UserError: the weights are of another network
    """
    import timm

    full = f"{name}.{config.tag}" if config.tag else name
    with torch.device("cpu"):
        expected = timm.create_model(full).state_dict()
        weights = by_order(weights, expected)
        last = (config.classifier,) if isinstance(config.classifier, str) else config.classifier or ()
        heads = {key: value for key, value in expected.items() if key.rpartition(".")[0] in last}
        overlay = {"state_dict": {**weights, **heads}, "custom_load": False, "label_offset": 0, "source": None}
        try:
            return timm.create_model(full, pretrained=True, pretrained_cfg_overlay=overlay).state_dict()
        except Exception as error:  # torch's RuntimeError; conversions of timm raise their own
            reason = next((line.strip() for line in str(error).splitlines()[1:]), first_line(error))
            names = reason.split(", ")
            reason = ", ".join(names[:MAX_NAMES]) + (", ..." if len(names) > MAX_NAMES else "")
            raise UserError(
                f"{path} does not fit {name}: {reason}; give weights of {name}",
                kind="mismatch",
                key="model.weights_file",
                value=path,
            ) from None


def by_order(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return weights by timm's names, where they are those of the same network by another program.

    They are if no name of a tensor is timm's, and if all tensors have the same shapes and the same last part of the
    name in the same order. So are those of `efficientnet_lite_pytorch`.
    """
    if set(weights) & set(expected) or len(weights) != len(expected):
        return weights
    pairs = list(zip(weights.items(), expected.items(), strict=True))
    if any(a.shape != b.shape or last_part(n) != last_part(m) for (n, a), (m, b) in pairs):
        return weights
    return {name: weight for (_, weight), (name, _) in pairs}


def last_part(name: str) -> str:
    """Return `weight`, `bias`, `running_mean` or the like."""
    return name.rpartition(".")[2]


def copy_weights(
    complete: Mapping[str, Tensor], encoder: nn.Module, first: Sequence[str], first_layer: FirstLayer
) -> None:
    """Copy the tensors of the whole network into the encoder; `first` are those that are adapted to the bands.

    Raises:
        UserError: a tensor has another shape, as of a first layer that is no convolution
    """
    by_joined_name = {joined_name(name): weight for name, weight in complete.items()}
    for key, target in encoder.state_dict().items():
        weight = by_joined_name[joined_name(key)]
        if key in first and weight.ndim == 4 and weight.shape[1] % len(RGB) == 0:
            weight = first_layer.of(weight.float(), target.shape[1] * len(RGB) // weight.shape[1])
        if weight.shape != target.shape:
            raise UserError(
                f"the weights of {key} have shape {tuple(weight.shape)}, the encoder {tuple(target.shape)}; set "
                "model.pretrained=null or model.in_channels=3",
                kind="mismatch",
                key="model.in_channels",
            )
        target.copy_(weight)
