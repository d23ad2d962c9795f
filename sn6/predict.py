"""`python -m sn6.predict checkpoint=... root=... out=...`: footprints of radar tiles, or of any GeoTIFF."""

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sn6.cli import run_command
from sn6.datasets.layout import Split
from sn6.errors import UserError

UNFINISHED = "unfinished"  # the folder of what is not done yet

if TYPE_CHECKING:  # heavy, and --help does without
    from sn6.prediction.images import Image
    from sn6.prediction.networks import TrainedNetwork
    from sn6.prediction.workers import Plan


def predict(
    checkpoint: Annotated[
        Path | list[Path], "a .ckpt, weights.safetensors or a run's folder; of a list [a,b] the logits are averaged"
    ],
    out: Annotated[Path, "folder to write: empty, or of the same prediction, which goes on where it stopped"],
    root: Annotated[Path | None, "an archive, or images="] = None,
    split: Annotated[Split, "of the archive: train or test_public"] = "test_public",
    tiles: Annotated[list[str | int] | str | int | None, "of the archive, image ids or numbers; null is all"] = None,
    images: Annotated[Path | None, "a GeoTIFF of any size or a folder of them, with the product's bands"] = None,
    turn: Annotated[bool, "images= were taken from the south, and are turned by 180° for the network"] = False,
    window: Annotated[PositiveInt | None, "pixels of a window's side; null is the run's, or 1024"] = None,
    overlap: Annotated[
        NonNegativeInt | None, "pixels that windows share at least; null is the run's, or a quarter of it"
    ] = None,
    flips: Annotated[bool, "average with the image flipped left to right"] = False,
    scales: Annotated[tuple[PositiveFloat, ...], Field(min_length=1), "average over these factors on the size"] = (
        1.0,
    ),
    batch: Annotated[PositiveInt, "windows at a time"] = 1,
    precision: Annotated[Literal["32-true", "bf16-mixed", "16-mixed"] | None, "null is the run's"] = None,
    device: Annotated[str, "auto, cpu, cuda or cuda:1"] = "auto",
    devices: Annotated[PositiveInt, "how many of them, a process each"] = 1,
    processes: Annotated[PositiveInt, "of each device: on a GPU some read and write while one computes"] = 1,
    threshold: Annotated[
        float | None, Field(gt=0, lt=1), "probability; a pixel above it is building; null is the checkpoint's"
    ] = None,
    min_area: Annotated[NonNegativeFloat | None, "m²; null is the checkpoint's"] = None,
    simplify: Annotated[NonNegativeFloat | None, "m, tolerance of the outlines; null is the checkpoint's"] = None,
    merge: Annotated[bool, "one footprint a building where tiles overlap, in merged.geojson and .parquet"] = False,
    probability: Annotated[bool, "a GeoTIFF of the probability for each image, in probability/"] = False,
    pictures: Annotated[NonNegativeInt, "how many images to draw, in pictures/"] = 0,
) -> None:
    """Predicts the footprints of buildings: proposals.csv for the challenge, footprints.geojson and .parquet for maps.

    Memory does not grow with the number of images or with their size. The same command goes on where it was stopped.

    Raises:
        UserError: whatever the user can mend
    """
    from sn6.checkpoints.loading import find_weights
    from sn6.checkpoints.run_files import FINAL_WEIGHTS
    from sn6.prediction.networks import OVERLAP, WINDOW, Averaging, common_options, load_all
    from sn6.prediction.output_folder import claim
    from sn6.prediction.workers import Plan, devices_of

    given = checkpoint if isinstance(checkpoint, list) else [checkpoint]
    files = tuple(find_weights(path, "checkpoint", FINAL_WEIGHTS) for path in given)
    networks = load_all(files)
    used = devices_of(device, devices) * processes
    if window is None:
        window, of_run = networks[0].window or (WINDOW, OVERLAP)
        overlap = of_run if overlap is None else overlap
    rule = common_options(networks, files, threshold=threshold, min_area=min_area, simplify=simplify)
    averaging = Averaging(flips, scales, precision or precision_on(used[0], networks[0]))
    found = find_images(root, split, tiles, images, turn, networks[0])
    overlap = window // 4 if overlap is None else overlap
    rasters = out / "probability" if probability else None
    plan = Plan(files, tuple(found), window, overlap, averaging, rule, batch, out / UNFINISHED, rasters)
    plan.mosaic(0).places()  # refuses an overlap that does not go with the window, before the folder is claimed
    settings = settings_of(plan) | {"merge": merge, "pictures": pictures}
    if claim(out, settings):
        print(f"{out} is finished; choose another out= to predict again")
    else:
        warn_of_ground(plan)
        run(plan, used, out, settings, networks[0])
    shutil.rmtree(plan.folder, ignore_errors=True)


def run(plan: "Plan", devices: list[str], out: Path, settings: dict[str, Any], network: "TrainedNetwork") -> None:
    """The work, and the files that are made of it."""
    from sn6.prediction.output_folder import finish
    from sn6.prediction.pictures import draw_pictures
    from sn6.prediction.results import write_footprints, write_merged
    from sn6.prediction.workers import process_all

    started = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    still = not console.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=still) as progress:
        bar = progress.add_task(f"predicting {len(plan.images)} images", total=None)
        process_all(plan, devices, lambda done, total: progress.update(bar, completed=done, total=total))
    result: dict[str, Any] = {"images": len(plan.images), "footprints": write_footprints(out, plan)}
    if settings["merge"]:
        result["merged"] = write_merged(out, plan)
    if settings["pictures"]:
        draw_pictures(out / "pictures", plan, network.source, settings["pictures"])
    result["seconds"] = round(time.monotonic() - started, 1)
    finish(out, settings, result)
    print(f"{result['footprints']} footprints in {result['images']} images, {result['seconds']} s")
    for path in sorted(path for path in out.iterdir() if path.name != UNFINISHED):
        print(f"  {path}")


def find_images(
    root: Path | None, split: Split, tiles: Any, images: Path | None, turn: bool, network: "TrainedNetwork"
) -> "list[Image]":
    """Those of the archive, or the GeoTIFFs.

    Raises:
        UserError: both are given, or none, or options that do not go with one
    """
    from sn6.prediction.images import archive_images, geotiff_images

    if (root is None) == (images is None):
        raise UserError("give one of root= (an archive) and images= (a GeoTIFF or a folder of them)")
    if images is not None:
        if tiles is not None:
            raise UserError("tiles= goes with root=; give images= the files that are meant")
        return geotiff_images(images, network.source, turn)
    if turn:
        raise UserError("turn= goes with images=; the tiles of an archive are turned by its table of orientations")
    assert root is not None
    return archive_images(root, split, network.source, tiles if isinstance(tiles, list | None) else [tiles])


def precision_on(device: str, network: "TrainedNetwork") -> Any:
    """The precision of the run, where the device has it."""
    return "32-true" if device == "cpu" and network.precision == "16-mixed" else network.precision


def settings_of(plan: "Plan") -> dict[str, Any]:
    """All that the result depends on, in plain values."""
    from dataclasses import asdict
    from hashlib import file_digest, sha256

    digests = []
    for path in plan.checkpoints:
        with path.open("rb") as file:
            digests.append(file_digest(file, "sha256").hexdigest())
    return {
        "checkpoint": [str(path.resolve()) for path in plan.checkpoints],
        "checkpoint_sha256": digests,
        "images": len(plan.images),
        "first_image": str(plan.images[0].path.resolve()),
        "images_sha256": sha256(repr(plan.images).encode()).hexdigest(),
        "window": plan.window,
        "overlap": plan.overlap,
        **asdict(plan.averaging),
        **asdict(plan.rule),
        "probability": plan.rasters is not None,
    }


def warn_of_ground(plan: "Plan") -> None:
    """Says what of the images' places differs from what the network was trained on."""
    from sn6.datasets.layout import PIXEL

    first, console = plan.images[0], Console(stderr=True, soft_wrap=True)
    if first.crs is None:
        grid = "pixels, y upwards" if first.pixel == 1 else "the units of the file"
        console.print(f"{first.path} has no CRS: footprints.* are in {grid}, areas are as if pixels were of {PIXEL} m")
    elif abs(first.pixel - PIXEL) > 0.1 * PIXEL:
        console.print(
            f"{first.path} has pixels of {first.pixel:g} m, the network knows {PIXEL} m: resample, or use scales="
        )


if __name__ == "__main__":
    run_command(predict, "sn6.predict")
