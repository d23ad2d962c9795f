"""Predict GeoTIFFs of any size with `python -m sn6.predict`: windows, averaging, rotation and merging."""

import json

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch
from helpers.handmade import speckle, write_tif
from helpers.networks import normalised, random_network, texture, write_network
from scipy.special import expit

from sn6.footprints.ground import to_ground
from sn6.footprints.regularization import regularize
from sn6.formats.challenge_csv import read_proposals


@pytest.fixture(scope="module")
def network():
    return random_network()


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    return write_network(tmp_path_factory.mktemp("network") / "weights.safetensors", network)


@pytest.fixture
def sn6_predict(sn6_command, weights):
    """`python -m sn6.predict checkpoint=... overrides...` in this process, on the CPU."""
    common = (f"checkpoint={weights}", "formats=[csv,geojson,parquet]", "device=cpu")
    return lambda *overrides: sn6_command("predict", *common, *overrides)


def plain_logits(network, pixels):
    """Compute the logits of an image in the orientation of its file, in a single pass."""
    with torch.inference_mode():
        return network(normalised(pixels))[0, 0].numpy()


def stored_probabilities(out):
    with rasterio.open(out / "probability/area.tif") as raster:
        return raster.read(1) / 254


@pytest.fixture(scope="module")
def area(tmp_path_factory):
    """A GeoTIFF that is larger than the windows, with some nodata, and its pixels."""
    pixels = (texture(20, 32)[:, :, :600] + speckle(size=640)[..., :600]) / 2
    pixels[:, 100:200, 50:90] = 0
    return write_tif(tmp_path_factory.mktemp("area") / "area.tif", pixels), pixels


def assert_stored(out, logits, pixels):
    """Assert that the stored probabilities are those of the logits, to rounding, and nodata where there is no data."""
    stored, valid = stored_probabilities(out), (pixels != 0).any(axis=0)
    assert np.abs(stored - expit(logits))[valid].max() <= 0.5 / 254 + 1e-4
    assert (stored[~valid] == 255 / 254).all()
    assert expit(logits)[valid].std() > 0.02


def test_the_operating_point_of_several_checkpoints_is_the_mean_of_theirs(sn6_command, network, area, tmp_path):
    files = [
        write_network(
            tmp_path / f"{number}.safetensors", network, footprints={"threshold": threshold, "min_area": least}
        )
        for number, (threshold, least) in enumerate([(0.66, 2.0), (0.74, 6.0)])
    ]
    common = ("predict", f"images={area[0]}", "formats=csv", "device=cpu")
    both = sn6_command(*common, f"checkpoint=[{files[0]},{files[1]}]", f"out={tmp_path / 'both'}")
    given = ("threshold=0.7", "min_area=4")
    one = sn6_command(*common, f"checkpoint={files[0]}", *given, f"out={tmp_path / 'one'}")
    assert both.status == one.status == 0, both.err + one.err
    assert "0.7," in both.err
    assert "0.7," not in one.err
    footprints = [(tmp_path / name / "proposals.csv").read_bytes() for name in ("both", "one")]
    assert footprints[0] == footprints[1]
    assert footprints[0].count(b"\n") > 3


def test_windows_over_a_large_geotiff_agree_with_a_single_pass(sn6_predict, network, tmp_path, area):
    path, pixels = area
    overrides = (f"images={path}", "window=576", "overlap=480", "probability=true", "batch=3")
    done = sn6_predict(*overrides, f"out={tmp_path}/out")
    assert done.status == 0, done.err
    assert_stored(tmp_path / "out", plain_logits(network, pixels), pixels)


def test_flips_and_networks_are_averaged_by_their_logits(sn6_command, network, weights, tmp_path, area):
    path, pixels = area
    overrides = (f"checkpoint=[{weights},{weights}]", f"images={path}", "probability=true", "flips=true", "device=cpu")
    assert sn6_command("predict", *overrides, f"out={tmp_path}/out").status == 0
    flipped = plain_logits(network, pixels[..., ::-1].copy())[:, ::-1]
    assert_stored(tmp_path / "out", (plain_logits(network, pixels) + flipped) / 2, pixels)


def test_an_average_over_scales_is_similar_to_a_single_pass(sn6_predict, network, tmp_path, area):
    path, pixels = area
    done = sn6_predict(f"images={path}", "probability=true", "scales=[1,1.25]", f"out={tmp_path}/out")
    assert done.status == 0, done.err
    scaled, valid = stored_probabilities(tmp_path / "out"), (pixels != 0).any(axis=0)
    single = expit(plain_logits(network, pixels))
    assert 0.001 < np.abs(scaled - single)[valid].mean() < 0.2
    assert np.corrcoef(scaled[valid], single[valid])[0, 1] > 0.5


def test_an_image_from_the_south_is_rotated_for_the_network(sn6_predict, network, tmp_path, area):
    path, pixels = area
    overrides = (f"images={path}", "probability=true", "rotate=true", f"out={tmp_path}/out")
    assert sn6_predict(*overrides).status == 0
    rotated = plain_logits(network, pixels[..., ::-1, ::-1].copy())[::-1, ::-1]
    assert_stored(tmp_path / "out", rotated, pixels)


def test_an_image_without_crs_gets_footprints_in_pixels(sn6_predict, tmp_path):
    profile = {"driver": "GTiff", "count": 4, "height": 192, "width": 192, "dtype": "float32"}
    missing = pytest.warns(rasterio.errors.NotGeoreferencedWarning)
    with missing, rasterio.open(tmp_path / "plain.tif", "w", **profile) as file:
        file.write(texture(8, 24))
    done = sn6_predict(f"images={tmp_path}/plain.tif", f"out={tmp_path}/out", "probability=true")
    assert done.status == 0, done.err
    assert f"{tmp_path}/plain.tif" in done.err  # the warning
    table = geopandas.read_parquet(tmp_path / "out/footprints.parquet")
    assert table.crs is None
    in_pixels = read_proposals(tmp_path / "out/proposals.csv")["plain"].polygons
    assert len(in_pixels) > 0
    in_order = table.set_index("id").geometry[[f"plain_{number}" for number in range(len(table))]]
    for ground, polygon in zip(in_order, in_pixels, strict=True):
        assert ground.equals(to_ground(np.array([polygon]), (0, 0), 1.0)[0])


def test_merged_footprints_are_one_per_building(sn6_predict, tmp_path):
    """Two images overlap by two thirds."""
    pixels = texture(8, 24)
    both = np.concatenate([pixels, pixels[..., :96]], axis=2)
    write_tif(tmp_path / "in/a.tif", both[..., :192].copy(), west=500000, north=5700000)
    write_tif(tmp_path / "in/b.tif", both[..., 64:256].copy(), west=500032, north=5700000)
    assert sn6_predict(f"images={tmp_path}/in", f"out={tmp_path}/out", "merge=true").status == 0
    each, merged = (geopandas.read_parquet(tmp_path / f"out/{name}.parquet") for name in ("footprints", "merged"))
    assert 0 < len(merged) < len(each)
    for i, polygon in enumerate(merged.geometry):
        for other in merged.geometry[i + 1 :]:
            assert polygon.intersection(other).area <= 0.5 * min(polygon.area, other.area)
    covered = merged.union_all().buffer(1)
    assert each.union_all().difference(covered).area < 0.5 * each.union_all().area
    assert len(geopandas.read_file(tmp_path / "out/merged.geojson")) == len(merged)


def test_files_contain_the_regularised_footprints(sn6_predict, area, tmp_path):
    path, _ = area
    fields = (f"images={path}", "fill_holes=5", "opening=1", "merge=true")
    for name, more in (("plain", ()), ("regular", ("regularize=true",))):
        assert sn6_predict(*fields, *more, f"out={tmp_path}/{name}").status == 0
    plain, regular = (read_proposals(tmp_path / name / "proposals.csv")["area"] for name in ("plain", "regular"))
    expected = shapely.transform(regularize(shapely.transform(plain.polygons, lambda xy: xy / 2)), lambda xy: xy * 2)
    assert shapely.area(shapely.symmetric_difference(expected, regular.polygons)).max() < 0.1
    assert (plain.confidences == regular.confidences).all()
    settings = json.loads((tmp_path / "regular/prediction.json").read_text())
    assert "regularize" in str(settings)
    tables = [geopandas.read_parquet(tmp_path / f"regular/{name}.parquet") for name in ("footprints", "merged")]
    assert [len(table) for table in tables] == [len(plain)] * 2
    assert all(table.geometry.is_valid.all() for table in tables)
