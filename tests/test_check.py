"""`sn6.check` finds each fault that is planted into an archive, names its file, and finds none in a clean one."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import rasterio
from helpers.handmade import folder
from rasterio.transform import from_origin

from sn6.check import check
from sn6.data.dataset import Source, measure_statistics
from sn6.datasets.archive import Archive
from sn6.errors import UserError
from sn6.inspection.archive import inspect_archive
from sn6.inspection.faults import FATAL, WARNINGS
from sn6.inspection.folds import folds_of
from sn6.inspection.maps import split_figure
from sn6.simulate import simulate

LABELS = "SummaryData/SN6_Train_AOI_11_Rotterdam_Buildings.csv"


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A small simulated archive; nobody writes into it."""
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
    return {(fault.kind, fault.where) for fault in inspect_archive(root, 1, lambda tiles, total: tiles).faults}


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


def another_crs(root):
    path = images(root)[3]
    rewrite(path, crs="EPSG:32632")
    return {("crs", str(path))}


def another_size(root):
    path = images(root, "RGBNIR")[3]
    rewrite(path, pixels_of(path)[:, :60])
    return {("size", str(path))}


def another_place(root):
    path = images(root, "PS-RGB")[4]
    with rasterio.open(path) as source:
        moved = from_origin(source.bounds.left + 10, source.bounds.top, 0.5, 0.5)
    rewrite(path, transform=moved)
    return {("place", str(path))}


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


def nodata_alone(root):
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
    """And with it, as no product is there twice, the pixels, the labels and what most tiles have."""
    path = images(root)[0]
    other = path.with_name(path.name.replace("_2019", "_2020"))
    shutil.copy(path, other)
    rewrite(other, pixels_of(other) + np.float32(1))
    lacking = {("missing", id_of(other)), ("no labels", id_of(other))}
    return {("duplicate tile", str(other)), ("orientation", id_of(other).rpartition("_tile")[0])} | lacking


def identical_pixels(root):
    path, other = images(root)[0], images(root)[5]
    rewrite(other, pixels_of(path))
    return {("identical pixels", str(other))}


def broken_csv(root):
    """The GeoJSON of the tiles are read in its place."""
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


def labels_of_nothing(root):
    relabel(root, "20190101000000_20190101000001_tile_9", square(1, 1))
    return {("unknown tile", "20190101000000_20190101000001_tile_9")}


def labels_off_the_tile(root):
    image_id = id_of(images(root)[1])
    relabel(root, image_id, square(50, 50), square(128, 50))
    return {("labels off tile", image_id)}


def labels_over_the_edge(root):
    image_id = id_of(images(root)[1])
    relabel(root, image_id, square(50, 50), square(110, 50), square(-0.5, 50))  # half a pixel is let pass
    return {("labels over edge", image_id)}


def labels_on_nodata(root):
    path = images(root)[1]
    pixels = pixels_of(path)
    pixels[:, 40:80, 40:80] = 0
    rewrite(path, pixels)
    relabel(root, id_of(path), square(50, 50))
    return {("labels on nodata", id_of(path))}


def no_orientation(root):
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
    ("crs", another_crs),
    ("size", another_size),
    ("place", another_place),
    ("values", not_finite),
    ("negative", negative),
    ("nodata", nodata_alone),
    ("misnamed", misnamed),
    ("duplicate tile", a_file_twice),
    ("duplicate tile", a_number_twice),
    ("identical pixels", identical_pixels),
    ("labels", broken_csv),
    ("labels", broken_labels_of_a_tile),
    ("geojson", broken_geojson),
    ("no labels", without_labels),
    ("unknown tile", labels_of_nothing),
    ("labels off tile", labels_off_the_tile),
    ("labels over edge", labels_over_the_edge),
    ("labels on nodata", labels_on_nodata),
    ("orientation", no_orientation),
]


@pytest.mark.parametrize(("kind", "plant"), PLANTED, ids=lambda value: getattr(value, "__name__", None))
def test_a_planted_fault_is_found_and_no_other(root, kind, plant):
    expected = plant(root)
    assert faults_of(root) == expected
    assert kind in {of for of, _ in expected}


def test_every_kind_is_planted():
    """The folds of an archive without labels stand below."""
    assert {kind for kind, _ in PLANTED} | {"folds"} == set(FATAL | WARNINGS)


def report_of(path):
    return json.loads(path.read_text())


def test_the_door_tells_what_a_clean_archive_holds(archive_root, tmp_path, capsys):
    root = shutil.copytree(archive_root, tmp_path / "root")
    out = tmp_path / "out" / "check.json"
    check(root, workers=2, out=out)
    report = report_of(out)
    assert (report["can_be_trained_on"], report["faults"]) == (True, [])
    assert report["tiles"] == {"train": 24, "test_public": 4}
    values = np.concatenate([p[:, (p != 0).any(axis=0)] for p in map(pixels_of, images(root))], axis=1).astype(float)
    radar = report["products"]["SAR-Intensity"]
    assert radar["mean"] == pytest.approx(values.mean(axis=1).tolist(), rel=1e-9)
    assert radar["deviation"] == pytest.approx(values.std(axis=1).tolist(), rel=1e-9)
    assert (radar["low"], radar["high"]) == (values.min(axis=1).tolist(), values.max(axis=1).tolist())
    assert radar["nodata"] == pytest.approx(1 - values.shape[1] / (24 * 128 * 128))
    assert radar["bands"] == ["HH", "HV", "VH", "VV"]
    strips = [strip for strip in report["strips"] if strip["split"] == "train"]
    assert sum(strip["tiles"] for strip in strips) == 24
    rows = (folder(root) / LABELS).read_text().splitlines()[1:]
    assert sum(strip["buildings"] for strip in strips) == sum("EMPTY" not in row for row in rows)
    assert all(leak["seen"] == 0 for folds in report["folds"].values() for leak in folds.values())
    assert report["folds"]["columns"]["4"]["seen_at_random"] > 0
    for split in ("columns", "ten_columns", "blocks"):
        assert (tmp_path / "out" / f"check_{split}.png").read_bytes()[:4] == b"\x89PNG"
    said = capsys.readouterr().out
    assert "can be trained on, with 0 warnings" in said
    assert all(strip["name"] in said for strip in strips)


def test_a_training_takes_its_statistics_from_a_check(root, monkeypatch, capsys):
    source = Source("SAR-Intensity", (1, 2, 3, 4), orient=True, min_area=20.0)
    archive = Archive(root)
    tiles = archive.tiles("train", "SAR-Intensity")
    for product in ("SAR-Intensity", "RGBNIR"):
        before = measure_statistics(archive, tiles, Source(product, source.bands, True, 20.0))
        shutil.rmtree(root / ".sn6")
        inspect_archive(root, 1, lambda tiles, total: tiles)
        with monkeypatch.context() as patch:
            patch.setattr(Archive, "read", None)  # a tile that is read now ends the test
            assert measure_statistics(archive, tiles, Source(product, source.bands, True, 20.0)) == before


def test_the_door_ends_with_the_fatal_faults(root, tmp_path, capsys):
    path = images(root)[0]
    rewrite(path, crs="EPSG:32632")
    images(root, "PAN")[1].unlink()
    with pytest.raises(UserError) as error:
        check(root, out=tmp_path / "check.json")
    assert str(error.value).startswith(f"{root} cannot be trained on: crs (1)")
    assert "\n" not in str(error.value)
    report = report_of(tmp_path / "check.json")
    assert not report["can_be_trained_on"]
    assert {(fault["kind"], fault["fatal"]) for fault in report["faults"]} == {("crs", True), ("missing", False)}
    said = " ".join(capsys.readouterr().out.split())
    assert "another CRS than the archive's" in said
    assert "EPSG:32632" in said


def test_warnings_do_no_harm(root, tmp_path, capsys):
    images(root, "PAN")[1].unlink()
    check(root, out=tmp_path / "check.json")
    assert "can be trained on, with 1 warnings" in capsys.readouterr().out


def test_an_archive_without_labels_cannot_be_trained_on(root, tmp_path):
    (folder(root) / LABELS).unlink()
    shutil.rmtree(folder(root) / "geojson_buildings")
    with pytest.raises(UserError, match=r"cannot be trained on: folds \(1\)"):
        check(root, out=tmp_path / "check.json")
    kinds = [fault["kind"] for fault in report_of(tmp_path / "check.json")["faults"]]
    assert kinds == ["no labels"] * 6 + ["folds"]


def test_nothing_is_left_where_nothing_can_be_written(root):
    """A report does not need the place of the sums."""
    (root / ".sn6").write_text("")
    assert faults_of(root) == set()


def test_a_map_tells_the_numbers_of_each_fold(archive_root):
    archive = Archive(archive_root)
    tiles = archive.tiles("train", "SAR-Intensity")
    folds, faults = folds_of(tiles, [])
    figure = split_figure("columns", folds["columns"])
    titles = [axis.get_title().replace("\n", " ") for axis in figure.axes]
    for number, fold in folds["columns"].items():
        told = f"column {number}: {len(fold.train)} train, {len(fold.validation)} validate, {len(fold.dropped)} dropped"
        assert told in titles
        drawn = [len(part.get_paths()) for part in figure.axes[number].collections]
        assert drawn == [len(fold.train), len(fold.dropped), len(fold.validation), 0]
    assert not faults


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["root=."], "is not an archive"),
        (["root=.", "workers=0"], "workers=0 does not do"),
        (["root=.", "out=a.txt"], "out=a.txt is no name of a report"),
    ],
)
def test_wrong_words_end_with_one_line_and_status_one(tmp_path, words, says):
    done = subprocess.run([sys.executable, "-m", "sn6.check", *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_door_opens_without_torch_or_matplotlib():
    code = "import sys, sn6.check; sys.exit(bool({'torch', 'matplotlib', 'rasterio'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
