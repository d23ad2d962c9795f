"""Test that `sn6.check` finds each fault planted in an archive, names its file, and finds none in a clean archive."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from helpers.commands import assert_fails
from helpers.handmade import folder
from rasterio.transform import Affine, from_origin

from sn6.data.datamodule import TileDataModule
from sn6.data.folds import bounds_of
from sn6.data.normalization import measure_statistics
from sn6.data.partitions import PARTITIONS
from sn6.data.source import Source
from sn6.datasets.spacenet6 import PRODUCTS, SpaceNet6
from sn6.errors import UserError
from sn6.inspection.archive import inspect_archive
from sn6.inspection.faults import FATAL, WARNINGS
from sn6.inspection.folds import make_folds
from sn6.inspection.maps import partition_figure
from sn6.simulate import simulate

LABELS = "SummaryData/SN6_Train_AOI_11_Rotterdam_Buildings.csv"


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A small simulated archive, read-only."""
    root = tmp_path_factory.mktemp("clean") / "root"
    simulate(root, tiles=6, test_tiles=2, size=128, seed=1)
    return root


@pytest.fixture
def root(clean, tmp_path):
    """A copy to break."""
    return shutil.copytree(clean, tmp_path / "root")


def images(root, product="SAR-Intensity"):
    return sorted((folder(root) / product).glob("*.tif"))


def id_of(path):
    return "_".join(path.stem.split("_")[-4:])


def rewrite(path, pixels=None, **profile):
    """The same GeoTIFF with other pixels or another header."""
    with rasterio.open(path) as source:
        values, header = source.read() if pixels is None else pixels, source.profile
    header |= {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype}
    path.unlink()
    with rasterio.open(path, "w", **(header | profile)) as target:
        target.write(values)


def pixels_of(path):
    with rasterio.open(path) as source:
        return source.read()


def relabel(root, image_id, *polygons):
    """Other rows of a tile in the labels' CSV; none at all without polygons."""
    path = folder(root) / LABELS
    rows = [line for line in path.read_text().splitlines() if not line.startswith(image_id)]
    path.write_text("\n".join([*rows, *(f'{image_id},{i},"{p}",5,5,1' for i, p in enumerate(polygons))]) + "\n")


def geojson(root, image_id):
    return folder(root) / f"geojson_buildings/SN6_Train_AOI_11_Rotterdam_Buildings_{image_id}.geojson"


def square(x, y, side=20):
    return f"POLYGON (({x} {y}, {x + side} {y}, {x + side} {y + side}, {x} {y + side}, {x} {y}))"


def faults_of(root):
    return {(fault.kind, fault.where) for fault in inspect_archive(root, 1).faults}


def test_a_clean_archive_has_no_fault(root):
    assert faults_of(root) == set()


def missing(root):
    path = images(root, "PAN")[2]
    path.unlink()
    return {("missing", id_of(path))}


def unreadable(root):
    path = images(root)[1]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return {("unreadable", str(path))}


def no_geotiff(root):
    path = images(root, "PS-RGB")[1]
    path.write_text("<html>503</html>")
    return {("unreadable", str(path))}


def too_few_bands(root):
    path = images(root)[0]
    rewrite(path, pixels_of(path)[:3])
    return {("bands", str(path))}


def another_type(root):
    path = images(root, "PS-RGBNIR")[0]
    rewrite(path, pixels_of(path).astype(np.float32))
    return {("dtype", str(path))}


def complex_values(root):
    path = images(root)[0]
    rewrite(path, pixels_of(path).astype(np.complex64), predictor=1)
    return {("complex", str(path))}


def twice_the_pixel(root):
    path = images(root)[2]
    with rasterio.open(path) as source:
        rewrite(path, transform=source.transform * Affine.scale(2))
    return {("pixel size", str(path))}


def declared_nodata(root):
    path = images(root)[2]
    pixels = pixels_of(path)
    pixels[:, :9] = -9999
    rewrite(path, pixels, nodata=-9999)
    return {("nodata value", str(path))}


def with_a_mask(root):
    path = images(root, "PAN")[2]
    with rasterio.open(path, "r+") as file:
        file.write_mask(np.arange(128)[:, None].repeat(128, axis=1) > 8)
    return {("mask", str(path))}


def with_a_scale(root):
    path = images(root)[2]
    rewrite(path, pixels_of(path) / 2)
    with rasterio.open(path, "r+") as file:
        file.scales = (2, 2, 2, 2)
    return {("scale", str(path))}


def a_vrt(root):
    path = images(root)[1]
    other = path.with_suffix(".other")
    path.rename(other)
    rasterio.shutil.copy(other, path, driver="VRT")
    return {("unreadable", str(path))}


def to_metres(numbers):
    return f"{float(numbers[1]) + 5e5} {float(numbers[2]) + 5e6}"


def all_labels_in_metres(root):
    """Every footprint is outside its tile; those of the tiles without any are not."""
    path = folder(root) / LABELS
    rows = path.read_text().splitlines()
    moved = [re.sub(r"(\d+\.?\d*) (\d+\.?\d*)", to_metres, row) for row in rows]
    path.write_text("\n".join(moved) + "\n")
    outside = {row.split(",")[0] for row in rows[1:] if "EMPTY" not in row}
    return {("labels misplaced", "train")} | {("labels outside tile", image_id) for image_id in outside}


def no_footprint(root):
    path = folder(root) / LABELS
    header, *rows = path.read_text().splitlines()
    empty = [f"{image_id},-1,POLYGON EMPTY,,," for image_id in sorted({row.split(",")[0] for row in rows})]
    path.write_text("\n".join([header, *empty]) + "\n")
    return {("no buildings", "train")}


def another_crs(root):
    path = images(root)[3]
    rewrite(path, crs="EPSG:32632")
    return {("crs", str(path))}


def another_size(root):
    path = images(root, "RGBNIR")[3]
    rewrite(path, pixels_of(path)[:, :60])
    return {("size", str(path))}


def another_position(root):
    path = images(root, "PS-RGB")[4]
    with rasterio.open(path) as source:
        moved = from_origin(source.bounds.left + 10, source.bounds.top, 0.5, 0.5)
    rewrite(path, transform=moved)
    return {("position", str(path))}


def not_finite(root):
    path = images(root)[2]
    pixels = pixels_of(path)
    pixels[1, 60, 60] = np.nan
    rewrite(path, pixels)
    return {("values", str(path))}


def negative(root):
    path = images(root)[2]
    pixels = pixels_of(path)
    pixels[1, 60, 60] = -3
    rewrite(path, pixels)
    return {("negative", str(path))}


def only_nodata(root):
    path = images(root)[5]
    rewrite(path, pixels_of(path) * 0)
    return {("nodata", str(path))}


def misnamed(root):
    path = images(root, "PAN")[0]
    other = path.with_name(path.name.replace("SN6_Train_", "train_"))
    path.rename(other)
    return {("misnamed", str(other)), ("missing", id_of(path))}


def a_file_twice(root):
    path = images(root)[0]
    other = path.with_name(f"copy of {path.name}")
    shutil.copy(path, other)
    return {("duplicate tile", str(other))}


def a_number_twice(root):
    """Has its own pixels, and neither labels nor an orientation nor the other products."""
    path = images(root)[0]
    other = path.with_name(path.name.replace("_2019", "_2020"))
    shutil.copy(path, other)
    rewrite(other, pixels_of(other) + np.float32(1))
    missing = {("missing", id_of(other)), ("no labels", id_of(other))}
    return {("duplicate tile", str(other)), ("orientation", id_of(other).rpartition("_tile")[0])} | missing


def identical_pixels(root):
    path, other = images(root)[0], images(root)[5]
    rewrite(other, pixels_of(path))
    return {("identical pixels", str(other))}


def broken_csv(root):
    """The GeoJSON files of the tiles are read instead."""
    path = folder(root) / LABELS
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], lines[3].split(",")[0] + ',0,"POLYGON ((1 2, 3",1,1,1', *lines[4:]]))
    return {("labels", str(path))}


def broken_labels_of_a_tile(root):
    image_id = id_of(images(root)[1])
    relabel(root, image_id)
    geojson(root, image_id).write_text('{"type": "FeatureCollection", "features": [')
    return {("labels", str(geojson(root, image_id)))}


def broken_geojson(root):
    image_id = id_of(images(root)[1])
    geojson(root, image_id).write_text('{"type": "FeatureCollection", "features": [')
    return {("geojson", str(geojson(root, image_id)))}


def without_labels(root):
    image_id = id_of(images(root)[1])
    relabel(root, image_id)
    geojson(root, image_id).unlink()
    return {("no labels", image_id)}


def labels_of_an_unknown_tile(root):
    relabel(root, "20190101000000_20190101000001_tile_9", square(1, 1))
    return {("unknown tile", "20190101000000_20190101000001_tile_9")}


def labels_outside_the_tile(root):
    image_id = id_of(images(root)[1])
    relabel(root, image_id, square(50, 50), square(128, 50))
    return {("labels outside tile", image_id)}


def labels_over_the_edge(root):
    image_id = id_of(images(root)[1])
    relabel(root, image_id, square(50, 50), square(110, 50), square(-0.5, 50))  # half a pixel is tolerated
    return {("labels over edge", image_id)}


def labels_on_nodata(root):
    path = images(root)[1]
    pixels = pixels_of(path)
    pixels[:, 40:80, 40:80] = 0
    rewrite(path, pixels)
    relabel(root, id_of(path), square(50, 50))
    return {("labels on nodata", id_of(path))}


def unknown_strip(root):
    path = folder(root) / "SummaryData/SAR_orientations.txt"
    first, *others = path.read_text().splitlines()
    path.write_text("\n".join(others))
    return {("orientation", first.split()[0])}


PLANTED = [
    ("missing", missing),
    ("unreadable", unreadable),
    ("unreadable", no_geotiff),
    ("bands", too_few_bands),
    ("dtype", another_type),
    ("complex", complex_values),
    ("pixel size", twice_the_pixel),
    ("nodata value", declared_nodata),
    ("mask", with_a_mask),
    ("scale", with_a_scale),
    ("unreadable", a_vrt),
    ("labels misplaced", all_labels_in_metres),
    ("no buildings", no_footprint),
    ("crs", another_crs),
    ("size", another_size),
    ("position", another_position),
    ("values", not_finite),
    ("negative", negative),
    ("nodata", only_nodata),
    ("misnamed", misnamed),
    ("duplicate tile", a_file_twice),
    ("duplicate tile", a_number_twice),
    ("identical pixels", identical_pixels),
    ("labels", broken_csv),
    ("labels", broken_labels_of_a_tile),
    ("geojson", broken_geojson),
    ("no labels", without_labels),
    ("unknown tile", labels_of_an_unknown_tile),
    ("labels outside tile", labels_outside_the_tile),
    ("labels over edge", labels_over_the_edge),
    ("labels on nodata", labels_on_nodata),
    ("orientation", unknown_strip),
]


RAISED_BY_A_RUN = [  # before it trains, or where it reads the labels or the pixels
    (too_few_bands, "SAR-Intensity"),
    (another_type, "PS-RGBNIR"),
    (complex_values, "SAR-Intensity"),
    (twice_the_pixel, "SAR-Intensity"),
    (another_crs, "SAR-Intensity"),
    (another_position, "PS-RGB"),
    (a_vrt, "SAR-Intensity"),
    (unreadable, "SAR-Intensity"),
    (no_geotiff, "PS-RGB"),
    (misnamed, "PAN"),
    (broken_csv, "SAR-Intensity"),
    (broken_labels_of_a_tile, "SAR-Intensity"),
    (all_labels_in_metres, "SAR-Intensity"),
    (no_footprint, "SAR-Intensity"),
    (unknown_strip, "SAR-Intensity"),
]


@pytest.mark.parametrize(("plant", "product"), RAISED_BY_A_RUN, ids=lambda value: getattr(value, "__name__", value))
def test_what_is_fatal_stops_a_run_as_well(root, plant, product):
    expected = plant(root)
    assert {kind for kind, _ in expected} & set(FATAL)
    with pytest.raises(UserError):
        read_like_a_run(root, product)


@pytest.mark.parametrize(
    "plant", [another_size, not_finite, negative, only_nodata, labels_outside_the_tile, with_a_scale]
)
def test_what_is_a_warning_does_not_stop_a_run(root, plant):
    assert not {kind for kind, _ in plant(root)} & set(FATAL)
    for product in ("SAR-Intensity", "RGBNIR", "PAN"):
        read_like_a_run(root, product)


def test_every_fatal_kind_is_tried_in_a_run():
    """A fold without tiles is tested with the folds, other units with the images of a folder."""
    of = {function: kind for kind, function in PLANTED}
    assert {of[function] for function, _ in RAISED_BY_A_RUN} | {"folds", "units"} == set(FATAL)


def read_like_a_run(root, product):
    """Make the fold of the easternmost column that has tiles, and read all of its samples."""
    tiles = SpaceNet6(root).tiles("train", "SAR-Intensity")
    fold = int(PARTITIONS["columns"].assign(bounds_of(tiles)).max())
    data = TileDataModule(SpaceNet6(root), product=product, fold=fold, crop=64, num_workers=0, store=None)
    data.setup("fit")
    for tiles in (data.train_tiles, data.validation_tiles):
        for number in range(len(tiles)):
            tiles[number]


@pytest.mark.parametrize(("kind", "plant"), PLANTED, ids=lambda value: getattr(value, "__name__", None))
def test_a_planted_fault_is_found_and_no_other(root, kind, plant):
    expected = plant(root)
    assert faults_of(root) == expected
    assert kind in {of for of, _ in expected}


def test_every_kind_is_planted():
    """The fault "folds" is tested with an archive without labels, the others with the images of a folder."""
    assert {kind for kind, _ in PLANTED} | {"folds", "units", "repaired labels"} == set(FATAL | WARNINGS)


def test_several_processes_find_the_same(root):
    one, two = (inspect_archive(root, workers) for workers in (1, 2))
    assert [tile.image_id for tile in one.tiles] == [tile.image_id for tile in two.tiles]
    assert one.histograms.keys() == two.histograms.keys() == {"SAR-Intensity", "PS-RGBNIR"}
    for product, histogram in one.histograms.items():
        np.testing.assert_array_equal(histogram.counts, two.histograms[product].counts)
        assert histogram.pixels == two.histograms[product].pixels == 6 * 128 * 128


@pytest.fixture(scope="module")
def checked(archive_root, tmp_path_factory):
    """The archive, the folder of its report, and the output of the command."""
    folder = tmp_path_factory.mktemp("checked")
    root = shutil.copytree(archive_root, folder / "root")
    command = [sys.executable, "-m", "sn6.check", f"root={root}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return root, folder / "outputs" / "check", done.stdout


def read_report(folder):
    return json.loads((folder / "check.json").read_text())


def test_the_report_has_the_values_of_a_clean_archive(checked):
    root, out, _ = checked
    report = read_report(out)
    assert (report["can_be_trained_on"], report["faults"]) == (True, [])
    assert report["tiles"] == {"train": 24, "test_public": 4}
    values = np.concatenate([p[:, (p != 0).any(axis=0)] for p in map(pixels_of, images(root))], axis=1).astype(float)
    radar = report["products"]["SAR-Intensity"]
    assert radar["mean"] == pytest.approx(values.mean(axis=1).tolist(), rel=1e-9)
    assert radar["std"] == pytest.approx(values.std(axis=1).tolist(), rel=1e-9)
    assert (radar["minimum"], radar["maximum"]) == (values.min(axis=1).tolist(), values.max(axis=1).tolist())
    assert radar["nodata_fraction"] == pytest.approx(1 - values.shape[1] / (24 * 128 * 128))
    assert radar["bands"] == ["HH", "HV", "VH", "VV"]


def test_the_report_has_the_strips_with_their_labels(checked):
    root, out, printed = checked
    strips = [strip for strip in read_report(out)["strips"] if strip["split"] == "train"]
    assert sum(strip["tiles"] for strip in strips) == 24
    rows = (folder(root) / LABELS).read_text().splitlines()[1:]
    assert sum(strip["buildings"] for strip in strips) == sum("EMPTY" not in row for row in rows)
    assert all(strip["name"] in printed for strip in strips)


def test_the_report_has_the_overlap_of_each_fold(checked):
    folds = read_report(checked[1])["folds"]
    assert [len(folds[partition]) for partition in ("columns", "ten_columns", "blocks")] == [5, 10, 5]
    assert all(fold["overlapping"] == 0 for of in folds.values() for fold in of.values())
    assert folds["columns"]["4"]["overlapping_in_random_split"] > 0


def test_everything_is_written_to_the_folder(checked):
    _, out, _ = checked
    pictures = {f"folds_{partition}.png" for partition in ("columns", "ten_columns", "blocks")} | {"comparison.png"}
    assert {path.name for path in out.iterdir()} == pictures | {"check.json"}
    assert all((out / name).read_bytes()[:4] == b"\x89PNG" for name in pictures)
    assert {path.name for path in out.parents[1].iterdir()} == {"root", "outputs"}


def test_training_uses_the_statistics_of_a_check(root, monkeypatch):
    archive = SpaceNet6(root)
    tiles = archive.tiles("train", "SAR-Intensity")
    for product in ("SAR-Intensity", "RGBNIR"):
        source = Source(PRODUCTS[product], (1, 2, 3, 4), orient=True, min_area=20.0)
        before = measure_statistics(archive, tiles, source)
        shutil.rmtree(root / ".sn6")
        inspect_archive(root, 1)
        with monkeypatch.context() as patch:
            patch.setattr(SpaceNet6, "read", None)  # reading a tile would end the test
            assert measure_statistics(archive, tiles, source) == before


def test_fatal_faults_end_the_command_with_status_one(root, tmp_path, sn6_command):
    rewrite(images(root)[0], crs="EPSG:32632")
    images(root, "PAN")[1].unlink()
    done = sn6_command("check", f"root={root}", f"out={tmp_path}")
    assert_fails(done, "wrong_data", "root", root)
    report = read_report(tmp_path)
    assert not report["can_be_trained_on"]
    assert {(fault["kind"], fault["fatal"]) for fault in report["faults"]} == {("crs", True), ("missing", False)}
    assert "EPSG:32632" in done.out


def test_warnings_do_not_prevent_training(root, tmp_path, sn6_command):
    images(root, "PAN")[1].unlink()
    done = sn6_command("check", f"root={root}", f"out={tmp_path}")
    assert (done.status, done.error) == (0, None)
    assert [fault["kind"] for fault in read_report(tmp_path)["faults"]] == ["missing"]


def test_an_archive_without_labels_cannot_be_trained_on(root, tmp_path, sn6_command):
    (folder(root) / LABELS).unlink()
    shutil.rmtree(folder(root) / "geojson_buildings")
    assert_fails(sn6_command("check", f"root={root}", f"out={tmp_path}"), "wrong_data", "root", root)
    kinds = [fault["kind"] for fault in read_report(tmp_path)["faults"]]
    assert kinds == ["no labels"] * 6 + ["no buildings", "folds"]


def test_a_broken_csv_does_not_prevent_the_pictures(root, tmp_path, sn6_command):
    broken_csv(root)
    assert_fails(sn6_command("check", f"root={root}", f"out={tmp_path}"), "wrong_data", "root", root)
    assert (tmp_path / "comparison.png").exists()


def test_the_report_does_not_need_the_cache_of_statistics(root):
    shutil.rmtree(root / ".sn6", ignore_errors=True)
    (root / ".sn6").write_text("")
    assert faults_of(root) == set()


def test_a_map_shows_the_tiles_of_each_fold(archive_root):
    tiles = SpaceNet6(archive_root).tiles("train", "SAR-Intensity")
    folds, faults = make_folds(tiles, [], "columns")
    figure = partition_figure("columns", folds["columns"], "EPSG:32631")
    titles = [axis.get_title().replace("\n", " ") for axis in figure.axes]
    for number, fold in folds["columns"].items():
        train, validation, dropped = len(fold.train), len(fold.validation), len(fold.dropped)
        assert f"column {number}: {train} train, {validation} validation, {dropped} dropped" in titles
        drawn = [len(part.get_paths()) for part in figure.axes[number].collections]
        assert drawn == [train, dropped, validation, 0]
    assert not faults


@pytest.mark.parametrize(
    ("overrides", "kind", "key"),
    [
        (["root=."], "not_found", None),
        (["root=.", "workers=0"], "invalid_value", "workers"),
        (["root=.", "workers=two"], "invalid_value", "workers"),
        (["root=.", "out=a.json"], "invalid_value", "out"),
    ],
)
def test_invalid_input_is_reported_before_anything_is_written(tmp_path, monkeypatch, sn6_command, overrides, kind, key):
    monkeypatch.chdir(tmp_path)
    done = sn6_command("check", *overrides)
    assert done.error is not None
    assert (done.error.kind, key is None or done.error.key == key) == (kind, True)
    assert done.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_out_must_not_be_a_file(clean, tmp_path, sn6_command):
    path = tmp_path / "report"
    path.write_text("")
    assert_fails(sn6_command("check", f"root={clean}", f"out={path}"), "invalid_value", "out", path)


def test_the_command_starts_without_torch_or_matplotlib():
    code = "import sys, sn6.check; sys.exit(bool({'torch', 'matplotlib', 'rasterio'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
