"""What a run prints: what it is going to do, and at its end the scores, the files and what to do next."""

import io
import logging
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import Trainer
from rich.console import Console
from rich.table import Table

from sn6.checkpoints.polygonizer import build_polygonizer, field_values
from sn6.data.datamodule import TileDataModule
from sn6.datasets.from_config import open_data_set
from sn6.errors import counted
from sn6.metrics.instances import TOUCHING
from sn6.segmenter import Segmenter, steps_of
from sn6.training.contact_sheet import CONTACT_SHEET
from sn6.training.environment import device_name
from sn6.training.foreign_classes import foreign_classes

WIDTH = 300  # characters, so that no row is cut
FOOTNOTES = (
    "* F1 of the ground-truth mask itself, in which buildings that touch are one",
    f"** F1 of the buildings within {TOUCHING:g} m of another, and of all others",
)
log = logging.getLogger(__name__)


def print_name(name: str, folder: Path) -> None:
    """Print which run starts, and where its files are going to be."""
    log.info("%-10s%s, folder %s", "run", name, shown(folder))


def print_start(trainer: Trainer, segmenter: Segmenter, datamodule: TileDataModule) -> None:
    """Print what is trained on what."""
    fold, parameters = datamodule.fold, sum(one.numel() for one in segmenter.network.parameters())
    used = [("train", fold.train), ("validation", fold.validation), ("test", fold.test), ("dropped", fold.dropped)]
    lines = {
        "devices": f"{trainer.world_size} × {device_name(trainer)}, {trainer.precision}",
        "network": f"{type(segmenter.network).__name__}, {parameters:,} parameters",
        "heads": ", ".join(segmenter.losses.heads),
        "tiles": ", ".join(f"{len(tiles)} {use}" for use, tiles in used),
        "length": planned_training(trainer, datamodule),
    }
    if datamodule.further:
        lines["further"] = "; ".join(
            f"{name}, {counted(len(other.fold.train), 'tile')}, weight {weight:g}"
            for name, (other, weight) in datamodule.further.items()
        )
    log.info("%s", "\n".join(f"{key:<10}{text}" for key, text in lines.items()))


def planned_training(trainer: Trainer, datamodule: TileDataModule) -> str:
    """Return the epochs, steps and crops of a training as text."""
    if trainer.max_epochs == 0:
        return "none, the weights are scored as they are"
    steps = steps_of(trainer, datamodule.batches_per_epoch)
    epochs = f"{counted(trainer.max_epochs, 'epoch')}, " if trainer.max_epochs and trainer.max_epochs > 0 else ""
    crops = datamodule.batch_size * trainer.accumulate_grad_batches
    return f"{epochs}{counted(steps, 'step')} of {counted(crops, 'crop')}"


def print_results(metrics: Mapping[str, Mapping[str, Any]], config: Mapping[str, Any]) -> None:
    """Print the scores of the stages, the files of the last one, and commands to go on with.

    Args:
        metrics: stage, or the name of the run → its metrics.json; those of an older version are left out
        config: of the last stage, resolved
    """
    scored = {name: one for name, one in metrics.items() if "touching_f1" in one.get("test", ())}
    if not scored:
        return
    log.info("\n%s", table_of(scored))
    for one in scored.values():
        if "weights" in one:
            log.warning("model.weights=%s: %s", one["weights"]["file"], one["weights"]["note"])
    last, folder = list(metrics.values())[-1], Path(config["folder"])
    if "test" not in last:
        return
    sheet = folder / CONTACT_SHEET
    point = last["operating_point"]
    polygonizer = build_polygonizer(field_values(point), "operating_point")
    calibration = f", calibrated on {point['calibrated_on']}" if point["calibrated_on"] else ""
    lines = {"footprints": f"{polygonizer}{calibration}", "files": f"{shown(folder)}"}
    lines |= {"pictures": f"{shown(sheet)}"} if sheet.exists() else {}
    log.info("\n%s", "\n".join(f"{key:<12}{text}" for key, text in lines.items()))
    log.info("\nnext:\n%s", "\n".join(f"  {command}" for command in next_commands(last, config)))


def table_of(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table of the scores, a row for each stage."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for column in ("F1", "precision", "recall", "upper bound*", "touching**", "alone**", "tiles"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("scored on", no_wrap=True)
    for name, one in metrics.items():
        test = one["test"]
        scores = (*(test[key] for key in ("f1", "precision", "recall")), test["oracle"]["f1"])
        scores += tuple(test[key] for key in ("touching_f1", "alone_f1"))
        table.add_row(name, *(f"{score:.3f}" for score in scores), str(test["tiles"]), test["scored_on"])
        if fused := test.get("revisits"):
            scores = tuple(fused[key] for key in ("f1", "precision", "recall"))
            scores += (test["oracle"]["f1"], fused["touching_f1"], fused["alone_f1"])
            numbers = (*(f"{score:.3f}" for score in scores), str(fused["tiles"]))
            table.add_row("  all looks", *numbers, f"{fused['looks']:.1f} looks at each")
    console = Console(file=io.StringIO(), width=WIDTH)
    with console.capture() as capture:
        console.print(table, highlight=False)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    return "\n".join([*lines, *FOOTNOTES])


def next_commands(metrics: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Return commands that predict, draw and score with the files of a run, as they are typed in this folder.

    Args:
        metrics: of the last stage
        config: of the last stage, resolved
    """
    folder, out = Path(config["folder"]), Path(config["run_folder"])
    data_set = open_data_set(config["data"])
    product = data_set.product(config["data"]["product"], "data.product").name
    found, has_test_images = data_set.command_keys, data_set.has_product("test_public", product)
    # the ground truth of the archive has more tiles than were scored, which strict leaves out
    strict = {} if metrics["test"]["scored_on"] == "test tiles" else {"strict": "true"}
    foreign = foreign_classes(config)
    allow = {"allow": foreign[0] if len(foreign) == 1 else f"[{','.join(foreign)}]"} if foreign else {}
    proposals = folder / "proposals.csv"
    commands: dict[str, dict[str, Any]] = {
        "predict": {"checkpoint": folder, **found}
        | ({"split": "train"} if "root" in found and not has_test_images else {})
        | {"out": out / "prediction"}
        | allow,
    }
    if root := found.get("root"):
        commands["show"] = {"root": root, "proposals": proposals, "out": out / "tiles"}
        commands["score"] = {"truth": root, "root": root, "proposals": proposals, "out": out / "score.json"} | strict
    else:
        commands["show"] = {"run": folder, "proposals": proposals, "out": out / "tiles"}
        commands["score"] = {"truth": folder, "proposals": proposals, "out": out / "score.json"}
    return [
        " ".join([f"python -m sn6.{name}", *(shlex.quote(f"{key}={shown(value)}") for key, value in options.items())])
        for name, options in commands.items()
    ]


def shown(path: Any) -> Any:
    """Return a path relative to the working folder where it is inside; anything else as it is."""
    if isinstance(path, Path) and path.is_absolute() and path.is_relative_to(Path.cwd()):
        return path.relative_to(Path.cwd())
    return path
