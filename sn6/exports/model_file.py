"""Write a trained network as a file for other programs, checked against the network."""

import json
import warnings
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float32
from torch.export import ExportedProgram

from sn6.checkpoints.loading import installed_version, installed_versions
from sn6.checkpoints.metadata import CheckpointMetadata
from sn6.checkpoints.weights_file import METADATA_KEY
from sn6.errors import UserError, first_line
from sn6.exports.comparison import Maps, RunFile, check_differences, compare
from sn6.exports.deepness import PROBABILITY, DeepnessGraph, as_in_plugin, deepness_metadata
from sn6.exports.graph import Graph, check_names
from sn6.exports.tracing import to_onnx, trace
from sn6.exports.windows import ComparedWindow
from sn6.files import atomic_write
from sn6.heads import MASK
from sn6.prediction.onnx_network import EXPORT_KEY, INPUT, INSTALL, start_session
from sn6.prediction.trained_network import TrainedNetwork

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

Format: TypeAlias = Literal["onnx", "pt2", "deepness"]
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
METADATA_FILE = "sn6.json"  # in an exported program of torch
MAX_BYTES = 2**31 - 2**20  # of an ONNX file, which has to be one message of protobuf


def write_model(
    path: Path,
    trained: TrainedNetwork,
    metadata: CheckpointMetadata,
    name: Format,
    window: int,
    windows: Iterable[ComparedWindow],
) -> dict[str, float]:
    """Write a network as a file, and return the largest difference of each map from the network's.

    Args:
        path: to write; it is not written where a map differs by more than 1e-4
        trained: the network, on the CPU
        metadata: of its checkpoint
        name: of the format
        window: edge length of the graph's input in pixels
        windows: to compare on, of this size

    Raises:
        UserError: the network cannot be exported, a map differs, or the file cannot be written
    """
    require_packages(name)
    check_names(trained)
    graph = DeepnessGraph(trained) if name == "deepness" else Graph(trained)
    network = type(trained.network).__name__
    program = trace(graph, (len(trained.source.bands), window, window), network)
    about = exported_metadata(metadata, name, window, trained.digest)
    try:
        with atomic_write(path) as part:
            if name == "pt2":
                with warnings.catch_warnings(action="ignore"):  # about constants, such as the nodata value
                    torch.export.save(program, part, extra_files={METADATA_FILE: json.dumps(about)})
            else:
                entries = {METADATA_KEY: json.dumps(about)}
                entries |= deepness_metadata(trained, window, window // 4) if name == "deepness" else {}
                save_onnx(part, to_onnx(program, network, [INPUT], output_names(program)), entries)
            differences = compare(trained, open_file(part, name), windows)
            check_differences(differences, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({first_line(error)}); free some space or choose another folder",
            kind="unwritable",
            key=path,
        ) from None
    return differences


def require_packages(name: Format) -> None:
    """Raise a UserError where a package that a format needs is not installed."""
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing and name != "pt2":
        raise UserError(
            f"format={name} needs {', '.join(missing)}; {INSTALL}",
            kind="unavailable",
            key=missing[0],
        )


def exported_metadata(metadata: CheckpointMetadata, name: Format, window: int, digest: str) -> dict[str, Any]:
    """Return the metadata of an exported file: that of its checkpoint, with the window of the graph."""
    versions = installed_versions() | ({} if name == "pt2" else {one: installed_version(one) for one in PACKAGES})
    fixed = {"window": window, "window_overlap": window // 4, "precision": "32-true", "versions": versions}
    values = metadata.model_copy(update=fixed).model_dump(mode="json")
    return values | {EXPORT_KEY: {"format": name, "weights_sha256": digest}}


def output_names(program: ExportedProgram) -> list[str]:
    """Return the names of the tensors that a program returns, in their order."""
    names = program.call_spec.out_spec.context
    assert names is not None
    return list(names)


def save_onnx(path: Path, program: "ONNXProgram", entries: dict[str, str]) -> None:
    """Write an ONNX file with entries in its metadata.

    Raises:
        UserError: it would be larger than an ONNX file in one piece may be
        OSError: the file cannot be written
    """
    size = sum(value.const_value.nbytes for value in program.model.graph.initializers.values() if value.const_value)
    if size > MAX_BYTES:
        raise UserError(
            f"the network has {size / 2**30:.1f} GiB of weights, but an ONNX file has at most 2 GiB; give format=pt2",
            kind="failed",
            key="format",
        )
    program.model.metadata_props.update(entries)
    program.save(path)


def open_file(path: Path, name: Format) -> RunFile:
    """Return a function that computes the maps of an exported file on the CPU."""
    if name == "pt2":
        module = torch.export.load(path).module()

        def run_program(image: Float32[np.ndarray, "b c h w"]) -> Maps:
            with torch.no_grad():
                return {key: tensor.numpy() for key, tensor in module(torch.from_numpy(image)).items()}

        return run_program
    session = start_session(path, ["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]

    def run_onnx(image: Float32[np.ndarray, "b c h w"]) -> Maps:
        return dict(zip(names, session.run(names, {INPUT: image}), strict=True))

    def run_as_plugin(image: Float32[np.ndarray, "b c h w"]) -> Maps:
        return {MASK: run_onnx(as_in_plugin(image))[PROBABILITY][:, 1:]}

    return run_as_plugin if name == "deepness" else run_onnx
