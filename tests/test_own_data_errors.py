"""Images and labels of one's own that cannot be right end a run in one line, before it trains."""

import geopandas
import numpy as np
import pytest
from helpers.commands import assert_fails, small_run
from helpers.worlds import power_world, write_image
from shapely import Point, box

KEYS = ("data.crop=32",)


@pytest.fixture
def world(tmp_path):
    return power_world(tmp_path / "world")


def layer(path, shapes, crs="EPSG:32632"):
    geopandas.GeoDataFrame({"kind": ["house"] * len(shapes)}, geometry=shapes, crs=crs).to_file(path)
    return path


@pytest.fixture
def fails(sn6_run, world):
    """Run with other keys, and compare the error that it ends with."""

    def run(kind, key, **others):
        keys = world.keys | {name: str(value) for name, value in others.items() if value is not None}
        overrides = [f"data.{name}={value}" for name, value in keys.items() if others.get(name, "") is not None]
        done = sn6_run("data=folder", *overrides, *small_run("unet"), *KEYS)
        assert_fails(done, kind, key, done.error.value if done.error else None)
        return done

    return run


def test_no_image(fails, tmp_path):
    fails("not_found", "data.images", images=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    fails("not_found", "data.images", images=tmp_path / "empty")


def test_images_that_disagree(fails, tmp_path):
    other = tmp_path / "world" / "three.tiff"
    write_image(other, np.ones((3, 64, 64), np.float32), "EPSG:32632", 600_000.0, 5_600_000.0, 10.0)
    fails("conflict", str(other))


def test_images_of_other_pixel_sizes(fails, tmp_path):
    other = tmp_path / "world" / "z.tiff"
    names = ("VV", "VH")
    write_image(other, np.ones((2, 64, 64), np.float32), "EPSG:32632", 600_000.0, 5_600_000.0, 20.0, names=names)
    assert "data.pixel_size" in fails("conflict", str(other)).err


def test_no_labels(fails, tmp_path):
    fails("wrong_data", "data.labels", labels=None)
    fails("not_found", tmp_path / "nowhere.gpkg", labels=tmp_path / "nowhere.gpkg")


def test_labels_of_other_ground(fails, tmp_path):
    far = layer(tmp_path / "far.gpkg", [box(700_000, 5_600_000, 700_100, 5_600_100)])
    fails("wrong_data", "data.labels", labels=far)


def test_labels_that_are_no_polygons(fails, tmp_path):
    points = layer(tmp_path / "points.gpkg", [Point(600_100, 5_699_000)])
    fails("wrong_data", points, labels=points)


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_labels_without_a_crs(fails, tmp_path):
    path = layer(tmp_path / "none.shp", [box(600_100, 5_699_000, 600_300, 5_699_200)], crs=None)
    fails("wrong_data", path, labels=path)


def test_images_without_a_crs(fails, tmp_path):
    other = tmp_path / "plain" / "a.tif"
    write_image(other, np.ones((2, 64, 64), np.float32), None, 600_000.0, 5_600_000.0, 10.0)
    fails("wrong_data", str(other), images=other)


def test_an_area_beyond_the_images(fails, tmp_path):
    area = layer(tmp_path / "area.gpkg", [box(700_000, 5_600_000, 700_100, 5_600_100)])
    fails("wrong_data", area, area=area)


def test_a_class_that_no_label_has(fails):
    done = fails("not_found", "data.classes", category="kind", classes="[house,castle]")
    assert "castle" in done.err
    assert "shed" in done.err  # one that exists


def test_units_that_give_impossible_decibels(fails, tmp_path):
    scene = tmp_path / "dn" / "a.tif"
    pixels = np.random.default_rng(0).integers(500, 5000, (2, 128, 128)).astype(np.float32)
    write_image(scene, pixels, "EPSG:32632", 600_000.0, 5_700_000.0, 10.0)
    fails("wrong_data", str(scene), images=scene, units="db", tile_size=64)


def test_a_place_that_cannot_be_divided(fails, tmp_path):
    one = next(iter(sorted((tmp_path / "world").glob("*.tiff"))))
    fails("not_found", "data.fold", images=one, tile_size=1024)


def test_a_run_without_its_images(sn6_run, tmp_path):
    assert_fails(
        sn6_run("data=folder", f"data.labels={tmp_path}/a.gpkg", *small_run("unet")), "missing_value", "data.images"
    )


def test_a_key_of_data_without_its_group(sn6_run, tmp_path):
    done = sn6_run("data=folder", f"images={tmp_path}", *small_run("unet"))
    assert_fails(done, "unknown_key", "images")
    assert "'data.images'" in done.err
