"""The simulated archive has the format of the published one and can replace it."""

import csv
import hashlib
import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import shapely
from helpers.commands import assert_fails
from helpers.errors import user_error
from numpy.testing import assert_allclose
from scipy.stats import spearmanr
from shapely import affinity

from sn6.simulate import simulate
from sn6.simulation.archive import SCALES, make_archive, settings_of, size_of
from sn6.simulation.archive_files import write_labels
from sn6.simulation.scene import Scene
from sn6.simulation.strips import plan_tiles
from sn6.simulation.tile import cut_footprints

SIZE = 128
TRAIN = "train/AOI_11_Rotterdam"
TEST = "test_public/AOI_11_Rotterdam"
LABELS = f"{TRAIN}/SummaryData/SN6_Train_AOI_11_Rotterdam_Buildings.csv"
TRUTH = "test_public_truth/SN6_Test_Public_AOI_11_Rotterdam_Buildings.csv"
IMAGE_ID = r"\d{14}_\d{14}_tile_\d+"
PRODUCTS = {  # as published: dtype, bands, pixels of a 128 px tile, pixel in metres
    "SAR-Intensity": ("float32", 4, 128, 0.5),
    "PS-RGB": ("uint8", 3, 128, 0.49999648),
    "PS-RGBNIR": ("uint16", 4, 128, 0.49999648),
    "RGBNIR": ("uint16", 4, 64, 0.99999296),
    "PAN": ("uint16", 1, 128, 0.49999648),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """An archive that no test writes to."""
    folder = tmp_path_factory.mktemp("simulated") / "archive"
    simulate(folder, tiles=12, test_tiles=4, seed=0, size=SIZE)
    return folder


def make(folder, **settings):
    """Make an archive of a few small tiles; return the number of footprints, None if it was complete."""
    return make_archive(folder, settings_of(**{"tiles": 2, "test_tiles": 1, "size": 64} | settings))


def images(root, product, split=TRAIN):
    """Return image id → pixels and image id → bounds."""
    pixels, bounds = {}, {}
    for path in sorted((root / split / product).iterdir()):
        with rasterio.open(path) as source:
            image_id = re.search(IMAGE_ID, path.name)[0]
            pixels[image_id], bounds[image_id] = source.read(), source.bounds
    return pixels, bounds


def rows(path):
    """Return the rows of a table as dicts."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def polygons(path):
    """Return image id → polygons in pixels."""
    tiles = defaultdict(list)
    for row in rows(path):
        polygon = shapely.from_wkt(row["PolygonWKT_Pix"])
        tiles[row["ImageId"]] += [] if polygon.is_empty else [polygon]
    return tiles


def orientations(root):
    """Return strip → look direction."""
    lines = (root / TRAIN / "SummaryData/SAR_orientations.txt").read_text().splitlines()
    return {strip: int(flag) for strip, flag in map(str.split, lines)}


def digests(root):
    """Return path → SHA-256 of each file of an archive."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_training_product_has_the_published_format(root, product):
    dtype, bands, pixels, pixel = PRODUCTS[product]
    paths = list((root / TRAIN / product).iterdir())
    assert len(paths) == 12
    for path in paths:
        assert re.fullmatch(rf"SN6_Train_AOI_11_Rotterdam_{product}_{IMAGE_ID}\.tif", path.name)
        with rasterio.open(path) as source:
            assert (source.driver, set(source.dtypes), source.count) == ("GTiff", {dtype}, bands)
            assert (source.width, source.height) == (pixels, pixels)
            assert (source.crs.to_epsg(), source.nodata) == (32631, 0)
            assert_allclose(source.transform[:6:4], (pixel, -pixel), rtol=1e-9)
            assert source.compression.name == "deflate"


def test_the_test_split_has_only_sar_and_its_ground_truth_is_in_another_folder(root):
    assert [path.name for path in (root / "test_public").iterdir()] == ["AOI_11_Rotterdam"]
    assert [path.name for path in (root / TEST).iterdir()] == ["SAR-Intensity"]
    paths = list((root / TEST / "SAR-Intensity").iterdir())
    assert len(paths) == 4
    pattern = rf"SN6_Test_Public_AOI_11_Rotterdam_SAR-Intensity_({IMAGE_ID})\.tif"
    assert {re.fullmatch(pattern, path.name)[1] for path in paths} == {row["ImageId"] for row in rows(root / TRUTH)}


def test_the_products_of_a_tile_have_the_same_bounds(root):
    _, radar = images(root, "SAR-Intensity")
    for product in PRODUCTS:
        _, bounds = images(root, product)
        assert bounds.keys() == radar.keys()
        for image_id, box in bounds.items():
            assert_allclose(box, radar[image_id], atol=0.005)  # metres


@pytest.mark.parametrize(("split", "table"), [(TRAIN, LABELS), (TEST, TRUTH)])
def test_the_table_of_labels_has_every_tile_and_polygons_within_it(root, split, table):
    header = "ImageId,TileBuildingId,PolygonWKT_Pix,Mean_Building_Height,Median_Building_Height,StdDev_Building_Height"
    assert (root / table).read_text().splitlines()[0] == header
    pixels, _ = images(root, "SAR-Intensity", split)
    assert {row["ImageId"] for row in rows(root / table)} == pixels.keys()
    for image_id, footprints in polygons(root / table).items():
        assert all(shapely.is_valid(footprints))
        assert all(shapely.area(footprints) > 4)
        if footprints:
            assert_allclose(np.clip(shapely.total_bounds(footprints), 0, SIZE), shapely.total_bounds(footprints))
        empty = [row for row in rows(root / table) if row["ImageId"] == image_id and "EMPTY" in row["PolygonWKT_Pix"]]
        assert len(empty) == (0 if footprints else 1)


def test_every_footprint_is_partly_over_valid_pixels_and_some_are_partly_over_nodata(root):
    pixels, _ = images(root, "SAR-Intensity")
    over_nodata = 0
    for image_id, footprints in polygons(root / LABELS).items():
        valid = pixels[image_id][0] != 0
        for polygon in footprints:
            inside = rasterio.features.rasterize([polygon], valid.shape, all_touched=True).astype(bool)
            assert valid[inside].any()
            over_nodata += (~valid[inside]).any()
    assert over_nodata > 0


def test_tile_numbers_are_unique_over_both_splits(root):
    ids = {row["ImageId"] for table in (LABELS, TRUTH) for row in rows(root / table)}
    assert len({image_id.rpartition("_")[2] for image_id in ids}) == len(ids) == 16


def test_the_geojson_has_the_same_footprints_in_metres(root):
    in_pixels = polygons(root / LABELS)
    _, bounds = images(root, "SAR-Intensity")
    for image_id, expected in in_pixels.items():
        path = root / TRAIN / f"geojson_buildings/SN6_Train_AOI_11_Rotterdam_Buildings_{image_id}.geojson"
        if not expected and not path.stat().st_size:
            continue
        content = json.loads(path.read_text())
        assert content["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32631"
        footprints = [shapely.geometry.shape(feature["geometry"]) for feature in content["features"]]
        assert len(footprints) == len(expected)
        west, _, _, north = bounds[image_id]
        for metres, pixels in zip(footprints, expected, strict=True):
            back = affinity.affine_transform(metres, [2, 0, 0, -2, -2 * west, 2 * north])
            assert_allclose(shapely.get_coordinates(back), shapely.get_coordinates(pixels), atol=1e-3)


def test_tiles_without_buildings_have_an_empty_collection_or_an_empty_file(root):
    empty = [image_id for image_id, footprints in polygons(root / LABELS).items() if not footprints]
    texts = [next((root / TRAIN / "geojson_buildings").glob(f"*_{image_id}.geojson")).read_text() for image_id in empty]
    assert "" in texts
    collections = [json.loads(text) for text in texts if text]
    assert collections
    assert all(content["features"] == [] and "crs" in content for content in collections)


def test_most_heights_are_known(tmp_path):
    tiles = plan_tiles(1, 0, 900, seed=1)
    write_labels(tmp_path, tiles, [cut_footprints(Scene(1, 1.0), tile) for tile in tiles])
    heights = [row["Mean_Building_Height"] for row in rows(tmp_path / LABELS)]
    known = np.array([float(height) for height in heights if height])
    assert 0.5 < len(known) / len(heights) < 1
    assert known.min() >= 2.5
    assert known.max() <= 90


def test_the_table_of_orientations_covers_the_strips_of_both_splits(root):
    text = (root / TRAIN / "SummaryData/SAR_orientations.txt").read_text()
    assert re.fullmatch(r"(\d{14}_\d{14} [01]\n)+", text)
    for table in (LABELS, TRUTH):
        strips = {row["ImageId"].rpartition("_tile_")[0] for row in rows(root / table)}
        assert {orientations(root)[strip] for strip in strips} == {0, 1}


def test_the_archive_contains_no_other_files(root):
    names = {path.name for path in root.iterdir() if path.name != ".sn6"}  # the cache is no part of the archive
    assert names == {"train", "test_public", "test_public_truth", "simulation.json"}
    files = [path for name in names for path in [root / name, *(root / name).rglob("*")] if path.is_file()]
    assert not [path for path in files if path.name.startswith(".")]
    assert {path.suffix for path in files} == {".tif", ".geojson", ".csv", ".txt", ".json"}


def test_a_disk_that_is_too_small_is_reported_before_anything_is_written(tmp_path, monkeypatch):
    settings = settings_of(scale="tiny")
    monkeypatch.setattr("sn6.files.shutil.disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    with user_error("unwritable", tmp_path / "root"):
        make_archive(tmp_path / "root", settings)
    assert not (tmp_path / "root").exists()


def test_the_estimate_of_the_disk_is_near_what_is_written(root):
    tiles = plan_tiles(
        **{key: value for key, value in settings_of(tiles=12, test_tiles=4, size=SIZE).items() if key != "version"}
    )
    written = sum(path.stat().st_size for path in root.rglob("*.tif"))
    assert 0.5 * written < size_of(root / "elsewhere", tiles) < 2 * written
    assert size_of(root, tiles) == 0


def test_hidden_files_are_no_other_files(tmp_path):
    (tmp_path / ".DS_Store").write_text("of macOS")
    assert make_archive(tmp_path, settings_of(scale="tiny", tiles=1, test_tiles=0, size=64)) is not None


def test_a_folder_with_other_files_is_left_as_it_is(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with user_error("conflict", "root"):
        make_archive(tmp_path, settings_of(tiles=2, test_tiles=0, size=64))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_scale_is_a_set_of_numbers_that_single_settings_override(tmp_path):
    simulate(tmp_path / "one", scale="tiny", tiles=2, test_tiles=0, size=64)
    settings = json.loads((tmp_path / "one/simulation.json").read_text())
    assert settings == {"version": 4, "tiles": 2, "test_tiles": 0, "seed": 0, "size": 64, "passes": None}
    for scale, counts in (("tiny", (12, 4, 256)), ("small", (24, 6, 900)), ("medium", (96, 128, 900))):
        assert tuple(SCALES[scale].values()) == counts
    assert tuple(SCALES["full"].values()) == (3401, 2061, 900)  # as published


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_city(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        make(tmp_path / name, seed=seed)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    assert not set(a.values()) & {digest for name, digest in c.items() if name.endswith(".tif")}


def test_several_processes_write_the_same_bytes_as_one(tmp_path, monkeypatch):
    make(tmp_path / "one")
    monkeypatch.setattr("sn6.simulation.archive.MIN_PIXELS_FOR_POOL", 0)
    make(tmp_path / "several")
    assert digests(tmp_path / "one") == digests(tmp_path / "several")


def test_an_interrupted_run_resumes(tmp_path):
    folder = tmp_path / "archive"
    make(folder)
    complete = digests(folder)
    kept = sorted(folder.rglob("*.tif"))[0]
    written = kept.stat().st_mtime_ns
    for path in (*sorted(folder.rglob("*.tif"))[1::2], folder / LABELS, folder / TRUTH):
        path.unlink()
    make(folder)
    assert digests(folder) == complete
    assert kept.stat().st_mtime_ns == written


def test_a_complete_archive_is_not_made_again(tmp_path, monkeypatch):
    folder = tmp_path / "archive"
    assert make(folder) is not None
    monkeypatch.setattr("sn6.simulation.archive.write_tiles", lambda *_: pytest.fail("a tile was made again"))
    assert make(folder) is None
    sorted(folder.rglob("*.geojson"))[0].unlink()
    with pytest.raises(pytest.fail.Exception):
        make(folder)


def test_of_two_processes_at_once_one_makes_the_archive_and_the_other_waits(tmp_path):
    folder = tmp_path / "archive"
    command = [sys.executable, "-m", "sn6.simulate", f"root={folder}", "tiles=2", "test_tiles=1", "size=64"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sorted("nothing to do" in out for out, _ in outputs) == [False, True]
    make(tmp_path / "other")
    assert digests(folder) == digests(tmp_path / "other")


def test_most_tiles_have_a_nodata_border_in_all_bands_and_one_is_mostly_nodata(root):
    pixels, _ = images(root, "SAR-Intensity")
    nodata = np.array([(image == 0).mean(axis=(1, 2)) for image in pixels.values()])
    assert_allclose(nodata, nodata[:, :1].repeat(4, axis=1))
    assert 0.08 < nodata.mean() < 0.20
    assert np.median(nodata) > 0
    assert 0.9 < nodata.max() < 1


def test_the_optical_images_show_approximately_the_ground_of_the_radar(root):
    pixels, _ = images(root, "SAR-Intensity")
    radar = {image_id: (image != 0).any(axis=0) for image_id, image in pixels.items()}
    for product in ("PS-RGB", "PS-RGBNIR", "PAN"):
        for image_id, image in images(root, product)[0].items():
            valid = (image != 0).all(axis=0)
            assert (valid == (image != 0).any(axis=0)).all()  # no valid pixel is 0 in a band
            assert (valid != radar[image_id]).mean() < 0.06


def test_the_bands_of_the_optical_products_are_in_the_published_order(root):
    natural, full, half = (images(root, product)[0] for product in ("PS-RGB", "PS-RGBNIR", "RGBNIR"))
    image_id = max(natural, key=lambda name: (natural[name] != 0).sum())
    assert max(image.max() for image in full.values()) <= 2047
    for band, same in ((0, 2), (1, 1), (2, 0)):  # R, G, B in the one are bands 2, 1, 0 of the other
        likeness = [spearmanr(natural[image_id][band].ravel(), other.ravel()).statistic for other in full[image_id]]
        assert int(np.argmax(likeness)) == same
    means = np.mean([image[:, (image != 0).all(axis=0)].mean(axis=1) for image in full.values()], axis=0)
    assert int(np.argmax(means)) == 3  # vegetation is bright in the near infrared
    coarse = full[image_id].reshape(4, SIZE // 2, 2, SIZE // 2, 2).mean(axis=(2, 4))
    for band in range(4):
        assert np.corrcoef(coarse[band].ravel(), half[image_id][band].ravel())[0, 1] > 0.9


def test_training_and_test_tiles_do_not_overlap(root):
    squares = [
        [shapely.box(*bounds).buffer(-0.01) for bounds in images(root, "SAR-Intensity", split)[1].values()]
        for split in (TRAIN, TEST)
    ]
    assert not shapely.unary_union(squares[0]).intersects(shapely.unary_union(squares[1]))


def test_a_folder_with_other_files_is_not_changed(tmp_path):
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with user_error("conflict", key="root", value=folder):
        make(folder)
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    with user_error("unwritable", key="root", value=folder / "thesis.txt"):
        make(folder / "thesis.txt")
    assert (folder / "thesis.txt").read_text() == "years of work"


def test_an_archive_of_other_settings_is_not_changed(tmp_path):
    make(tmp_path / "archive")
    before = digests(tmp_path / "archive")
    with user_error("conflict", key="root", value=tmp_path / "archive"):
        make(tmp_path / "archive", seed=1)
    assert digests(tmp_path / "archive") == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tiles", "0"),
        ("test_tiles", "-1"),
        ("seed", "-1"),
        ("size", "7"),
        ("size", "129"),
        ("size", "62"),
        ("size", "9000"),
        ("scale", "huge"),
    ],
)
def test_invalid_settings_are_reported_before_anything_is_written(tmp_path, sn6_command, key, value):
    done = sn6_command("simulate", f"root={tmp_path / 'archive'}", f"{key}={value}")
    assert_fails(done, "invalid_value", key, value)
    assert done.out == ""
    assert not list(tmp_path.iterdir())


def test_the_command_prints_the_contents_and_the_next_command(tmp_path, sn6_command):
    folder = tmp_path / "an archive"
    overrides = (f"root={folder}", "tiles=1", "test_tiles=0", "size=64")
    done = sn6_command("simulate", *overrides)
    assert done.status == 0, done.err
    footprints = sum(len(tile) for tile in polygons(folder / LABELS).values())
    assert done.out.startswith(f"{folder}: 1 training tile, 0 test tiles, {footprints} footprint")
    assert f"python -m sn6.run data.root='{folder}'" in done.out
    assert "nothing to do" in sn6_command("simulate", *overrides).out


def test_the_command_needs_no_torch():
    code = "import sys, sn6.simulate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0
