"""The graph and the metadata of an ONNX file for the QGIS plugin Deepness.

The keys are those of its documentation, "Adding metadata to ONNX model". Its code reads the size of a tile from
`tile_size`, which is `tiles_size` in the documentation: a file has both.
"""

import json
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from sn6.exports.graph import Graph
from sn6.heads import MASK
from sn6.prediction.trained_network import TrainedNetwork

BYTE = 255.0  # by which the plugin divides the values of every layer, whatever their type
PROBABILITY = "probability"  # name of the output
CLASS_NAMES = {0: "background", 1: "building"}
LIMITS = (
    "Deepness neither rotates images from the south by 180° nor divides touching buildings, and has no minimum area: "
    "the footprints of sn6.predict are better"
)


class DeepnessGraph(Graph):
    """Compute the probability of building as the QGIS plugin Deepness gives images, and as it reads masks.

    It divides the values of a layer by 255, sets probabilities below the threshold to 0, and takes the channel with the
    highest value as the class: one channel of building alone would be background in its newest version. So there are
    two, and that of the background is 0.
    """

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the background, which is 0, and the probability of building: (b, 2, h, w).

        Args:
            image: bands in the units of the product, divided by 255, (b, c, h, w) float32
        """
        mask = super().forward(image * BYTE)[MASK]
        return {PROBABILITY: torch.cat([torch.zeros_like(mask), mask], dim=1)}

    def is_nodata_value(self, image: Tensor, nodata_value: float) -> Tensor:
        """Return which values are the nodata value, as far as the division by 255 and its inverse keep them."""
        return (image - nodata_value).abs() <= 1e-6 * abs(nodata_value)


def as_in_plugin(values: Float32[np.ndarray, "b c h w"]) -> Float32[np.ndarray, "b c h w"]:
    """Return values of a layer as the plugin gives them to a network."""
    return (values * 1.0 / BYTE).astype(np.float32)


def deepness_metadata(trained: TrainedNetwork, window: int, overlap: int) -> dict[str, str]:
    """Return the entries of the file's metadata.

    Args:
        trained: the network
        window: edge length of the graph's input in pixels
        overlap: of windows in pixels
    """
    values: dict[str, Any] = {
        "model_type": "Segmentor",
        "class_names": CLASS_NAMES,
        "resolution": trained.source.product.grid * 100,  # cm
        "tile_size": window,
        "tiles_size": window,
        "tiles_overlap": round(100 * overlap / window),  # percent
        "seg_thresh": trained.polygonizer.threshold,
        "seg_small_segment": 0,  # width of a median filter in pixels, which would round corners off; 0 is none
    }
    return {key: json.dumps(value) for key, value in values.items()}
