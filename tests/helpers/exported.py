"""Weights of small networks with random values, and what their exported files compute."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sn6.checkpoints.architecture import build_network
from sn6.checkpoints.weights_file import write_weights

MEAN, STD = (31.0, 24.0, 25.5, 29.0), (9.0, 7.5, 8.0, 11.0)
WINDOW = 64
THREE = {
    "mask": {"_target_": "sn6.targets.mask.Mask"},
    "contact": {"_target_": "sn6.targets.contact.Contact"},
    "height": {"_target_": "sn6.targets.height.Height"},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "ternausnet": {"_target_": "sn6.models.ternausnet.TernausNet", "width": 4},
    "unet": {"_target_": "sn6.models.unet.UNet", "width": 4, "batch_norm": True},
    "fcn8s": {"_target_": "sn6.models.fcn.FCN8s", "width": 4},
    "resunet": {"_target_": "sn6.models.resunet.ResUNet", "width": 4},
    "timm": {"_target_": "sn6.models.timm_unet.TimmUNet", "encoder": "test_resnet", "pretrained": None},
}
TINY = {"_target_": "sn6.models.unet.UNet", "width": 4, "depth": 1}  # for what does not depend on the network


def write_random(path: Path, options: dict[str, Any], size: int = WINDOW, **metadata: Any) -> nn.Module:
    """Write a network with random weights as sn6 does, and return it; its outputs have the standard deviation 2."""
    heads = metadata.get("heads", {"mask": THREE["mask"]})
    options = {"in_channels": len(MEAN), "classes": len(heads)} | options
    torch.manual_seed(1)
    network = build_network(options, fetch_pretrained=False)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 2)
    scale_outputs(network.eval(), options["in_channels"], options["classes"], size)
    values = {
        "network": options,
        "source": {"product": "SAR-Intensity", "bands": [1, 2, 3, 4], "orient": True, "min_area": 20.0},
        "mean": list(MEAN),
        "std": list(STD),
        "nodata": "zero",
        "multiple": 32,
        "window": 96,
        "window_overlap": 32,
        "footprints": {"threshold": 0.4},
    }
    write_weights(path, network.state_dict(), values | metadata)
    return network


@torch.no_grad()
def scale_outputs(network: nn.Module, bands: int, classes: int, size: int) -> None:
    """Make the layers of the outputs random, of which an FCN starts with zeros, and their standard deviation 2."""
    last = [one for one in network.modules() if isinstance(one, nn.Conv2d) and one.out_channels == classes]
    for layer in last:
        layer.weight.normal_()
    outputs = network(torch.randn(2, bands, size, size))
    for layer in last:
        layer.weight *= 2 / outputs.std()


def values_of_files(windows: int = 10, seed: int = 0) -> np.ndarray:
    """Return windows (n, 4, w, w) of radar as files have them: 0 in all bands is nodata, as is NaN in one band."""
    random = np.random.default_rng(seed)
    mean, std = (np.array(numbers)[:, None, None] for numbers in (MEAN, STD))
    values = (mean + std * random.standard_normal((windows, 4, WINDOW, WINDOW))).astype(np.float32)
    values[:, :, :20, 10:40] = 0
    values[:, 1, 40, 40:44] = np.nan
    values[:, 2, 50, 3] = np.inf
    values[:, 3, 30:33, 5] = 0  # a value, since the other bands are not 0
    return values


def nodata_of(values: np.ndarray) -> np.ndarray:
    """Return which pixels (n, 1, w, w) of `values_of_files` are nodata."""
    return ~np.isfinite(values).all(axis=1, keepdims=True) | (values == 0).all(axis=1, keepdims=True)


@torch.no_grad()
def outputs_of(network: nn.Module, values: np.ndarray) -> np.ndarray:
    """Normalise values by hand, and return the outputs of a network."""
    mean, std = (np.array(numbers, np.float32)[:, None, None] for numbers in (MEAN, STD))
    with np.errstate(invalid="ignore"):
        normalised = np.where(nodata_of(values), np.float32(0), (values - mean) / std)
    return network(torch.from_numpy(normalised)).numpy()


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values.astype(np.float64)))


def run_file(path: Path, values: np.ndarray) -> dict[str, np.ndarray]:
    """Return the named tensors of an exported file, by onnxruntime or torch alone."""
    if path.suffix == ".pt2":
        with torch.no_grad():
            program = torch.export.load(path).module()
            return {name: tensor.numpy() for name, tensor in program(torch.from_numpy(values)).items()}
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(names, {given.name: values}), strict=True))


def metadata_of(path: Path) -> dict[str, str]:
    """Return the entries of the metadata of an ONNX file."""
    import onnx

    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def parsed_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of sn6 in an exported file."""
    if path.suffix == ".pt2":
        extra = {"sn6.json": ""}
        torch.export.load(path, extra_files=extra)
        return json.loads(extra["sn6.json"])
    return json.loads(metadata_of(path)["sn6"])
