"""Trace a module with torch's exporters, and say in one line why one cannot be traced."""

import logging
import re
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.nn.attention import SDPBackend, sdpa_kernel

from sn6.errors import UserError, first_line

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

ADVICE = "give the checkpoint itself, or change the network"
OPERATOR = re.compile(r"op='([\w.:]+)'|(?:operator |function )?((?:aten|torchvision|\w+)::\w+)")
DATA_DEPENDENT = "GuardOnDataDependentSymNode"  # class of the error of torch
INSTALLED = ("site-packages", "<")


def trace(module: nn.Module, shape: tuple[int, int, int], name: str) -> ExportedProgram:
    """Return a module as a program of any batch size.

    Args:
        module: image (b, c, h, w) → named tensors
        shape: channels, height and width
        name: of its network, for messages

    Raises:
        UserError: it cannot be traced, for example because its control flow depends on the values
    """
    example = torch.zeros(2, *shape)  # of a batch of 1 the exporter would make a constant
    with named_errors(name), torch.no_grad():
        program = torch.export.export(module.eval(), (example,), dynamic_shapes=({0: Dim("batch", min=1)},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def to_onnx(program: ExportedProgram, name: str, inputs: list[str], outputs: list[str]) -> "ONNXProgram":
    """Return a program as ONNX.

    Args:
        program: see `trace`
        name: of its network, for messages
        inputs: names of its inputs
        outputs: names of its outputs

    Raises:
        UserError: an operator has no translation
    """
    # other kernels of attention than the plain one return tensors that some networks (MaxViT) cannot reshape here
    with named_errors(name), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        converted = torch.onnx.export(program, (), dynamo=True, input_names=inputs, output_names=outputs, verbose=False)
    assert converted is not None
    tidy(converted.model.graph)
    return converted


def tidy(graph: Any) -> None:
    """Name the batch, and delete what torch knows of each node: paths of this machine, and half of a small file."""
    for node in graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.shape = value.shape if value.is_graph_output() else None
    for value in (*graph.inputs, *graph.outputs):
        value.shape = type(value.shape)(["batch", *value.shape.dims[1:]])


@contextmanager
def named_errors(network: str) -> Iterator[None]:
    """Turn an error of torch's exporters, of which some are pages long, into one line.

    Args:
        network: name of its class
    """
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()), no_log():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # torch's exporters, and the network's own code
        raise UserError(
            f"{network} cannot be exported: {reason_of(error)}; {ADVICE}",
            kind="failed",
            key="checkpoint",
            value=network,
        ) from None


@contextmanager
def no_log() -> Iterator[None]:
    """Drop the records of loggers: torch's exporters write graphs of the network that they could not trace."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def reason_of(error: Exception) -> str:
    """Return which operator or line of code an exporter cannot translate."""
    chain = list(causes(error))
    for one in chain:
        if "No ONNX function found" in str(one) and (found := OPERATOR.search(str(one))):
            return f"ONNX has no operator for {found[1] or found[2]}"
    if any(type(one).__name__ == DATA_DEPENDENT for one in chain):
        return f"its control flow depends on the values of the image{place_of(chain)}"
    deepest = chain[-1]
    return f"{first_line(deepest)}{place_of(chain)}"


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, then what caused it, and so on."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def place_of(chain: list[BaseException]) -> str:
    """Return the line of a user's or our network in which errors occurred, "" where it is not known."""
    for one in reversed(chain):
        frames = traceback.extract_tb(one.__traceback__)
        own = [frame for frame in frames if not any(text in frame.filename for text in INSTALLED)]
        own = [frame for frame in own if Path(frame.filename).parent != Path(__file__).parent]
        if own:
            return f" ({Path(own[-1].filename).name} line {own[-1].lineno})"
    return ""
