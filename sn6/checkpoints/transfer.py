"""Initialise a network with the weights of another, and report for each tensor what was done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sn6.checkpoints.state_dict import describe_mismatch
from sn6.errors import UserError
from sn6.models.first_layer import Adapt, adapt_first_layer, check_common_band, must_adapt

Action = Literal["loaded", "adapted", "initialised"]


@dataclass(frozen=True)
class TransferredTensor:
    """One row of the report: what was done with a tensor of the network.

    Attributes:
        tensor: name
        action: "loaded" unchanged, "adapted", or "initialised" by the network itself
        rule: how it was adapted, or why it was initialised; "" if loaded
        source_shape: shape in the weights, empty if they have no such tensor
        shape: shape in the network
    """

    tensor: str
    action: Action
    rule: str
    source_shape: tuple[int, ...]
    shape: tuple[int, ...]


def transfer_weights(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    bands: tuple[Sequence[str], Sequence[str]],
    adapt: Adapt | None,
    reset_head: bool,
    where: str,
    node: str,
) -> list[TransferredTensor]:
    """Copy `weights` into `network`; adapt the first layer and skip the head where the arguments say so.

    Args:
        network: network to fill, with a class variable `head_parts`
        weights: tensors of a network of the same class
        bands: names of the bands that the weights were trained on, and of the network's bands
        adapt: rule for a first layer of other bands, see `adapt_first_layer`
        reset_head: whether the last layers keep their initialisation
        where: source of the weights, for messages
        node: config node with the keys `weights` and `adapt`, for messages

    Returns:
        A row for each tensor of the network, in the order of its state dict.

    Raises:
        UserError: tensors are missing, unknown or of another shape, or the bands differ and `adapt` is None
    """
    if reset_head and not hasattr(network, "head_parts"):
        raise UserError(
            f"{type(network).__name__} does not say which layers are its head, so {node}.reset_head=true is not "
            "possible; name their first attributes in a class variable, such as head_parts = ('segmentation_head',)",
            kind="conflict",
            key=f"{node}.reset_head",
            value=True,
        )
    own = network.state_dict()
    fitted = dict(weights)
    head = [name for name in own if reset_head and name.split(".")[0] in getattr(network, "head_parts", ())]
    adapted: dict[str, str] = {}
    for first in first_layers(network):
        if first not in fitted or fitted[first].ndim != 4:
            continue
        pixels = pixels_in_channels(own[first].shape[1], len(bands[1]))
        old, new = fitted[first].shape[1] // pixels, own[first].shape[1] // pixels
        if must_adapt(old, new, bands, adapt):
            adapt = checked_rule(old, new, bands, adapt, where, node)
            fitted[first] = adapt_first_layer(fitted[first], new, bands, adapt, pixels)
            adapted[first] = f"{adapt}: {old} bands to {new}"
    for name in head:
        fitted[name] = own[name]
    if mismatch := describe_mismatch(network, fitted):
        raise UserError(
            f"{where} does not fit {type(network).__name__}: {mismatch}; give weights of this network",
            kind="mismatch",
            key=f"{node}.weights",
        )
    network.load_state_dict(fitted)
    rows = []
    for name, tensor in own.items():
        source_shape = tuple(weights[name].shape) if name in weights else ()
        action: Action = "initialised" if name in head else "adapted" if name in adapted else "loaded"
        rule = "reset_head" if name in head else adapted.get(name, "")
        rows.append(TransferredTensor(name, action, rule, source_shape, tuple(tensor.shape)))
    return rows


def first_layers(network: nn.Module) -> list[str]:
    """Return the names of the weights applied to the image: as the network says, or that of the first convolution."""
    names = [f"{name}.weight" for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)]
    return list(getattr(network, "first_layers", names[:1]))


def pixels_in_channels(inputs: int, bands: int) -> int:
    """Return how many pixels of the image a first layer has side by side in its `inputs` channels."""
    return inputs // bands if bands and inputs % bands == 0 else 1


def checked_rule(
    old: int, new: int, bands: tuple[Sequence[str], Sequence[str]], adapt: Adapt | None, where: str, node: str
) -> Adapt:
    """Return the rule for the first layer.

    Raises:
        UserError: there is none, or with `names`, no band has the name of an old band
    """
    if adapt is None:
        raise UserError(
            f"{where} has a first layer for {old} bands, the network for {new}; set {node}.adapt=mean|repeat|names",
            kind="missing_value",
            key=f"{node}.adapt",
        )
    if adapt == "names":
        check_common_band(bands, where, node)
    return adapt


def relative_change(start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> dict[str, float]:
    """Return ‖end − start‖ / ‖start‖ of each tensor: 0 if it is unchanged, infinite if it changed from zero."""
    result = {}
    for name, before in start.items():
        before, after = before.double(), end[name].double().cpu()
        distance, length = torch.linalg.vector_norm(after - before), torch.linalg.vector_norm(before)
        result[name] = float(distance / length) if distance else 0.0
    return result
