"""A trained network as one module, from the values of image files to the maps of its heads."""

import math

import torch
from torch import Tensor, nn

from sn6.datasets.radar_units import EXPONENTS, Units
from sn6.errors import UserError
from sn6.heads import CLASSES, MASK
from sn6.prediction.onnx_network import INPUT, OUTPUTS
from sn6.prediction.trained_network import TrainedNetwork


class Graph(nn.Module):
    """Compute the maps of a trained network from the values of image files: units, nodata, normalisation, activation.

    A pixel is nodata where any band is NaN or infinite, where all bands are the nodata value of the network's product,
    and where a band of power, amplitude or digital numbers is 0 or less.

    Args:
        trained: the network
    """

    def __init__(self, trained: TrainedNetwork) -> None:
        super().__init__()
        self.network = trained.network
        self.heads = trained.heads
        self.building_class = trained.building_class
        self.keeps_nodata = trained.nodata == "as_is"
        self.units, self.nodata_value = trained.source.product.units, trained.source.product.nodata
        mean, std = (
            torch.tensor(values, dtype=torch.float32)[:, None, None]
            for values in (trained.statistics.mean, trained.statistics.std)
        )
        self.mean = nn.Buffer(mean)
        self.std = nn.Buffer(std)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the maps of the heads, 0 on nodata, and last the outputs of all heads before their activation.

        Args:
            image: bands in the units of the product, (b, c, h, w) float32
        """
        nodata = self.find_nodata(image)
        values = torch.where(nodata, 0.0, to_decibels(torch.where(nodata, 1.0, image), self.units))
        normalised = (values - self.mean) / self.std
        output = self.network(normalised if self.keeps_nodata else torch.where(nodata, 0.0, normalised))
        output = output["out"] if isinstance(output, dict) else output  # torchvision's networks return a dict
        outputs = output.float() if self.building_class is None else of_class(output.float(), self.building_class)
        maps = {
            name: torch.where(nodata, 0.0, activate(part, self.heads[name].activation))
            for name, part in self.heads.split(outputs).items()
        }
        if MASK not in maps and CLASSES in maps:  # see `Heads.activate`
            maps = {MASK: torch.where(nodata, 0.0, 1 - maps[CLASSES][:, :1]), **maps}
        return {**maps, OUTPUTS: outputs}

    def find_nodata(self, image: Tensor) -> Tensor:
        """Return which pixels (b, 1, h, w) are nodata."""
        nodata = ~torch.isfinite(image).all(dim=1, keepdim=True)
        if self.nodata_value is not None:
            nodata = nodata | self.is_nodata_value(image, self.nodata_value).all(dim=1, keepdim=True)
        if self.units.name != "db":
            nodata = nodata | (image <= 0).any(dim=1, keepdim=True)
        return nodata

    def is_nodata_value(self, image: Tensor, nodata_value: float) -> Tensor:
        """Return which values are the nodata value."""
        return image == nodata_value


def to_decibels(values: Tensor, units: Units) -> Tensor:
    """Return decibels of values above 0, as `Units.to_decibels` does."""
    if units == Units():
        return values
    if units.name == "db":
        return values * units.scale + units.offset
    exponent = EXPONENTS[units.name]  # of a product, scale and value may be beyond float32 where each is not
    return exponent * torch.log10(values) + (exponent * math.log10(units.scale) + units.offset)


def of_class(outputs: Tensor, building_class: int) -> Tensor:
    """Return the output of building, as `sn6.models.logits.building_logits` does, by operators that ONNX has."""
    others = torch.cat([outputs[:, :building_class], outputs[:, building_class + 1 :]], dim=1)
    return outputs[:, building_class : building_class + 1] - others.amax(dim=1, keepdim=True)


def activate(outputs: Tensor, activation: str) -> Tensor:
    """Return a map from the outputs of a head."""
    if activation == "softmax":
        return torch.softmax(outputs, dim=1)
    return torch.sigmoid(outputs) if activation == "sigmoid" else outputs


def graph_window(trained: TrainedNetwork, window: int | None, default: int) -> int:
    """Return the edge length of a graph's window in pixels.

    Args:
        trained: the network
        window: as given; None for the default, or the largest size below it that the network takes
        default: pixels

    Raises:
        UserError: the network does not take images of this size
    """
    multiple = trained.multiple
    if window is None:
        return max(multiple, default - default % multiple)
    if window % multiple:
        near = sorted({max(1, window // multiple) * multiple, -(-window // multiple) * multiple})
        raise UserError(
            f"invalid window={window}: {type(trained.network).__name__} takes multiples of {multiple} pixels; give "
            f"{' or '.join(map(str, near))}",
            kind="invalid_value",
            key="window",
            value=window,
        )
    return window


def check_names(trained: TrainedNetwork) -> None:
    """Raise a UserError where a head has the name of the graph's input or of its last output."""
    for name in trained.heads:
        if name in (INPUT, OUTPUTS):
            raise UserError(
                f"the head {name!r} has the name of a tensor of each exported file; train it under another name",
                kind="conflict",
                key="checkpoint",
                value=name,
            )
