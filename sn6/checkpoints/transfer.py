"""From the weights of one network to the start of another: what is loaded, adapted and left, tensor by tensor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sn6.checkpoints.state_dict import mismatch
from sn6.errors import UserError
from sn6.models.encoders import widen_first_layer

Adapt = Literal["mean", "repeat", "names"]


@dataclass(frozen=True)
class TransferredTensor:
    """What became of one tensor of the network.

    Attributes:
        tensor: its name
        what: "loaded" as it was, "adapted", or "left" as the network started it
        rule: by which it was adapted, or why it was left
        was: its shape in the weights, empty where they have none
        shape: in the network
    """

    tensor: str
    what: Literal["loaded", "adapted", "left"]
    rule: str
    was: tuple[int, ...]
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
    """Copies `weights` into `network`, all of them but for the exceptions that are asked for.

    Args:
        network: with a class variable `head_parts`
        weights: of a network of the same kind
        bands: names of the bands that the weights know, and of those that the network will see
        adapt: rule for a first layer of other bands
        reset_head: whether the last layers stay as the network started them
        where: file of the weights, for messages
        node: of the config that holds `adapt`, for messages

    Returns:
        A row for each tensor of the network, in its order.

    Raises:
        UserError: tensors are missing, unknown or of another shape, or the bands differ and `adapt` is None
    """
    first = first_convolution(network)
    own = network.state_dict()
    given = dict(weights)
    head = [name for name in own if reset_head and name.split(".")[0] in getattr(network, "head_parts", ())]
    adapted: dict[str, str] = {}
    if first in given and given[first].ndim == 4 and must_adapt(given[first], own[first], bands, adapt):
        if adapt is None:
            raise UserError(
                f"{where} has a first layer for {given[first].shape[1]} bands, the network for {own[first].shape[1]}; "
                f"choose a rule by {node}.adapt=mean|repeat|names"
            )
        given[first] = adapt_first_layer(given[first], own[first].shape[1], bands, adapt)
        adapted[first] = f"{adapt}: {len(weights[first][0])} bands to {own[first].shape[1]}"
    for name in head:
        given[name] = own[name]
    if differences := mismatch(network, given):
        raise UserError(f"{where} does not fit {type(network).__name__}: {differences}; give weights of this network")
    network.load_state_dict(given)
    rows = []
    for name, tensor in own.items():
        was = tuple(weights[name].shape) if name in weights else ()
        what: Any = "left" if name in head else "adapted" if name in adapted else "loaded"
        rule = "reset_head" if name in head else adapted.get(name, "")
        rows.append(TransferredTensor(name, what, rule, was, tuple(tensor.shape)))
    return rows


def first_convolution(network: nn.Module) -> str:
    """The name of the weight that meets the image."""
    return next(name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)) + ".weight"


def must_adapt(given: Tensor, own: Tensor, bands: tuple[Sequence[str], Sequence[str]], adapt: Adapt | None) -> bool:
    """Whether the first layer needs a rule: for another number of bands, or bands of other names."""
    return given.shape[1] != own.shape[1] or (adapt == "names" and list(bands[0]) != list(bands[1]))


def adapt_first_layer(
    weight: Float[Tensor, "filters bands kh kw"],
    in_channels: int,
    bands: tuple[Sequence[str], Sequence[str]],
    adapt: Adapt,
) -> Float[Tensor, "filters new_bands kh kw"]:
    """The first layer for other bands.

    mean: every band gets the mean of the old ones, times old/new.
    repeat: the old bands in turn, times old/new, so that the sum is kept where new is a multiple of old.
    names: a band gets the weights of the old band of its name (their sum where there were several), the others 0.

    Raises:
        UserError: no band has the name of an old one
    """
    old = weight.shape[1]
    if adapt == "mean":
        return widen_first_layer(weight, in_channels)
    if adapt == "repeat":
        return weight[:, [band % old for band in range(in_channels)]] * (old / in_channels)
    before, after = bands
    if not set(before) & set(after):
        raise UserError(
            f"adapt=names finds no band of the same name: {', '.join(before) or 'none that are known'} before, "
            f"{', '.join(after)} now; choose mean or repeat"
        )
    zero = torch.zeros_like(weight[:, 0])
    layers = [sum((weight[:, i] for i, name in enumerate(before) if name == wanted), zero) for wanted in after]
    return torch.stack(layers, dim=1)


def relative_change(start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> dict[str, float]:
    """How far each tensor went: ‖end − start‖ / ‖start‖, infinite for one that started at zero and moved."""
    result = {}
    for name, before in start.items():
        before, after = before.double(), end[name].double().cpu()
        distance, length = torch.linalg.vector_norm(after - before), torch.linalg.vector_norm(before)
        result[name] = float(distance / length) if distance else 0.0
    return result
