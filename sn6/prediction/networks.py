"""Load the networks of a prediction, and decide what they have in common."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from statistics import mean
from typing import TypeAlias

import torch

from sn6.checkpoints.folds_file import Folds, read_folds
from sn6.checkpoints.loading import find_weights
from sn6.checkpoints.metadata import Precision
from sn6.checkpoints.run_files import FINAL_WEIGHTS
from sn6.errors import UserError
from sn6.footprints.polygonizer import Polygonizer
from sn6.models.sliding_window import check_overlap
from sn6.precision import is_fast_in_bfloat16
from sn6.prediction.onnx_network import ONNX_SUFFIX, OnnxNetwork, check_provider, load_onnx
from sn6.prediction.trained_network import TrainedNetwork, load_network

# Default window and overlap in pixels. A pixel changes the logits of a U-Net up to 107 pixels away, of a TernausNet
# 184 (with VGG-16: 215), of an FCN or a ResUNet 245; encoders with attention see the whole window.
WINDOW, OVERLAP = 1024, 256
PROGRAM_SUFFIX = ".pt2"  # suffix of exported programs of torch, which are for other programs
Network: TypeAlias = TrainedNetwork | OnnxNetwork


def find_checkpoints(paths: Sequence[Path]) -> tuple[tuple[Path, ...], Folds | None]:
    """Return the files of weights, and the folds where the path is the folder of runs that sn6.score runs= has scored.

    Args:
        paths: of runs or weights, at least one

    Raises:
        UserError: there are no weights, and errors of `read_folds`
    """
    folds = read_folds(paths[0]) if len(paths) == 1 else None
    return folds.checkpoints if folds else tuple(
        find_weights(path, "checkpoint", FINAL_WEIGHTS) for path in paths
    ), folds


def load_any(path: Path, allow: Sequence[str]) -> Network:
    """Load a network from a checkpoint, `weights.safetensors` or an ONNX file; errors of their functions."""
    if path.suffix == PROGRAM_SUFFIX:
        raise UserError(
            f"checkpoint={path} is an exported program, which torch.export.load reads; give the run, its .ckpt or "
            ".safetensors, or export it with format=onnx",
            kind="wrong_data",
            key="checkpoint",
            value=str(path),
        )
    return load_onnx(path, allow) if path.suffix == ONNX_SUFFIX else load_network(path, allow)


def load_networks(paths: Sequence[Path], allow: Sequence[str]) -> list[Network]:
    """Load networks of the same bands and heads.

    Raises:
        UserError: their bands or heads differ, and errors of `load_any`
    """
    networks = [load_any(path, allow) for path in paths]
    first = networks[0].source
    for path, trained in zip(paths, networks, strict=True):
        source = trained.source
        if (source.product, source.bands, source.orient) != (first.product, first.bands, first.orient):
            raise UserError(
                f"checkpoint={path} was trained on bands {list(source.bands)} of {source.product.name} "
                f"(orient={source.orient}), but {paths[0]} on bands {list(first.bands)} of {first.product.name} "
                f"(orient={first.orient}); average networks of the same bands only",
                kind="conflict",
                key="checkpoint",
                value=str(path),
            )
        if trained.heads != networks[0].heads:
            raise UserError(
                f"checkpoint={path} has the heads {', '.join(trained.heads)}, but {paths[0]} has "
                f"{', '.join(networks[0].heads)}, or other fields of their targets; average networks of the same heads "
                "only",
                kind="conflict",
                key="checkpoint",
                value=str(path),
            )
    return networks


def model_id(networks: Sequence[Network]) -> str:
    """Return 12 hexadecimal digits that identify the weights of networks, whatever file they were loaded from."""
    return sha256(" ".join(trained.digest for trained in networks).encode()).hexdigest()[:12]


def common_polygonizer(networks: Sequence[Network], **given: float | None) -> Polygonizer:
    """Return the polygonizer of all networks, with the fields that are given.

    A calibrated field, such as the threshold, is otherwise the mean over the networks: each run chose its own.

    Raises:
        UserError: the networks have different polygonizers, or differ in a field that no calibration changes
    """
    first, *others = [trained.polygonizer for trained in networks]
    options = {name: value for name, value in given.items() if value is not None}
    for other in others:
        if type(other) is not type(first):
            names = f"{type(first).__name__} and {type(other).__name__}"
            raise UserError(
                f"the checkpoints have different polygonizers: {names}; average networks that share one",
                kind="conflict",
                key="checkpoint",
            )
    for name in (name for name in asdict(first) if name not in options):
        values = [getattr(trained.polygonizer, name) for trained in networks]
        if len(set(values)) == 1:
            continue
        if name not in {**first.candidates, **first.refinements}:
            advice = f"give {name}=..." if name in given else "average networks that share it"
            raise UserError(
                f"the checkpoints have different values of {name}: {', '.join(map(str, values))}; {advice}",
                kind="conflict",
                key=name,
            )
        options[name] = mean(values)
    return replace(first, **options)


def averaged_point(networks: Sequence[Network], polygonizer: Polygonizer) -> str | None:
    """Return a line about the operating point of networks whose calibrations chose different ones; None for others."""
    points = list(dict.fromkeys(str(trained.polygonizer) for trained in networks))
    if len(points) == 1:
        return None
    return f"operating point: {polygonizer}; the checkpoints have {' and '.join(points)}"


def window_and_overlap(window: int | None, overlap: int | None, network: Network) -> tuple[int, int]:
    """Return window and overlap in pixels: as given, else of the network's run, else the defaults.

    The default overlap of a given window is a quarter of it.

    Raises:
        UserError: the overlap is not less than the window
    """
    if window is None:
        window, default_overlap = network.window or (WINDOW, OVERLAP)
    else:
        default_overlap = window // 4
    overlap = default_overlap if overlap is None else overlap
    check_overlap(window, overlap)
    return window, overlap


def check_graphs(
    networks: Sequence[Network], window: int, scales: Sequence[float], precision: str, device: str
) -> None:
    """Raise a UserError where a network is an ONNX file, whose window, scale, precision or device is another."""
    for network in networks:
        if not isinstance(network, OnnxNetwork):
            continue
        fixed: dict[str, tuple[object, object]] = {
            "window": (window, network.window[0]),
            "scales": (list(scales), [1.0]),
            "precision": (precision, network.precision),
        }
        for key, (value, needed) in fixed.items():
            if value != needed:
                raise UserError(
                    f"invalid {key}={value}: {network.path} is exported for {key}={needed} only; leave it out or give "
                    f"that, or the run itself as checkpoint=",
                    kind="conflict",
                    key=key,
                    value=value,
                )
        check_provider(torch.device(device).type)


def default_precision(device: str, network: Network) -> Precision:
    """Return the precision of the network's run where the device is faster in it, else 32-true."""
    if network.precision == "bf16-mixed":
        return network.precision if is_fast_in_bfloat16(device) else "32-true"
    return network.precision if device != "cpu" else "32-true"
