"""Predict building footprints: `python -m sn6.predict checkpoint=... root=... out=...`, or any images by `images=`."""

import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from rich.console import Console

from sn6.cli import run_command
from sn6.datasets.declaration import Split
from sn6.datasets.radar_units import UnitName
from sn6.errors import UserError, counted
from sn6.prediction.slurm import DEFAULT_OPTIONS, SlurmOptions
from sn6.processes import start_server


def predict(
    checkpoint: Annotated[
        Path | list[Path],
        "a .ckpt, weights.safetensors, an .onnx of sn6.export, a run's folder or hf://owner/name; a list [a,b] "
        "averages their outputs before the activation, as does the folder of several folds that sn6.score runs= has "
        "scored",
    ],
    out: Annotated[Path, "folder to write: empty, or that of the same prediction, to resume it"],
    allow: Annotated[
        list[str] | str | None,
        "PACKAGE.CLASS of networks that are not part of sn6, which checkpoint= may import",
    ] = None,
    root: Annotated[Path | None, "archive to predict; or set images="] = None,
    split: Annotated[Split, "split of the archive: train or test_public"] = "test_public",
    tiles: Annotated[list[str] | str | None, "image ids or numbers of tiles of the archive; null is all"] = None,
    images: Annotated[
        list[str] | str | None,
        "images of any size: a folder, which is searched recursively for GeoTIFFs, a pattern, files, or addresses that "
        "GDAL opens; a list [a,b] of these",
    ] = None,
    bands: Annotated[
        list[str] | str | None,
        "numbers or names of the bands of images=, in the order of the network's; null: by their names where the files "
        "have them, else by their order",
    ] = None,
    units: Annotated[
        UnitName | None, "of images=: db, power, amplitude or dn; null is those of the training images"
    ] = None,
    scale: Annotated[
        float | None, Field(gt=0, allow_inf_nan=False), "factor of the values of images=, before the logarithm"
    ] = None,
    offset: Annotated[float | None, Field(allow_inf_nan=False), "dB that are added to the values of images="] = None,
    nodata: Annotated[
        float | None,
        Field(allow_inf_nan=False),
        "pixels of images= with this value in all bands have no data; null is that of the training images",
    ] = None,
    aoi: Annotated[Path | None, "polygon layer of the ground to predict; null is all of the images"] = None,
    rotate: Annotated[
        bool | list[str],
        "rotate the images= by 180° for the network, because they were imaged from the south: true for all of them, or "
        "names or patterns of some, [a,*_south*]",
    ] = False,
    check_values: Annotated[
        bool, "refuse values and band names that differ from those that the network was trained on"
    ] = True,
    window: Annotated[PositiveInt | None, "edge length of a window in pixels; null is the run's, or 1024"] = None,
    overlap: Annotated[
        NonNegativeInt | None, "minimum overlap of windows in pixels; null is the run's, or a quarter of window="
    ] = None,
    flips: Annotated[
        bool | None, "average the outputs with those of the flipped image (left to right); null is the run's"
    ] = None,
    scales: Annotated[
        tuple[PositiveFloat, ...], Field(min_length=1), "scale factors of the image, whose outputs are averaged"
    ] = (1.0,),
    batch: Annotated[PositiveInt, "windows per forward pass"] = 1,
    precision: Annotated[
        Literal["32-true", "bf16-mixed", "16-mixed"] | None,
        "32-true, bf16-mixed or 16-mixed; null is the run's, or 32-true where the device is not faster in it",
    ] = None,
    device: Annotated[str, "auto, cpu, cuda or cuda:N"] = "auto",
    devices: Annotated[PositiveInt, "number of devices; each has its own process"] = 1,
    processes: Annotated[PositiveInt, "processes per device: on a GPU, some read and write while one computes"] = 1,
    threshold: Annotated[
        float | None, Field(gt=0, lt=1), "probability; a pixel above it is building; null is the checkpoint's"
    ] = None,
    min_area: Annotated[NonNegativeFloat | None, "minimum area in m²; null is the checkpoint's"] = None,
    simplify: Annotated[NonNegativeFloat | None, "tolerance of the outlines in m; null is the checkpoint's"] = None,
    fill_holes: Annotated[NonNegativeFloat | None, "m²: smaller holes are filled; null is the checkpoint's"] = None,
    opening: Annotated[
        NonNegativeFloat | None,
        "radius in m of a disc that removes spikes and bridges narrower than it; null is the checkpoint's",
    ] = None,
    regularize: Annotated[
        bool, "right angles and angles of 45° along the main direction of each building, shared walls stay shared"
    ] = False,
    merge: Annotated[
        bool | None,
        "write one footprint per building of overlapping images, to merged.*; null: where images= overlap",
    ] = None,
    revisits: Annotated[
        bool, "fuse images that overlap on the ground: footprints are made from the mean of all looks at a pixel"
    ] = False,
    fade: Annotated[
        float,
        Field(ge=0, allow_inf_nan=False),
        "m over which the weight of a look falls to 0 towards the border of its image and nodata, with revisits=true",
    ] = 16.0,
    balance: Annotated[bool, "looks from the north and from the south count equally in all, with revisits=true"] = True,
    register: Annotated[
        bool, "move images by up to 3 m onto the mean of the others before they are fused, with revisits=true"
    ] = False,
    formats: Annotated[
        list[str] | str | None,
        "formats of the footprints: [csv,gpkg,geojson,parquet,fgb]; null: gpkg and geojson, of root= csv too",
    ] = None,
    wgs84: Annotated[
        bool, "write the GeoJSON in longitude and latitude (RFC 7946), not in the CRS of the images"
    ] = False,
    probability: Annotated[
        bool | list[str],
        "write a Cloud Optimized GeoTIFF of the probability for each image, to probability/; a list [mask,contact] of "
        "heads has a band for each",
    ] = False,
    pictures: Annotated[NonNegativeInt, "number of images to draw, to pictures/"] = 0,
    yes: Annotated[bool, "predict more than 20,000 megapixels, which take hours on a GPU and days on a CPU"] = False,
    cluster: Annotated[
        Literal["slurm"] | None,
        "slurm: predict in jobs of this cluster; device=, devices=, processes= and batch= are those of each job",
    ] = None,
    jobs: Annotated[PositiveInt | None, "with cluster=slurm: largest number of jobs; null is 1"] = None,
    slurm: SlurmOptions = DEFAULT_OPTIONS,
) -> None:
    """Predict building footprints: footprints.gpkg and .geojson for GIS, proposals.csv for the challenge.

    checkpoint=outputs/NAME, the folder of runs of different folds, averages the outputs of their networks, at the
    operating point that `python -m sn6.score runs=outputs/NAME` has calibrated on their out-of-fold tiles.

    Memory does not grow with the number or the size of the images. The same command resumes a stopped prediction.
    cluster=slurm jobs=N deals the images out to jobs of a cluster, waits for them and joins what they have written.

    Raises:
        UserError: invalid input
    """
    if cluster is None and devices * processes > 1:
        start_server("sn6.prediction.workers")

    from sn6.formats.files import check_formats
    from sn6.heads import MASK
    from sn6.prediction.area import restrict
    from sn6.prediction.computers import find_computer
    from sn6.prediction.ensemble import Averaging
    from sn6.prediction.estimate import check_size
    from sn6.prediction.fused_sides import check_sides
    from sn6.prediction.fusion import Fusion
    from sn6.prediction.inputs import find_images
    from sn6.prediction.map_grid import Layout, overlap_on_ground
    from sn6.prediction.networks import (
        averaged_point,
        check_graphs,
        common_polygonizer,
        find_checkpoints,
        load_networks,
        model_id,
        window_and_overlap,
    )
    from sn6.prediction.output_folder import UNFINISHED, claimed_folder, mark_finished
    from sn6.prediction.plan import Plan
    from sn6.prediction.raster_images import ReadOptions, given_units, placement_notes
    from sn6.prediction.rasters import band_names
    from sn6.prediction.results import Products, check_products, registration_note, write_results
    from sn6.prediction.slurm import check_cluster
    from sn6.prediction.value_check import compare_values

    if register and not revisits:
        raise UserError(
            "register=true moves images that are fused; set revisits=true, or leave register=true out",
            kind="conflict",
            key="register",
        )
    check_cluster(cluster, jobs, slurm)
    started = time.monotonic()
    paths = checkpoint if isinstance(checkpoint, list) else [checkpoint]
    files, folds = find_checkpoints(paths)
    allowed = as_tuple(allow) or ()
    networks = load_networks(files, allowed)
    first = networks[0]
    flips = first.flips if flips is None else flips
    computer = find_computer(jobs or 1 if cluster else None, slurm, device, devices, processes)
    product = first.source.product
    rotated = rotate if isinstance(rotate, bool) else tuple(rotate)
    options = ReadOptions(rotated, as_tuple(bands), check_values, given_units(product, units, scale, offset), nodata)
    found = find_images(root, split, as_tuple(tiles), as_tuple(images), first.source, options)
    found = found if aoi is None else restrict(found, aoi)
    is_fused = revisits and bool(Layout(tuple(found)).maps)
    register = register and is_fused
    raster_maps = tuple(probability) if isinstance(probability, list) else (MASK,) if probability else ()
    band_names(first.heads, raster_maps)
    default_formats = ("gpkg", "geojson") if root is None else ("csv", "gpkg", "geojson")
    written = check_formats(default_formats if formats is None else as_tuple(formats) or ())
    products = Products(written, wgs84, pictures, model_id(networks))
    if merge is None:
        merge = root is None and bool(products.on_ground) and overlap_on_ground(found)
    check_products(products, found, merge)
    fields = {
        "threshold": threshold,
        "min_area": min_area,
        "simplify": simplify,
        "fill_holes": fill_holes,
        "opening": opening,
    }
    plan = Plan(
        files,
        allowed,
        tuple(found),
        *window_and_overlap(window, overlap, first),
        Averaging(flips, scales, precision or computer.precision(first)),
        folds.polygonizer(first.polygonizer, **fields) if folds else common_polygonizer(networks, **fields),
        batch,
        out / UNFINISHED,
        out / "probability" if raster_maps else None,
        first.heads.class_names,
        Fusion(fade, balance) if is_fused else None,
        merge,
        register,
        raster_maps,
        regularize,
    )
    check_graphs(networks, plan.window, scales, plan.averaging.precision, computer.device)
    check_size(plan, first.heads, yes, keeps_all=register or (is_fused and cluster is not None))
    if is_fused and root is not None:
        check_sides(plan.layout, [network.training_area for network in networks])
    warnings: list[str | None] = [*placement_notes(found, product)]
    if revisits and not is_fused:
        warnings.append("revisits=true changes nothing: no two images overlap on the ground")
    warnings += [compare_values(found, networks) if check_values else None]
    warnings += [folds.averaging_warning(flips, scales) if folds else averaged_point(networks, plan.polygonizer)]
    settings = plan.settings() | asdict(products)
    with claimed_folder(out, settings) as is_finished:
        if not is_finished:
            for warning in filter(None, warnings):
                Console(stderr=True, soft_wrap=True).print(warning, markup=False, highlight=False)
            computer.process(plan)
            counts = write_results(out, plan, products, first.source)
            seconds = round(time.monotonic() - started, 1)
            if plan.rounds:
                Console(stderr=True, soft_wrap=True).print(registration_note(plan), markup=False, highlight=False)
            mark_finished(out, settings, counts | {"seconds": seconds})
    shutil.rmtree(plan.folder, ignore_errors=True)
    if is_finished:
        print(f"{out} is finished; choose another out= to predict again")
    else:
        print(f"{counted(counts['footprints'], 'footprint')} in {counted(counts['images'], 'image')}, {seconds} s")
        for path in sorted(out.iterdir()):
            print(f"  {path}")


def as_tuple(value: list[str] | str | None) -> tuple[str, ...] | None:
    """Return the texts of an option that takes one or a list; None where it is not given."""
    return (value,) if isinstance(value, str) else None if value is None else tuple(value)


if __name__ == "__main__":
    run_command(predict, "sn6.predict")
