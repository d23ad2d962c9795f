"""The model card of a trained network: README.md with the front matter of the Hugging Face hub."""

from collections.abc import Mapping
from typing import Any

import yaml

from sn6.data.partitions import PARTITIONS
from sn6.exports.exported_run import EXAMPLE_FILE, ExportedRun
from sn6.exports.usage import usage
from sn6.heads import MASK
from sn6.metrics.comparison import BLOCK_SIZE, as_markdown
from sn6.metrics.instances import TOUCHING
from sn6.metrics.scorecard import LEVEL

SCORES = {"F1": "f1", "precision": "precision", "recall": "recall", "pixel IoU": "iou"} | {
    "F1 touching": "touching_f1",
    "F1 alone": "alone_f1",
}  # column → key in metrics.json
UNITS = {"db": "decibels", "power": "power", "amplitude": "amplitude", "dn": "digital numbers"}


def model_card(run: ExportedRun, window: int, repository: str | None = None) -> str:
    """Return the text of the card.

    Args:
        run: the network
        window: edge length in pixels of the images that model.onnx takes
        repository: `owner/name` on the hub, None where the folder is not pushed
    """
    picture = f"![Ground truth and predictions of test tiles]({EXAMPLE_FILE})\n" if has_picture(run) else ""
    sections = {
        f"# {run.name}": [*summary(run), picture],
        "## Scores": scores(run),
        "## Training": training(run),
        "## Input": expected_input(run, window),
        "## Operating point": operating_point(run),
        "## Limits": [f"- {limit}" for limit in limits(run)],
        "## Use": [usage(run, window, repository)],
        "## Licence": [run.data.licence],
    }
    body = "\n\n".join("\n".join([title, "", *lines]).rstrip() for title, lines in sections.items())
    return f"---\n{yaml.safe_dump(front_matter(run), sort_keys=False, allow_unicode=True)}---\n\n{body}\n"


def has_picture(run: ExportedRun) -> bool:
    """Return whether the run left a picture of its predictions."""
    return EXAMPLE_FILE in run.copied.values()


def front_matter(run: ExportedRun) -> dict[str, Any]:
    """Return what the hub reads of a model: licence, library, task, tags and scores (model-index)."""
    data, sensor = run.data, run.metadata.source.product.sensor
    licence = {"license": data.spdx.lower()} if data.spdx else {"license": "other", "license_name": "see-below"}
    tags = ["building-footprints", "semantic-segmentation", "remote-sensing", "sar" if sensor == "radar" else sensor]
    tags += ["simulated-data"] if data.is_simulated else []
    values = {**licence, "library_name": "sn6", "pipeline_tag": "image-segmentation", "tags": [*tags, "onnx"]}
    if not run.metrics:
        return values
    test = run.metrics["test"]
    metrics = [
        {"type": key, "value": test[key], "name": f"polygon {name} at IoU 0.5"}
        for name, key in (("F1", "f1"), ("precision", "precision"), ("recall", "recall"))
    ]
    dataset = {"type": "other", "name": f"{data.name}, {test['scored_on']}"}
    result = {"task": {"type": "image-segmentation"}, "dataset": dataset, "metrics": metrics}
    return values | {"model-index": [{"name": run.name, "results": [result]}]}


def summary(run: ExportedRun) -> list[str]:
    """Return what the network is, in a sentence, and a table of its heads."""
    source = run.metadata.to_source()
    image = "radar" if source.product.sensor == "radar" else "optical"
    heads = run.metadata.to_heads()
    version = f" {run.versions['sn6']}" if run.versions.get("sn6") else ""
    first = (
        f"{run.architecture} with {run.parameters:,} parameters, which maps building footprints in {image} images of "
        f"{source.product.grid:g} m pixels. Trained with sn6{version} on {run.data.name}."
    )
    rows = [["head", "channels", "target", "values"]]
    rows += [[name, str(one.outputs), type(one).__name__, one.activation] for name, one in heads.items()]
    return [first, "", as_markdown(rows)]


def scores(run: ExportedRun) -> list[str]:
    """Return the table of the scores in metrics.json."""
    if not run.metrics:
        return ["Not known: there is no metrics.json beside the weights that this folder was made from."]
    test, validation = run.metrics["test"], run.metrics["validation"]
    tiles = str(test["scored_on"])
    parts = {tiles: test} | {f"{tiles}: {name}": part for name, part in test.get("classes", {}).items()}
    parts |= {f"{tiles}: all looks fused": test["revisits"]} if "revisits" in test else {}
    parts |= {"validation tiles" if "validation" in tiles else "validation tiles, which chose the epoch": validation}
    rows = [["scored on", "tiles", *SCORES], *(score_row(name, part) for name, part in parts.items())]
    lines = [as_markdown(rows)]
    if run.interval:
        low, high = run.interval
        lines += [
            f"{LEVEL:.0%} interval of the F1 on the {tiles}: {low:.3f} to {high:.3f}, by resampled squares of "
            f"{BLOCK_SIZE:g} m of ground."
        ]
    else:
        lines += [f"No interval of the F1: it needs the tiles in two or more squares of {BLOCK_SIZE:g} m of ground."]
    if oracle := test.get("oracle"):
        lines += ["", f"Upper bound of the F1, from the ground-truth mask: {oracle['f1']:.3f}."]
    return [
        *lines,
        "",
        "F1, precision and recall are those of polygons that overlap a building by an IoU of 0.5 or more; touching are "
        f"buildings within {TOUCHING:g} m of another, alone all others.",
    ]


def score_row(name: str, part: Mapping[str, Any]) -> list[str]:
    """Return a row of the table of scores; a score that an older version did not compute is left empty."""
    numbers = [f"{part[key]:.3f}" if part.get(key) is not None else "" for key in SCORES.values()]
    return [name, str(part.get("tiles", "")), *numbers]


def training(run: ExportedRun) -> list[str]:
    """Return what the network was trained on and from."""
    metadata, tiles = run.metadata, run.metrics.get("data", {}).get("tiles", {})
    lines = [f"- data: {run.data.name}, product {metadata.source.product.name}"]
    if tiles:
        lines += ["- tiles: " + ", ".join(f"{number} {use}" for use, number in tiles.items())]
    for name, other in run.metrics.get("data", {}).get("further", {}).items():
        lines += [f"- further data: {name}, {other['tiles']} tiles, weight {other['weight']:g}"]
    if metadata.fold is not None:
        noun = PARTITIONS[metadata.partition].noun
        lines += [
            f"- partition: `{metadata.partition}`, {noun} {metadata.fold} validated "
            f"(`data.partition={metadata.partition} data.fold={metadata.fold}`)"
        ]
    if metadata.epoch is not None:
        chosen = f", chosen by {metadata.selected_by}" if metadata.selected_by else ""
        lines += [f"- epoch: {metadata.epoch} (the first is 0){chosen}"]
    lines += [f"- start: {starting_point(run.config)}"] if run.config else []
    return lines


def starting_point(config: Mapping[str, Any]) -> str:
    """Return what the weights were before the training."""
    model, handoff = config["model"], config["callbacks"].get("sar_handoff") or {}
    if handoff.get("weights"):
        return "weights of another training (`callbacks.sar_handoff.weights`)"
    if model.get("weights"):
        return "weights of another training (`model.weights`)"
    return f"`model.pretrained={model['pretrained']}`" if model.get("pretrained") else "random"


def expected_input(run: ExportedRun, window: int) -> list[str]:
    """Return the bands of the network in their order, their units and normalisation, and how images have to lie."""
    metadata = run.metadata
    source = metadata.source
    product = metadata.to_source().product
    unit = UNITS[product.units.name] if product.sensor == "radar" else f"counts ({product.dtype})"
    learned = "dB" if product.sensor == "radar" else "counts"
    rows = [["channel", "band", "mean", "standard deviation"]]
    rows += [
        [str(number), name, f"{mean:.6g} {learned}", f"{std:.6g} {learned}"]
        for number, (name, mean, std) in enumerate(
            zip(product.band_names(source.bands), metadata.mean, metadata.std, strict=True), start=1
        )
    ]
    lines = [as_markdown(rows), f"- values: {unit}, float32 in `model.onnx`, normalised by the network itself"]
    if product.units.name != "db":
        lines += [f"- decibels: scale {product.units.scale:g}, offset {product.units.offset:g} dB"]
    nodata = "only what the file declares" if product.nodata is None else f"{product.nodata:g} in all bands"
    lines += [
        f"- pixel size: {product.grid:g} m",
        f"- nodata: {nodata}",
        f"- windows: {window} pixels in `model.onnx`, any number at a time",
    ]
    if product.sensor == "radar":
        direction = (
            "the sensor is beyond the upper edge; rotate images from the south by 180° (`rotate=true`), and the "
            "result back"
        )
        lines += [f"- look direction: {direction if source.orient else 'any, as the images lie'}"]
    return lines


def operating_point(run: ExportedRun) -> list[str]:
    """Return how footprints are made from the maps."""
    rows = [["key", "value"], *([key, str(value)] for key, value in run.metadata.footprints.items())]
    calibrated = run.metrics.get("operating_point", {}).get("calibrated_on")
    if not calibrated:
        return [as_markdown(rows), "Not calibrated: the values of the config."]
    return [
        as_markdown(rows),
        f"Calibrated on the {calibrated}, each half of which is itself scored at the point that the other half chose.",
    ]


def limits(run: ExportedRun) -> list[str]:
    """Return what the network was not trained for or not tested on."""
    source, test = run.metadata.to_source(), run.metrics.get("test", {})
    lines = []
    if run.data.is_simulated:
        lines += ["Trained and scored on simulated images: how well it maps real ones is not known."]
    if set(run.metadata.heads) == {MASK}:
        lines += ["Buildings that touch become one footprint: its only head is the mask."]
    if "also chose the epoch" in str(test.get("scored_on")):
        lines += ["The tiles of the score have also chosen the epoch: it is an optimistic one."]
    if note := run.metrics.get("weights", {}).get("note"):
        lines += [f"The weights that it started from: {note}."]
    lines += [
        f"Tested only on tiles of the data above: not on other places, seasons, sensors, bands ({sensor_of(run)}) or "
        f"pixel sizes than {source.product.grid:g} m."
    ]
    if source.min_area:
        lines += [f"Buildings of less than {source.min_area:g} m² were left out of the training."]
    return lines


def sensor_of(run: ExportedRun) -> str:
    """Return sensor and bands in words."""
    return f"{run.metadata.source.product.sensor}: {', '.join(run.metadata.to_source().band_names)}"
