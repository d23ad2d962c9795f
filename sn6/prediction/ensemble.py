"""Average the outputs of several networks, flips and scales, before the activation of the heads."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32
from torch import Tensor

from sn6.checkpoints.metadata import Precision
from sn6.errors import UserError
from sn6.prediction.full_window import crop, read_full
from sn6.prediction.images import Image
from sn6.prediction.mosaic import Region
from sn6.prediction.networks import Network
from sn6.prediction.onnx_network import OnnxNetwork
from sn6.targets.target import FLIP


@dataclass(frozen=True)
class Averaging:
    """What to average besides the networks, and how to compute it.

    Attributes:
        flips: average with the image flipped left to right
        scales: factors on the size of the image
        precision: precision of the forward pass
    """

    flips: bool
    scales: tuple[float, ...]
    precision: Precision


class Ensemble:
    """Compute the mean outputs of networks, flips and scales.

    Args:
        networks: networks of the same bands and heads
        device: device to compute on
        averaging: flips, scales, precision
    """

    def __init__(self, networks: Sequence[Network], device: str, averaging: Averaging) -> None:
        self.networks = networks
        self.heads = networks[0].heads
        self.device = torch.device(device)
        self.averaging = averaging
        for trained in networks:
            trained.to(self.device)

    @property
    def window(self) -> int | None:
        """Return the edge length of all images where a network takes only one, that of an ONNX file; None for any."""
        return next((network.window[0] for network in self.networks if isinstance(network, OnnxNetwork)), None)

    def read(self, image: Image, region: Region) -> tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """Read a window of an image as the networks take it: bands and valid pixels; errors of `Image.read`."""
        return image.read(*region) if self.window is None else read_full(image, region, self.window)

    def crop(self, outputs: Float32[np.ndarray, "k h w"], image: Image, region: Region) -> Float32[np.ndarray, "k _ _"]:
        """Return the outputs of a window from those of what `read` has returned."""
        return outputs if self.window is None else crop(outputs, region, image.height, image.width)

    @torch.inference_mode()
    def outputs(
        self, pixels: Sequence[Float32[np.ndarray, "c h w"]], valid: Sequence[Bool[np.ndarray, "h w"]]
    ) -> Float32[np.ndarray, "b k h w"]:
        """Compute the outputs of all heads, before their activation, for images of the same size; NaN on nodata.

        Args:
            pixels: bands of each image, in the units of the product
            valid: whether each pixel is valid

        Raises:
            UserError: the memory of the device is too small
        """
        passes = len(self.networks) * len(self.averaging.scales) * (1 + self.averaging.flips)
        total = torch.zeros(len(pixels), self.heads.channels, *valid[0].shape, device=self.device)
        try:
            for trained in self.networks:
                image = torch.from_numpy(trained.prepare(pixels, valid)).to(self.device)
                total += self._sum_of_passes(trained, image)
        except torch.OutOfMemoryError:
            raise UserError(
                f"{self.device} does not have enough memory for batch={len(pixels)} windows of "
                f"{valid[0].shape[-1]} pixels; give a smaller batch= or window=",
                kind="failed",
                key="batch",
                value=len(pixels),
            ) from None
        outputs = (total / passes).cpu().numpy()
        np.copyto(outputs, np.nan, where=~np.stack(valid)[:, None])
        return outputs

    def _sum_of_passes(self, trained: Network, image: Float32[Tensor, "b c h w"]) -> Float32[Tensor, "b k h w"]:
        """Sum the outputs of one network over scales and flips."""
        precision = self.averaging.precision
        total = torch.zeros(len(image), self.heads.channels, *image.shape[-2:], device=self.device)
        for scale in self.averaging.scales:
            size = [round(side * scale) for side in image.shape[-2:]]  # and back by the ratio of the same sizes
            scaled = image if scale == 1 else F.interpolate(image, size=size, mode="bilinear", antialias=True)
            outputs = trained.forward(scaled, precision)
            if self.averaging.flips:
                outputs = outputs + self.heads.transform(trained.forward(scaled.flip(-1), precision).flip(-1), FLIP)
            if scale != 1:
                outputs = F.interpolate(self.heads.rescale(outputs, scale), size=image.shape[-2:], mode="bilinear")
            total += outputs
        return total
