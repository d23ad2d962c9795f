"""Load a network that `sn6 export` has written as ONNX, and compute its outputs by onnxruntime."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from sn6.checkpoints.metadata import CheckpointMetadata, Precision, parse_metadata
from sn6.checkpoints.weights_file import METADATA_KEY
from sn6.data.ground import Ground
from sn6.data.normalization import Statistics
from sn6.data.source import Source
from sn6.errors import UserError, first_line
from sn6.footprints.polygonizer import Polygonizer
from sn6.heads import Heads
from sn6.prediction.trained_network import check_allowed, foreign_classes, load_heads, load_polygonizer

ONNX_SUFFIX = ".onnx"
EXPORT_KEY = "export"  # of the metadata: how the file was exported
INPUT, OUTPUTS = "image", "outputs"  # names in the graph; the outputs are those of all heads before their activation
INSTALL = "pip install 'sn6[export]'"
GPU_PROVIDER = "CUDAExecutionProvider"


@dataclass(frozen=True, eq=False)
class OnnxNetwork:
    """A network in an ONNX file, and how to use it.

    Attributes:
        path: of the file
        session: of onnxruntime, by the type of its device
        heads: maps in its channels
        source: product and bands of its input
        statistics: mean and standard deviation of the normalisation, which the graph contains
        polygonizer: from maps to footprints
        window: edge length of the graph's input and overlap of the windows in pixels
        flips: whether its run averaged the outputs with those of flipped tiles
        digest: of the weights that were exported
        training_area: squares of its training tiles; no squares where they are not known
        precision: of the graph
    """

    path: Path
    session: dict[str, Any]
    heads: Heads
    source: Source
    statistics: Statistics
    polygonizer: Polygonizer
    window: tuple[int, int]
    flips: bool
    digest: str
    training_area: Ground
    precision: ClassVar[Precision] = "32-true"

    def to(self, device: torch.device) -> None:
        """Compute on a device from now on.

        Raises:
            UserError: onnxruntime has no support for it
        """
        check_provider(device.type)
        if device.type == "cuda":
            self.session["cuda"] = start_session(self.path, [(GPU_PROVIDER, {"device_id": device.index or 0})])

    def prepare(
        self, pixels: Sequence[Float32[np.ndarray, "c h w"]], valid: Sequence[Bool[np.ndarray, "h w"]]
    ) -> Float32[np.ndarray, "b c h w"]:
        """Return the input of `forward`: values in the units of the product's files, NaN on nodata.

        Args:
            pixels: bands of each image in decibels, or in the units of an optical product
            valid: whether each pixel is valid
        """
        units = self.source.product.units
        return np.stack([units.from_decibels(*pair) for pair in zip(pixels, valid, strict=True)])

    def forward(self, image: Float32[Tensor, "b c h w"], precision: Precision) -> Float32[Tensor, "b k h w"]:
        """Return the outputs of all heads, before their activation, of what `prepare` has returned.

        Args:
            image: of the size of the window
            precision: 32-true, that of the graph

        Raises:
            UserError: onnxruntime fails, such as for lack of memory
        """
        try:
            (outputs,) = self.session[image.device.type].run([OUTPUTS], {INPUT: image.cpu().numpy()})
        except Exception as error:  # onnxruntime raises its own, which have no common class
            raise UserError(
                f"{self.path}: onnxruntime fails on batch={len(image)} windows of {self.window[0]} pixels "
                f"({first_line(error)}); give a smaller batch=, or device=cpu",
                kind="failed",
                key="batch",
                value=len(image),
            ) from None
        return torch.from_numpy(outputs).to(image.device)


def load_onnx(path: Path, allow: Sequence[str] = ()) -> OnnxNetwork:
    """Load a network that `sn6 export format=onnx` has written.

    Args:
        path: the file
        allow: heads and polygonizers of other packages that its metadata may name; the network is in the graph

    Raises:
        UserError: onnxruntime is not installed; the file cannot be read, is of another program or for Deepness, or
            needs a class that is not allowed
    """
    session = start_session(path, ["CPUExecutionProvider"])
    metadata, export = read_onnx_metadata(session.get_modelmeta().custom_metadata_map, path)
    check_allowed(foreign_classes(metadata), path, allow)
    heads = load_heads(metadata, path)
    check_graph(session, metadata, heads, path)
    assert metadata.window is not None  # the graph has it
    return OnnxNetwork(
        path,
        {"cpu": session},
        heads,
        metadata.to_source(),
        metadata.to_statistics(),
        load_polygonizer(metadata, path),
        (metadata.window, metadata.window_overlap or 0),
        metadata.flips,
        str(export.get("weights_sha256", "")),
        metadata.to_training_area(),
    )


def import_onnxruntime() -> ModuleType:
    """Return onnxruntime.

    Raises:
        UserError: it is not installed
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f"ONNX files need onnxruntime, which cannot be imported ({first_line(error)}); {INSTALL}",
            kind="unavailable",
            key="onnxruntime",
        ) from None
    return onnxruntime


def start_session(path: Path, providers: list[Any]) -> Any:
    """Return the session of onnxruntime for a file, with as many threads as torch has.

    Raises:
        UserError: onnxruntime is not installed, or cannot read the file
    """
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors are reported by the exception
    try:
        return runtime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime raises its own, which have no common class
        raise UserError(
            f"checkpoint={path} is broken, truncated or not an ONNX file ({first_line(error)}); export it again",
            kind="unreadable",
            key="checkpoint",
            value=str(path),
        ) from None


def check_provider(device: str) -> None:
    """Raise a UserError where onnxruntime does not compute on a type of device, cpu or cuda."""
    if device != "cpu" and GPU_PROVIDER not in import_onnxruntime().get_available_providers():
        raise UserError(
            "this onnxruntime computes on the CPU only; set device=cpu, or install onnxruntime-gpu in its place",
            kind="unavailable",
            key="device",
            value=device,
        )


def read_onnx_metadata(properties: dict[str, str], path: Path) -> tuple[CheckpointMetadata, dict[str, Any]]:
    """Return the metadata of a network, and how it was exported.

    Args:
        properties: metadata of the file, by key
        path: for messages

    Raises:
        UserError: another program wrote the file, it is for Deepness, or its metadata is wrong
    """
    if METADATA_KEY not in properties:
        raise UserError(
            f"checkpoint={path} is an ONNX file of another program, without bands, normalisation and threshold; give "
            "a file of `sn6 export`, or a run",
            kind="wrong_data",
            key="checkpoint",
            value=str(path),
        )
    try:
        values = json.loads(properties[METADATA_KEY])
        export = dict(values[EXPORT_KEY])
    except (ValueError, TypeError, KeyError, RecursionError):
        values, export = None, {}
    metadata = parse_metadata(values, path, "checkpoint")
    if export.get("format") != "onnx":
        raise UserError(
            f"checkpoint={path} is for the QGIS plugin Deepness; export the run with format=onnx for sn6",
            kind="wrong_data",
            key="checkpoint",
            value=str(path),
        )
    return metadata, export


def check_graph(session: Any, metadata: CheckpointMetadata, heads: Heads, path: Path) -> None:
    """Raise a UserError unless the input and the outputs of a graph are those of its metadata."""
    shapes = {one.name: list(one.shape)[1:] for one in (*session.get_inputs(), *session.get_outputs())}
    size = [metadata.window, metadata.window]
    expected = {INPUT: [len(metadata.source.bands), *size], OUTPUTS: [heads.channels, *size]}
    for name, shape in expected.items():
        if shapes.get(name) != shape:
            raise UserError(
                f"checkpoint={path}: {name} of the graph has the shape {shapes.get(name)}, but its metadata "
                f"{shape}; export it again",
                kind="mismatch",
                key="checkpoint",
                value=str(path),
            )
