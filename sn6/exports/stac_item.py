"""The STAC item of a trained network, with the extension for machine learning models (MLM)."""

import json
import re
from typing import Any

import numpy as np
import shapely
from shapely.geometry import mapping

from sn6.checkpoints.metadata import CheckpointMetadata
from sn6.checkpoints.run_files import WEIGHTS_FILE
from sn6.exports.exported_run import EXAMPLE_FILE, ExportedRun
from sn6.formats.writer import WGS84, to_crs
from sn6.heads import CLASSES, MASK, Heads
from sn6.targets.target import Target
from sn6.training.resume import METRICS_FILE
from sn6.training.saved_config import CONFIG_FILE

MLM = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"  # the newest that pystac reads
ANY_TIME = ("1900-01-01T00:00:00Z", "9999-12-31T23:59:59Z")  # as the extension writes an open range
DIMENSIONS = ["batch", "channel", "height", "width"]
SEMANTIC_VERSION = re.compile(r"\d+\.\d+\.\d+(\+[0-9A-Za-z.-]+)?")  # what mlm:framework_version takes
DEGREES = 7  # decimals, about a centimetre


def stac_item(run: ExportedRun, window: int) -> dict[str, Any]:
    """Return the item: the training area and its dates, the network, its input and outputs, the files of the folder.

    Args:
        run: the network
        window: edge length in pixels of the images that model.onnx takes
    """
    start, end = run.dates or ANY_TIME
    hull = training_hull(run.metadata)
    place = {} if hull is None else {"bbox": [round(value, DEGREES) for value in hull.bounds]}
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM],
        "id": identifier(run.name),
        **place,
        "geometry": None if hull is None else json.loads(json.dumps(mapping(hull))),
        "properties": {
            "title": f"Building footprints by {run.architecture}",
            "description": f"{run.architecture}, trained on {run.data.name}. {run.data.licence}",
            "datetime": None,
            "start_datetime": start,
            "end_datetime": end,
            "license": run.data.spdx or "other",
            "gsd": run.metadata.to_source().product.grid,
            "bands": bands(run.metadata),
            **network_properties(run, window),
        },
        "links": [],
        "assets": assets(run),
    }


def identifier(name: str) -> str:
    """Return a name as an identifier: letters, digits, dots, hyphens and underscores."""
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "model"


def training_hull(metadata: CheckpointMetadata) -> shapely.Polygon | None:
    """Return the convex hull of the training tiles in longitude and latitude; None where they are not known."""
    if not metadata.training_area:
        return None
    squares = shapely.box(*np.array(metadata.training_area).T)
    (hull,) = to_crs(np.array([shapely.union_all(squares).convex_hull]), metadata.training_crs, WGS84)
    rounded = shapely.transform(hull.convex_hull, lambda corners: corners.round(DEGREES))
    return shapely.orient_polygons(rounded, exterior_cw=False)


def bands(metadata: CheckpointMetadata) -> list[dict[str, Any]]:
    """Return the bands of the input with their statistics: the fields `bands` of STAC 1.1."""
    source = metadata.to_source()
    unit = {"unit": "dB"} if source.product.sensor == "radar" else {}
    nodata = {} if source.product.nodata is None else {"nodata": source.product.nodata}
    return [
        {"name": name, "data_type": source.product.dtype, **unit, **nodata, "statistics": {"mean": mean, "stddev": std}}
        for name, mean, std in zip(source.band_names, metadata.mean, metadata.std, strict=True)
    ]


def network_properties(run: ExportedRun, window: int) -> dict[str, Any]:
    """Return the properties of the MLM extension."""
    metadata, heads = run.metadata, run.metadata.to_heads()
    torch = str(run.versions.get("torch"))
    version = {"mlm:framework_version": torch} if SEMANTIC_VERSION.fullmatch(torch) else {}
    values = {key: value for key, value in metadata.footprints.items() if key != "_target_"}
    return {
        "mlm:name": f"sn6 {identifier(run.name)}".rstrip("_"),
        "mlm:architecture": run.architecture,
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:framework": "PyTorch",
        **version,
        "mlm:total_parameters": run.parameters,
        "mlm:pretrained": True,
        "mlm:pretrained_source": run.data.name,
        "mlm:input": [model_input(metadata, window)],
        "mlm:output": [model_output(name, target, heads, window) for name, target in heads.items()],
        **({"mlm:hyperparameters": values} if values else {}),
    }


def model_input(metadata: CheckpointMetadata, window: int) -> dict[str, Any]:
    """Return the Model Input Object: values before the normalisation, which the network's files describe."""
    source = metadata.to_source()
    scaling = [
        {"type": "z-score", "mean": mean, "stddev": std} for mean, std in zip(metadata.mean, metadata.std, strict=True)
    ]
    return {
        "name": source.product.name,
        "description": f"{source.product.sensor} image, pixels of {source.product.grid:g} m",
        "bands": source.band_names,
        "input": {
            "shape": [-1, len(source.bands), window, window],
            "dim_order": DIMENSIONS,
            "data_type": "float32",
        },
        "value_scaling": scaling,
        "resize_type": None,
        "pre_processing_function": None,
    }


def model_output(name: str, target: Target, heads: Heads, window: int) -> dict[str, Any]:
    """Return the Model Output Object of a head: its map after the activation."""
    classes: list[dict[str, Any]] = []
    if name == MASK:
        classes = [{"value": 0, "name": "background"}, {"value": 1, "name": "building"}]
    elif name == CLASSES:
        names = ("background", *heads.class_names)
        classes = [{"value": value, "name": identifier(one)} for value, one in enumerate(names)]
    return {
        "name": name,
        "description": f"{type(target).__name__}, {target.activation}",
        "tasks": ["regression" if target.activation == "linear" else "semantic-segmentation"],
        "result": {
            "shape": [-1, target.outputs, window, window],
            "dim_order": DIMENSIONS,
            "data_type": "float32",
        },
        "classification:classes": classes,
        "post_processing_function": None,
    }


def assets(run: ExportedRun) -> dict[str, dict[str, Any]]:
    """Return the files of the folder."""
    named = [{"name": name} for name in run.metadata.to_source().band_names]
    # STAC allows bands among the properties, where the extension wants them, only if an asset has some as well.
    model: dict[str, Any] = {"type": "application/octet-stream", "roles": ["mlm:model", "mlm:weights"], "bands": named}
    described = {
        EXAMPLE_FILE: ("example", "Ground truth and predictions", "image/png", "overview"),
        CONFIG_FILE: ("config", "Config of the training", "application/yaml", "metadata"),
        METRICS_FILE: ("metrics", "Scores", "application/json", "metadata"),
    }
    there = {name: described[name] for name in run.copied.values() if name in described}
    return {
        "weights": {
            "href": f"./{WEIGHTS_FILE}",
            "title": "Weights and metadata, for sn6",
            **model,
            "mlm:artifact_type": "safetensors",
        },
        "onnx": {"href": "./model.onnx", "title": "ONNX", **model, "mlm:artifact_type": "onnx"},
        "card": {"href": "./README.md", "title": "Model card", "type": "text/markdown", "roles": ["metadata"]},
    } | {
        key: {"href": f"./{name}", "title": title, "type": media, "roles": [role]}
        for name, (key, title, media, role) in there.items()
    }
