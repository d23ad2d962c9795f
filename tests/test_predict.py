"""`python -m sn6.predict`, from a trained network to files that others open."""

import json
import logging
import sys

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch
from helpers.commands import small_run
from helpers.handmade import speckle, write_tif
from helpers.stopping import predict_and_stop, run_and_stop
from scipy.special import expit

from sn6.checkpoints.loading import checkpoint_metadata
from sn6.checkpoints.state_dict import network_state
from sn6.checkpoints.weights_file import write_weights
from sn6.cli import run_command
from sn6.datasets.archive import Archive
from sn6.footprints import Footprints
from sn6.footprints.ground import to_ground
from sn6.formats.challenge_csv import read_proposals
from sn6.formats.geojson import read_geojson
from sn6.formats.geoparquet import read_geoparquet
from sn6.formats.outlines import parts
from sn6.metrics.matching import Counts, match_tile
from sn6.models.ternausnet import TernausNet
from sn6.predict import predict

WORDS = [word for word in small_run() if "limit" not in word and "max_epochs" not in word]


@pytest.fixture(scope="module")
def run_folder(archive_root, tmp_path_factory):
    """A network that finds something, whose threshold is not the default."""
    folder = tmp_path_factory.mktemp("run")
    longer = ["trainer.max_epochs=10", "data.crops_per_tile=4", "optimizer.lr=3e-3"]
    more = [*longer, "callbacks.polygon_f1.threshold=-0.7", "callbacks.calibration.tiles=0"]
    assert run_and_stop([*WORDS, *more, f"data.root={archive_root}"], folder) == 0, (folder / "log.txt").read_text()
    return folder / "outputs/it"


@pytest.fixture
def sn6_predict(monkeypatch, capsys):
    """`python -m sn6.predict words...` in this process: status, out, err."""

    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # of a run in another test: its stderr is closed

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["sn6.predict", *map(str, words), "device=cpu"])
        capsys.readouterr()
        try:
            run_command(predict, "sn6.predict")
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, *capsys.readouterr()

    return call


def reported(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    return Counts(metrics["tp"], metrics["fp"], metrics["fn"])


def counted(archive_root, found):
    """The score over the archive's test tiles of footprints by tile."""
    archive, total = Archive(archive_root), Counts()
    for tile in archive.tiles("test_public", "SAR-Intensity"):
        proposals, truth = found[tile.image_id], archive.labels(tile).polygons
        total += match_tile(truth, proposals.polygons, proposals.confidences).counts
    return total


def by_tile(outlines):
    return {tile: Footprints(*parts(rows)) for tile, rows in outlines.by_tile()}


def test_each_format_scores_as_the_training_run_reported(sn6_predict, run_folder, archive_root, tmp_path):
    status, _, err = sn6_predict(f"checkpoint={run_folder}", f"root={archive_root}", f"out={tmp_path}/out")
    assert status == 0, err
    expected = reported(run_folder)
    assert expected.tp > 0
    assert expected.fp > 0
    formats = [
        read_proposals(tmp_path / "out/proposals.csv"),
        by_tile(read_geojson(tmp_path / "out/footprints.geojson", "confidence")),
        by_tile(read_geoparquet(tmp_path / "out/footprints.parquet", "confidence")),
    ]
    for found in formats:
        assert counted(archive_root, found) == expected
    mine, theirs = (folder / "proposals.csv" for folder in (tmp_path / "out", run_folder))
    assert mine.read_text() == theirs.read_text()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "prediction.json",
        "proposals.csv",
        "footprints.geojson",
        "footprints.parquet",
    }


def test_a_submission_names_every_tile(sn6_predict, run_folder, archive_root, tmp_path):
    sn6_predict(f"checkpoint={run_folder}", f"root={archive_root}", f"out={tmp_path}/out", "threshold=99")
    lines = (tmp_path / "out/proposals.csv").read_text().splitlines()
    tiles = [tile.image_id for tile in Archive(archive_root).tiles("test_public", "SAR-Intensity")]
    assert lines == [
        "ImageId,BuildingId,PolygonWKT_Pix,Confidence",
        *(f'{tile},-1,"POLYGON EMPTY",0' for tile in tiles),
    ]
    assert len(geopandas.read_parquet(tmp_path / "out/footprints.parquet")) == 0


def test_maps_lie_on_their_tiles(sn6_predict, run_folder, archive_root, tmp_path):
    out = tmp_path / "out"
    given = (f"checkpoint={run_folder}", f"root={archive_root}", f"out={out}", "probability=true", "pictures=2")
    assert sn6_predict(*given)[0] == 0
    tiles = {tile.image_id: tile for tile in Archive(archive_root).tiles("test_public", "SAR-Intensity")}
    assert {tile.orientation for tile in tiles.values()} == {0, 1}
    for name, read in (("footprints.geojson", geopandas.read_file), ("footprints.parquet", geopandas.read_parquet)):
        table = read(out / name)
        assert table.crs.to_epsg() == 32631
        assert {"image_id", "confidence", "area_m2"} <= set(table.columns)
        assert len(table) > 0
        for row in table.itertuples():
            assert shapely.box(*tiles[row.image_id].bounds).buffer(1e-6).covers(row.geometry)
        assert table.area.to_numpy() == pytest.approx(table["area_m2"].to_numpy(), rel=1e-6)
    proposals = read_proposals(out / "proposals.csv")
    for image_id in tiles:
        source = next(archive_root.rglob(f"*SAR-Intensity_{image_id}.tif"))
        with rasterio.open(source) as radar, rasterio.open(out / f"probability/{image_id}.tif") as raster:
            assert (raster.transform, raster.crs, raster.shape) == (radar.transform, radar.crs, radar.shape)
            nodata, stored, scale = (radar.read() == 0).all(axis=0), raster.read(1), raster.scales[0]
            assert ((stored == raster.nodata) == nodata).all()
            assert raster.profile["tiled"]
            assert raster.profile["compress"] == "deflate"
        footprints = proposals[image_id]
        for polygon, confidence in zip(footprints.polygons, footprints.confidences, strict=True):
            covered = rasterio.features.rasterize([polygon], out_shape=stored.shape).astype(bool) & (stored < 255)
            assert (stored[covered] * scale).mean() == pytest.approx(confidence, abs=0.12)  # outlines are simplified
    assert len(list((out / "pictures").glob("*.png"))) == 2


def test_training_tiles_are_chosen_by_number(sn6_predict, run_folder, archive_root, tmp_path):
    first, second, *_ = Archive(archive_root).tiles("train", "SAR-Intensity")
    tiles = f"tiles=[{first.image_id.rpartition('_')[2]},{second.image_id}]"
    given = (f"checkpoint={run_folder}/checkpoints/best.ckpt", f"root={archive_root}", "split=train", tiles)
    assert sn6_predict(*given, f"out={tmp_path}/out")[0] == 0
    assert set(read_proposals(tmp_path / "out/proposals.csv")) == {first.image_id, second.image_id}


def plain_logits(run_folder, pixels):
    """The network of the run over an image as it lies on disk, by hand."""
    held = torch.load(run_folder / "checkpoints/best.ckpt", weights_only=True)
    network = TernausNet(4, 1, width=4).eval()
    network.load_state_dict(network_state(held))
    data = held["TileDataModule"]
    mean, std = (np.array(data[key], dtype=np.float32)[:, None, None] for key in ("mean", "std"))
    image = np.where((pixels != 0).any(axis=0), (pixels - mean) / std, 0).astype(np.float32)
    with torch.inference_mode():
        return network(torch.from_numpy(image)[None])[0, 0].numpy()


def stored_probabilities(out, name):
    with rasterio.open(out / f"probability/{name}.tif") as raster:
        return raster.read(1) / 254


@pytest.fixture
def large(tmp_path):
    """A GeoTIFF of radar texture, larger than the windows that are given."""
    blocks = np.kron(speckle(size=20), np.ones((1, 30, 32), dtype=np.float32))
    pixels = (blocks + speckle(size=640)[:, :600]) / 2
    pixels[:, 100:200, 50:90] = 0
    return write_tif(tmp_path / "area.tif", pixels), pixels


def test_windows_over_a_large_geotiff_agree_with_one_pass(sn6_predict, run_folder, tmp_path, large):
    path, pixels = large
    given = (f"checkpoint={run_folder}", f"images={path}", "window=576", "overlap=480", "probability=true", "batch=3")
    status, _, err = sn6_predict(*given, f"out={tmp_path}/out")
    assert status == 0, err
    whole = expit(plain_logits(run_folder, pixels))
    stored, valid = stored_probabilities(tmp_path / "out", "area"), (pixels != 0).any(axis=0)
    assert np.abs(stored - whole)[valid].max() <= 0.5 / 254 + 1e-4
    assert (stored[~valid] == 255 / 254).all()
    assert whole[valid].std() > 0.02


def test_flips_and_scales_are_means_of_logits(sn6_predict, run_folder, tmp_path, large):
    path, pixels = large
    given = (f"checkpoint=[{run_folder},{run_folder}]", f"images={path}", "probability=true", "flips=true")
    assert sn6_predict(*given, f"out={tmp_path}/out")[0] == 0
    flipped = plain_logits(run_folder, pixels[..., ::-1].copy())[:, ::-1]
    mean = (plain_logits(run_folder, pixels) + flipped) / 2
    stored, valid = stored_probabilities(tmp_path / "out", "area"), (pixels != 0).any(axis=0)
    assert np.abs(stored - expit(mean))[valid].max() <= 0.5 / 254 + 1e-4
    assert sn6_predict(*given[:3], "scales=[1,1.25]", f"out={tmp_path}/scaled")[0] == 0
    scaled = stored_probabilities(tmp_path / "scaled", "area")
    once = expit(plain_logits(run_folder, pixels))
    assert 0.001 < np.abs(scaled - once)[valid].mean() < 0.2
    assert np.corrcoef(scaled[valid], once[valid])[0, 1] > 0.5


def test_an_image_from_the_south_is_turned_for_the_network(sn6_predict, run_folder, tmp_path, large):
    path, pixels = large
    given = (f"checkpoint={run_folder}", f"images={path}", "probability=true", "turn=true", f"out={tmp_path}/out")
    assert sn6_predict(*given)[0] == 0
    turned = plain_logits(run_folder, pixels[..., ::-1, ::-1].copy())[::-1, ::-1]
    stored, valid = stored_probabilities(tmp_path / "out", "area"), (pixels != 0).any(axis=0)
    assert np.abs(stored - expit(turned))[valid].max() <= 0.5 / 254 + 1e-4


def test_an_image_without_crs_has_footprints_in_pixels(sn6_predict, run_folder, tmp_path):
    pixels = np.kron(speckle(size=8), np.ones((1, 24, 24), dtype=np.float32))
    profile = {"driver": "GTiff", "count": 4, "height": 192, "width": 192, "dtype": "float32"}
    missing = pytest.warns(rasterio.errors.NotGeoreferencedWarning)
    with missing, rasterio.open(tmp_path / "plain.tif", "w", **profile) as file:
        file.write(pixels)
    given = (f"checkpoint={run_folder}", f"images={tmp_path}/plain.tif", f"out={tmp_path}/out", "threshold=-2")
    status, _, err = sn6_predict(*given, "probability=true")
    assert status == 0, err
    assert "plain.tif has no CRS: footprints.* are in pixels" in err.replace("\n", " ")
    table = geopandas.read_parquet(tmp_path / "out/footprints.parquet")
    assert table.crs is None
    in_pixels = read_proposals(tmp_path / "out/proposals.csv")["plain"].polygons
    assert len(in_pixels) > 0
    for ours, theirs in zip(table.geometry, in_pixels, strict=True):
        assert ours.equals(to_ground(np.array([theirs]), (0, 0), 1.0)[0])


@pytest.mark.parametrize("asked", ["devices=2", "processes=2"])
def test_several_processes_give_what_one_gives(sn6_predict, run_folder, archive_root, tmp_path, asked):
    given = (f"checkpoint={run_folder}", f"root={archive_root}")
    assert sn6_predict(*given, f"out={tmp_path}/one")[0] == 0
    assert sn6_predict(*given, f"out={tmp_path}/two", asked, "batch=2")[0] == 0
    one, two = (read_proposals(tmp_path / name / "proposals.csv") for name in ("one", "two"))
    assert list(one) == list(two)
    assert {tile: len(found) for tile, found in one.items()} == {tile: len(found) for tile, found in two.items()}


def test_a_stopped_prediction_goes_on(run_folder, archive_root, tmp_path, sn6_predict):
    """Killed after each piece of work, time and again, it ends with the files of one that never was."""
    given = [f"checkpoint={run_folder}", f"root={archive_root}", "window=96", "overlap=32", "device=cpu"]
    assert sn6_predict(*given[:-1], f"out={tmp_path}/never")[0] == 0
    for steps, status in ((3, -9), (5, -9), (999, 0)):
        assert predict_and_stop([*given, f"out={tmp_path}/often"], steps) == status
        assert (tmp_path / "often/proposals.csv").exists() == (status == 0)
    for name in ("proposals.csv", "footprints.geojson"):
        assert (tmp_path / "often" / name).read_text() == (tmp_path / "never" / name).read_text()
    assert not (tmp_path / "often/unfinished").exists()


def test_a_finished_prediction_does_nothing_and_another_is_refused(sn6_predict, run_folder, archive_root, tmp_path):
    given = (f"checkpoint={run_folder}", f"root={archive_root}", f"out={tmp_path}/out")
    assert sn6_predict(*given)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    status, out, _ = sn6_predict(*given)
    assert status == 0
    assert "is finished" in out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    status, _, err = sn6_predict(*given, "threshold=0.5")
    assert status == 1
    assert "holds a prediction of threshold=-0.7, not 0.5; choose another folder" in err


def test_merged_footprints_are_one_a_building(sn6_predict, run_folder, tmp_path):
    """The same ground in two images that overlap by two thirds."""
    pixels = np.kron(speckle(size=8), np.ones((1, 24, 24), dtype=np.float32))
    area = np.concatenate([pixels, pixels[..., :96]], axis=2)
    write_tif(tmp_path / "in/a.tif", area[..., :192].copy(), west=500000, north=5700000)
    write_tif(tmp_path / "in/b.tif", area[..., 64:256].copy(), west=500032, north=5700000)
    given = (f"checkpoint={run_folder}", f"images={tmp_path}/in", f"out={tmp_path}/out", "merge=true", "threshold=-2")
    assert sn6_predict(*given)[0] == 0
    each, merged = (geopandas.read_parquet(tmp_path / f"out/{name}.parquet") for name in ("footprints", "merged"))
    assert 0 < len(merged) < len(each)
    for i, one in enumerate(merged.geometry):
        for other in merged.geometry[i + 1 :]:
            assert one.intersection(other).area <= 0.5 * min(one.area, other.area)
    covered = merged.union_all().buffer(1)
    assert each.union_all().difference(covered).area < 0.5 * each.union_all().area
    assert len(geopandas.read_file(tmp_path / "out/merged.geojson")) == len(merged)


def fails(done, *parts):
    status, _, err = done
    assert status == 1
    assert err.count("\n") == 1
    for part in parts:
        assert str(part) in err


def test_wrong_words_end_in_one_line(sn6_predict, run_folder, archive_root, tmp_path):
    checkpoint, out = f"checkpoint={run_folder}", f"out={tmp_path}/out"
    fails(sn6_predict(checkpoint, out), "give one of root= (an archive) and images=")
    fails(sn6_predict("checkpoint=none.ckpt", out, f"root={archive_root}"), "checkpoint=none.ckpt", "no such file")
    fails(sn6_predict(f"checkpoint={tmp_path}", out, f"root={archive_root}"), tmp_path, "checkpoints/best.ckpt")
    fails(sn6_predict(checkpoint, out, f"root={tmp_path}"), "is not an archive")
    fails(sn6_predict(checkpoint, out, f"root={archive_root}", "tiles=4711"), "no tile 4711")
    fails(sn6_predict(checkpoint, out, f"root={archive_root}", "turn=true"), "turn= goes with images=")
    fails(sn6_predict(checkpoint, out, "images=nowhere"), "images=nowhere", "no such file or folder")
    fails(sn6_predict(checkpoint, out, f"images={tmp_path}"), "holds no .tif or .tiff file")
    fails(sn6_predict(checkpoint, out, f"root={archive_root}", "window=64", "overlap=64"), "overlap=64", "window=64")
    fails(sn6_predict(checkpoint, out, f"root={archive_root}", "devices=999"), "devices=999")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("x")
    fails(sn6_predict(checkpoint, f"out={tmp_path}/full", f"root={archive_root}"), "full is not empty")
    assert not (tmp_path / "out").exists()  # nothing is left of what was refused


def test_wrong_images_end_in_one_line(sn6_predict, run_folder, tmp_path):
    checkpoint, out = f"checkpoint={run_folder}", f"out={tmp_path}/out"

    def given(folder):
        return sn6_predict(checkpoint, out, f"images={tmp_path / folder}")

    write_tif(tmp_path / "three/a.tif", speckle(3))
    fails(given("three"), "a.tif has 3 bands", "SAR-Intensity (HH, HV, VH, VV)")
    write_tif(tmp_path / "degrees/a.tif", speckle(), crs="EPSG:4326", west=4, north=52, pixel=1e-5)
    fails(given("degrees"), "a.tif has the CRS EPSG:4326", "not in metres")
    write_tif(tmp_path / "zones/a.tif", speckle())
    write_tif(tmp_path / "zones/b.tif", speckle(), crs="EPSG:32632")
    fails(given("zones"), "b.tif has the CRS EPSG:32632", "predict them apart")
    write_tif(tmp_path / "names/a.tif", speckle())
    write_tif(tmp_path / "names/a.tiff", speckle())
    fails(given("names"), "have one name")
    write_tif(tmp_path / "comma/a,b.tif", speckle())
    fails(given("comma"), "a,b.tif has a comma", "rename it")
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.tif").write_text("no tif")
    fails(given("text"), "a.tif cannot be opened as a GeoTIFF")
    path = write_tif(tmp_path / "short/a.tif", speckle(size=200))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    fails(given("short"), "a.tif cannot be read, it is broken or cut short")


def other_checkpoint(run_folder, path, **changes):
    """A copy of the run's checkpoint with other values of its data or state."""
    held = torch.load(run_folder / "checkpoints/best.ckpt", weights_only=True)
    held["TileDataModule"]["source"] |= changes.pop("source", {})
    held["callbacks"]["PolygonF1"] |= changes.pop("found", {})
    held["hyper_parameters"]["config"]["model"] |= changes.pop("model", {})
    torch.save(held, path)
    return path


def test_checkpoints_that_do_not_go_together_end_in_one_line(sn6_predict, run_folder, archive_root, tmp_path):
    root, out = f"root={archive_root}", f"out={tmp_path}/out"
    bands = other_checkpoint(run_folder, tmp_path / "bands.ckpt", source={"bands": [4, 3, 2, 1]})
    fails(sn6_predict(f"checkpoint=[{run_folder},{bands}]", root, out), "bands.ckpt sees bands [4, 3, 2, 1]")
    product = other_checkpoint(run_folder, tmp_path / "product.ckpt", source={"product": "RGBNIR"})
    fails(sn6_predict(f"checkpoint=[{run_folder},{product}]", root, out), "of RGBNIR", "SAR-Intensity")
    found = other_checkpoint(run_folder, tmp_path / "found.ckpt", found={"threshold": 0.25})
    fails(sn6_predict(f"checkpoint=[{run_folder},{found}]", root, out), "different threshold: -0.7, 0.25")
    wider = other_checkpoint(run_folder, tmp_path / "wider.ckpt", model={"width": 8})
    fails(sn6_predict(f"checkpoint={wider}", root, out), "wider.ckpt does not fit the network")
    code = other_checkpoint(run_folder, tmp_path / "code.ckpt", model={"_target_": "os.system"})
    fails(sn6_predict(f"checkpoint={code}", root, out), "os.system is no network")
    short = tmp_path / "short.ckpt"
    short.write_bytes(bands.read_bytes()[:1000])
    fails(sn6_predict(f"checkpoint={short}", root, out), "short.ckpt", "cut short")


def test_what_was_found_for_a_checkpoint_goes_over_its_config(sn6_predict, run_folder, archive_root, tmp_path):
    found = other_checkpoint(run_folder, tmp_path / "found.ckpt", found={"threshold": 99.0})
    assert sn6_predict(f"checkpoint={found}", f"root={archive_root}", f"out={tmp_path}/out")[0] == 0
    assert "POLYGON ((" not in (tmp_path / "out/proposals.csv").read_text()


def test_a_file_of_safetensors_predicts_as_its_checkpoint(sn6_predict, run_folder, archive_root, tmp_path):
    held = torch.load(run_folder / "checkpoints/best.ckpt", weights_only=True)
    write_weights(tmp_path / "weights.safetensors", network_state(held), checkpoint_metadata(held))
    given = (f"root={archive_root}", "precision=32-true")
    for name, checkpoint in (("a", run_folder), ("b", tmp_path / "weights.safetensors")):
        assert sn6_predict(f"checkpoint={checkpoint}", *given, f"out={tmp_path}/{name}")[0] == 0
    a, b = ((tmp_path / name / "proposals.csv").read_text() for name in ("a", "b"))
    assert a == b
    assert "POLYGON ((" in a
