"""Test check and show on images of one's own: what they report, draw and refuse."""

import json

import geopandas
import matplotlib.image
import numpy as np
import pytest
import shapely
from helpers.commands import assert_fails
from helpers.worlds import amplitude_world, optical_world, power_world


@pytest.fixture(scope="module", params=[amplitude_world, power_world, optical_world])
def world(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("world"))


def report_of(folder):
    return json.loads((folder / "check.json").read_text(encoding="utf-8"))


def test_images_with_their_labels_can_be_trained_on(world, tmp_path, sn6_command):
    done = sn6_command("check", *world.of_command(), f"out={tmp_path}")
    assert done.status == 0, done.err
    report = report_of(tmp_path)
    assert report["can_be_trained_on"]
    assert not report["faults"]
    # every building is on some tile, whole or in the parts of several
    assert sum(strip["buildings"] for strip in report["strips"]) >= len(world.buildings)
    assert {int(number) for number in report["folds"]["blocks"]} == set(range(5))
    assert all(fold["overlapping"] == 0 for fold in report["folds"]["blocks"].values())
    assert (tmp_path / "folds_blocks.png").exists()


def test_values_are_in_decibels(tmp_path, sn6_command):
    world = power_world(tmp_path)
    assert sn6_command("check", *world.of_command(), f"out={tmp_path / 'out'}").status == 0
    product = report_of(tmp_path / "out")["products"]["images"]
    assert product["bands"] == ["VV", "VH"]
    # the mean of -15 dB ground and -1 dB buildings, of which a fifth is covered; VH is 2 dB darker
    covered = world.buildings.area.sum() / (6 * (128 * 10.0) ** 2)
    speckle = np.mean(10 * np.log10(np.random.default_rng(0).gamma(8, 1 / 8, 10**6)))
    expected = -15 + 14 * covered + speckle
    assert product["mean"] == pytest.approx([expected, expected - 2], abs=0.1)


def test_a_tile_is_drawn_with_its_buildings(world, tmp_path, sn6_command):
    done = sn6_command("show", *world.of_command(), "tiles=1", f"out={tmp_path}")
    assert done.status == 0, done.err
    (picture,) = tmp_path.glob("*.png")
    assert matplotlib.image.imread(picture).std() > 0.05


def test_other_units_cannot_be_trained_on(tmp_path, sn6_command):
    world = amplitude_world(tmp_path)
    keys = [key for key in world.of_command() if not key.startswith(("units", "scale"))]
    assert_fails(sn6_command("check", *keys, f"out={tmp_path / 'out'}"), "wrong_data", "root", tmp_path / "scenes")
    faults = report_of(tmp_path / "out")["faults"]
    assert "units" in {fault["kind"] for fault in faults if fault["fatal"]}


def test_repaired_labels_are_counted(tmp_path, sn6_command):
    world = power_world(tmp_path)
    x, y = 600_500.0, 5_699_500.0
    bow_tie = shapely.Polygon([(x, y), (x + 90, y + 90), (x + 90, y), (x, y + 90)])
    shapes = [*world.buildings.geometry, bow_tie]
    geopandas.GeoDataFrame(geometry=shapes, crs=world.crs).to_file(tmp_path / "more.gpkg")
    keys = [key for key in world.of_command() if not key.startswith("labels")]
    assert sn6_command("check", *keys, f"labels={tmp_path / 'more.gpkg'}", f"out={tmp_path / 'out'}").status == 0
    faults = [fault for fault in report_of(tmp_path / "out")["faults"] if fault["kind"] == "repaired labels"]
    assert faults
    assert all(fault["where"] == str(tmp_path / "more.gpkg") for fault in faults)
    assert any("1 invalid polygon" in fault["message"] for fault in faults)


def test_labels_of_other_ground(tmp_path, sn6_command):
    world = power_world(tmp_path)
    far = world.buildings.translate(xoff=50_000)
    far.to_file(tmp_path / "far.gpkg")
    keys = [key for key in world.of_command() if not key.startswith("labels")]
    done = sn6_command("check", *keys, f"labels={tmp_path / 'far.gpkg'}", f"out={tmp_path / 'out'}")
    assert_fails(done, "wrong_data", "root", tmp_path)
    assert "no buildings" in {fault["kind"] for fault in report_of(tmp_path / "out")["faults"]}


@pytest.mark.parametrize(
    ("overrides", "kind", "key"),
    [
        ([], "missing_value", "root"),
        (["root=a", "images=b"], "conflict", "root"),
        (["root=a", "labels=b"], "conflict", "labels"),
        (["run=a", "labels=b"], "conflict", "labels"),
        (["run=a"], "not_found", "run"),
        (["images=nowhere"], "not_found", "data.images"),
        (["dataset=json.JSONDecoder", "root=a"], "invalid_value", "dataset"),
    ],
)
def test_what_names_no_data_set(tmp_path, monkeypatch, sn6_command, overrides, kind, key):
    monkeypatch.chdir(tmp_path)
    done = sn6_command("check", *overrides)
    assert_fails(done, kind, key, done.error.value)
