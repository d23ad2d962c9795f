"""A folder that has all of a trained network: weights, card, ONNX, scores, an example, and a STAC item."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from sn6.checkpoints.final_weights import write_final_weights
from sn6.checkpoints.run_files import WEIGHTS_FILE
from sn6.checkpoints.weights_file import SUFFIX
from sn6.errors import UserError
from sn6.exports.card import model_card
from sn6.exports.exported_run import ExportedRun
from sn6.exports.stac_item import stac_item
from sn6.files import write_text

Differences: TypeAlias = dict[str, float]
ONNX_FILE, CARD_FILE, ITEM_FILE = "model.onnx", "README.md", "item.json"


def check_empty(out: Path) -> None:
    """Raise a UserError if there is something at the path of a new folder."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(
            f"out={out} is not an empty folder; choose another one, or remove it",
            kind="conflict",
            key="out",
            value=str(out),
        )


def write_model_folder(
    run: ExportedRun, out: Path, window: int, write_onnx: Callable[[Path], Differences], repository: str | None = None
) -> Differences:
    """Write the folder, and return what `write_onnx` does; nothing of it is left where that fails.

    Args:
        run: the network
        out: the folder, new or empty
        window: edge length in pixels of the images that model.onnx takes
        write_onnx: writes the network to a path, and returns the largest difference of each map from the network's
        repository: `owner/name` on the hub for the commands of the card, None where the folder is not pushed

    Raises:
        UserError: the folder is not empty or cannot be written, or the network cannot be exported
    """
    check_empty(out)
    with new_folder(out) as part:
        if run.file.suffix == SUFFIX:
            shutil.copyfile(run.file, part / WEIGHTS_FILE)
        else:
            write_final_weights(run.file, part / WEIGHTS_FILE, "checkpoint")
        for path, name in run.copied.items():
            shutil.copyfile(path, part / name)
        differences = write_onnx(part / ONNX_FILE)
        write_text(part / CARD_FILE, model_card(run, window, repository))
        write_text(part / ITEM_FILE, json.dumps(stac_item(run, window), indent=2) + "\n")
    return differences


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder beside `out`, which becomes `out` when the block succeeds, and is removed otherwise."""
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        os.replace(part, out)  # an empty folder may be replaced
    except OSError as error:
        raise UserError(
            f"cannot write {out} ({error.strerror}); choose another folder",
            kind="unwritable",
            key="out",
            value=str(out),
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
