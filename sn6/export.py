"""Write a trained network for other programs: `python -m sn6.export checkpoint=outputs/NAME out=model.onnx`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import PositiveInt

from sn6.cli import run_command
from sn6.errors import UserError
from sn6.progress import phase

if TYPE_CHECKING:  # takes seconds to import, and --help does not need it
    from collections.abc import Iterable

    from sn6.exports.windows import ComparedWindow
    from sn6.prediction.trained_network import TrainedNetwork

FOLDER = "folder"
SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2", "deepness": ".onnx"}
DEFAULT_WINDOW = 512


def export(
    checkpoint: Annotated[Path, "a .ckpt, weights.safetensors, a run's folder or hf://owner/name"],
    out: Annotated[Path, "file to write, .onnx or .pt2; with format=folder a new or empty folder"],
    format: Annotated[
        Literal["onnx", "pt2", "deepness", "folder"] | None,
        "onnx; pt2: a program of torch.export; deepness: ONNX for the QGIS plugin Deepness; folder: weights, model "
        "card, ONNX, scores and STAC item; null is that of the suffix",
    ] = None,
    window: Annotated[
        PositiveInt | None,
        "edge length in pixels of the images that the file takes, and of the windows of sn6.predict; null is 512, or "
        "the largest size below it that the network takes",
    ] = None,
    allow: Annotated[
        list[str] | str | None,
        "PACKAGE.CLASS of networks that are not part of sn6, which checkpoint= may import",
    ] = None,
    root: Annotated[Path | None, "archive whose training tiles the file is compared on; or set images="] = None,
    images: Annotated[
        list[str] | str | None,
        "images that the file is compared on: a folder, a pattern, files or addresses; null without root=: random "
        "values of the mean and standard deviation of the training images",
    ] = None,
    push: Annotated[
        str | None, "owner/name of a repository of the Hugging Face hub to upload the folder to, of format=folder"
    ] = None,
    private: Annotated[bool, "whether only its owner sees a repository that push= makes"] = True,
) -> None:
    """Write a trained network as one file that other programs run; sn6.predict reads that of format=onnx.

    format=folder writes a folder with such a file, which sn6.predict reads too: to keep, to share, to push.

    The file takes the values of image files. Units, nodata, normalisation and activation are in it, and it gives a map
    for each head, and its metadata has bands, units, pixel size and operating point. Before it is there, it is compared
    with the network on ten windows.

    Raises:
        UserError: invalid input, a network that cannot be exported, or that gives other values when it is
    """
    from sn6.exports.deepness import LIMITS
    from sn6.exports.exported_run import read_exported_run
    from sn6.exports.graph import graph_window
    from sn6.exports.hub import push_folder
    from sn6.exports.model_file import require_packages, write_model
    from sn6.exports.model_folder import ONNX_FILE, write_model_folder
    from sn6.prediction.trained_network import load_with_metadata

    if format == FOLDER or push is not None:
        check_folder_options(out, format, push)
    name = "onnx" if format == FOLDER else format_of(out, format)
    require_packages(name)
    allowed = (allow,) if isinstance(allow, str) else tuple(allow or ())
    file = single_checkpoint(checkpoint)
    trained, metadata = load_with_metadata(file, allowed)
    size = graph_window(trained, window, DEFAULT_WINDOW)
    windows, place = compared_windows(trained, size, root, images)

    def write(path: Path) -> dict[str, float]:
        return write_model(path, trained, metadata, name, size, windows)

    written = out / ONNX_FILE if format == FOLDER else out
    with phase(f"exporting {type(trained.network).__name__}"):
        if format == FOLDER:
            parameters = sum(one.numel() for one in trained.network.parameters())
            run = read_exported_run(file, metadata, parameters)
            differences = write_model_folder(run, out, size, write, push)
        else:
            differences = write(out)
    print(f"{written}, {written.stat().st_size / 1e6:.1f} MB: window {size} pixels; largest difference on {place}:")
    for head, difference in differences.items():
        print(f"  {head:<12} {difference:.1e}")
    if name == "deepness":
        print(LIMITS)
    if format == FOLDER:
        print(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    if push is not None:
        with phase(f"pushing to {push}"):
            address = push_folder(out, push, private)
        print(address)


def single_checkpoint(checkpoint: Path) -> Path:
    """Return the file of weights of a checkpoint.

    Raises:
        UserError: there is none, or it is the folder of several runs
    """
    from sn6.prediction.networks import find_checkpoints

    (file, *others), _ = find_checkpoints([checkpoint])
    if others:
        raise UserError(
            f"checkpoint={checkpoint} is the folder of {1 + len(others)} runs, but a file has one network; give one of "
            f"them, such as {file}",
            kind="invalid_value",
            key="checkpoint",
            value=str(checkpoint),
        )
    return file


def check_folder_options(out: Path, format: str | None, push: str | None) -> None:
    """Raise a UserError for a folder that is not empty, or a push that cannot succeed: before the work.

    Args:
        out: what is to be written
        format: of it
        push: repository, None where nothing is pushed
    """
    from sn6.exports.hub import check_push
    from sn6.exports.model_folder import check_empty

    if format != FOLDER:
        raise UserError(
            f"push={push} uploads a folder; set format={FOLDER}, or leave push= out",
            kind="conflict",
            key="push",
            value=push,
        )
    check_empty(out)
    if push is not None:
        check_push(push)


def format_of(out: Path, name: str | None) -> Literal["onnx", "pt2", "deepness"]:
    """Return the format as given, or by the suffix of the file.

    Raises:
        UserError: the suffix is of another format
    """
    suffix = out.suffix.lower()
    for one in ("onnx", "pt2", "deepness"):
        if suffix == SUFFIXES[one] and name in (None, one):
            return one
    expected = SUFFIXES[name] if name else f"{SUFFIXES['onnx']} or {SUFFIXES['pt2']}; format={FOLDER} writes a folder"
    raise UserError(
        f"invalid out={out}: {'' if name is None else f'a file of format={name} '}ends in {expected}",
        kind="invalid_value",
        key="out",
        value=str(out),
    )


def compared_windows(
    trained: "TrainedNetwork", size: int, root: Path | None, images: list[str] | str | None
) -> "tuple[Iterable[ComparedWindow], str]":
    """Return the windows on which a file is compared, and a text that says what they are.

    Raises:
        UserError: both root= and images= are given, or there are no such images
    """
    from sn6.exports.windows import COUNT, random_windows, windows_of_images
    from sn6.prediction.inputs import find_images
    from sn6.prediction.raster_images import ReadOptions

    if root is None and images is None:
        return random_windows(trained.statistics, trained.source, size), f"{COUNT} windows of random values"
    files = (images,) if isinstance(images, str) else None if images is None else tuple(images)
    found = find_images(root, "train", None, files, trained.source, ReadOptions())
    return windows_of_images(found, trained.source, size), f"{COUNT} windows of {root or images}"


if __name__ == "__main__":
    run_command(export, "sn6.export")
