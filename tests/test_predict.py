"""Predict the tiles of an archive with `python -m sn6.predict`, from a finished run to files for other programs."""

import json
from typing import TextIO

import geopandas
import pytest
import rasterio
import rasterio.features
import shapely
import torch
from helpers.commands import assert_fails, small_run
from helpers.networks import random_network, write_network
from helpers.stopping import predict_and_stop, run_and_stop

from sn6.checkpoints.loading import read_checkpoint
from sn6.checkpoints.weights_file import write_weights
from sn6.datasets.spacenet6 import SpaceNet6
from sn6.footprints import Footprints
from sn6.formats import geojson, geoparquet
from sn6.formats.challenge_csv import read_proposals
from sn6.formats.outlines import parts
from sn6.metrics.matching import Counts, match_tile
from sn6.predict import predict

THRESHOLD = 0.33  # of the run; not the default
FORMATS = "formats=[csv,gpkg,geojson,parquet,fgb]"


@pytest.fixture(scope="module")
def run_folder(archive_root, tmp_path_factory):
    """A finished run, whose network detects some buildings and proposes some others."""
    folder = tmp_path_factory.mktemp("run")
    overrides = [override for override in small_run() if "limit" not in override and "max_epochs" not in override]
    overrides += ["trainer.max_epochs=1", "data.crops_per_tile=80", "optimizer.lr=3e-3", f"data.root={archive_root}"]
    overrides += [f"polygons.threshold={THRESHOLD}", "callbacks.calibration=null"]
    assert run_and_stop(overrides, folder) == 0, (folder / "log.txt").read_text()
    return folder / "outputs/it"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_network(tmp_path_factory.mktemp("network") / "weights.safetensors", random_network())


@pytest.fixture
def sn6_predict(sn6_command, archive_root):
    """`python -m sn6.predict root=... overrides...` in this process, on the CPU."""
    return lambda *overrides: sn6_command("predict", f"root={archive_root}", *overrides, FORMATS, "device=cpu")


def total_counts(archive_root, footprints):
    """Score footprints by tile on the test tiles of the archive."""
    archive, total = SpaceNet6(archive_root), Counts()
    for tile in archive.tiles("test_public", "SAR-Intensity"):
        proposals, truth = footprints[tile.image_id], archive.labels(tile).polygons
        total += match_tile(truth, proposals.polygons, proposals.confidences).counts
    return total


def by_tile(outlines):
    return {tile: Footprints(*parts(rows)) for tile, rows in outlines.by_tile()}


@pytest.mark.slow
def test_each_format_scores_as_the_run_reported(sn6_predict, run_folder, archive_root, tmp_path):
    done = sn6_predict(f"checkpoint={run_folder}", f"out={tmp_path}/out")
    assert done.status == 0, done.err
    metrics = json.loads((run_folder / "metrics.json").read_text())["test"]
    expected = Counts(metrics["tp"], metrics["fp"], metrics["fn"])
    assert expected.tp + expected.fp > 1
    formats = [
        read_proposals(tmp_path / "out/proposals.csv"),
        by_tile(geojson.read_outlines(tmp_path / "out/footprints.geojson", "confidence")),
        by_tile(geoparquet.read_outlines(tmp_path / "out/footprints.parquet", "confidence")),
    ]
    for footprints in formats:
        assert total_counts(archive_root, footprints) == expected
    assert (tmp_path / "out/proposals.csv").read_text() == (run_folder / "proposals.csv").read_text()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "prediction.json",
        "proposals.csv",
        "footprints.geojson",
        *(f"footprints.{name}" for name in ("parquet", "gpkg", "fgb", "qml")),
    }


def test_a_submission_has_a_row_for_every_tile(sn6_predict, weights, archive_root, tmp_path):
    sn6_predict(f"checkpoint={weights}", f"out={tmp_path}/out", "threshold=0.999999")
    lines = (tmp_path / "out/proposals.csv").read_text().splitlines()
    tiles = [tile.image_id for tile in SpaceNet6(archive_root).tiles("test_public", "SAR-Intensity")]
    assert lines == [
        "ImageId,BuildingId,PolygonWKT_Pix,Confidence",
        *(f'{tile},-1,"POLYGON EMPTY",0' for tile in tiles),
    ]
    assert len(geopandas.read_parquet(tmp_path / "out/footprints.parquet")) == 0


def test_maps_have_the_position_of_their_tiles(sn6_predict, weights, archive_root, tmp_path):
    out = tmp_path / "out"
    assert sn6_predict(f"checkpoint={weights}", f"out={out}", "probability=true", "pictures=2").status == 0
    tiles = {tile.image_id: tile for tile in SpaceNet6(archive_root).tiles("test_public", "SAR-Intensity")}
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
            assert raster.overviews(1) == []  # the tile is one block
        footprints = proposals[image_id]
        for polygon, confidence in zip(footprints.polygons, footprints.confidences, strict=True):
            covered = rasterio.features.rasterize([polygon], out_shape=stored.shape).astype(bool) & (stored < 255)
            assert (stored[covered] * scale).mean() == pytest.approx(confidence, abs=0.12)  # outlines are simplified
    assert len(list((out / "pictures").glob("*.png"))) == 2


def test_training_tiles_are_chosen_by_number_and_image_id(sn6_predict, weights, archive_root, tmp_path):
    first, second, *_ = SpaceNet6(archive_root).tiles("train", "SAR-Intensity")
    tiles = f"tiles=[{first.image_id.rpartition('_')[2]},{second.image_id}]"
    overrides = (f"checkpoint={weights}", "split=train", tiles)
    assert sn6_predict(*overrides, f"out={tmp_path}/out").status == 0
    assert set(read_proposals(tmp_path / "out/proposals.csv")) == {first.image_id, second.image_id}


@pytest.mark.slow
def test_several_processes_predict_the_same_as_one(sn6_predict, weights, tmp_path):
    assert sn6_predict(f"checkpoint={weights}", f"out={tmp_path}/one").status == 0
    assert sn6_predict(f"checkpoint={weights}", f"out={tmp_path}/two", "processes=2", "batch=2").status == 0
    one, two = (read_proposals(tmp_path / name / "proposals.csv") for name in ("one", "two"))
    assert list(one) == list(two)
    assert {tile: len(rows) for tile, rows in one.items()} == {tile: len(rows) for tile, rows in two.items()}


@pytest.mark.slow
def test_a_stopped_prediction_resumes(sn6_predict, weights, archive_root, tmp_path):
    """Killed twice between two windows or images, it writes the same files as without a stop."""
    overrides = [f"checkpoint={weights}", "window=96", "overlap=32"]
    assert sn6_predict(*overrides, f"out={tmp_path}/never").status == 0
    overrides += [f"root={archive_root}", f"out={tmp_path}/twice", "device=cpu", FORMATS]
    for steps, status in ((3, -9), (5, -9), (999, 0)):
        assert predict_and_stop(overrides, steps) == status
        assert (tmp_path / "twice/proposals.csv").exists() == (status == 0)
    for name in ("proposals.csv", *(f"footprints.{suffix}" for suffix in ("geojson", "gpkg", "parquet", "fgb"))):
        assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / "never" / name).read_bytes()
    assert not (tmp_path / "twice/unfinished").exists()


def test_a_finished_prediction_is_not_repeated_or_overwritten(sn6_predict, weights, tmp_path):
    overrides = (f"checkpoint={weights}", f"out={tmp_path}/out")
    assert sn6_predict(*overrides).status == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert sn6_predict(*overrides).status == 0
    assert_fails(sn6_predict(*overrides, "threshold=0.6"), "conflict", "threshold", 0.6)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_a_prediction_is_finished_before_its_files_are_listed(weights, archive_root, tmp_path, monkeypatch):
    """With `| head -1` nobody reads the list to its end."""

    def fail(*values: object, file: TextIO | None = None, **options: object) -> None:
        if file is None:
            raise BrokenPipeError

    monkeypatch.setattr("builtins.print", fail)
    with pytest.raises(BrokenPipeError):
        predict(checkpoint=weights, root=archive_root, out=tmp_path / "out")
    assert "result" in json.loads((tmp_path / "out/prediction.json").read_text())
    assert not (tmp_path / "out/unfinished").exists()


@pytest.mark.slow
def test_options_calibrated_for_a_checkpoint_take_precedence_over_its_config(sn6_predict, run_folder, tmp_path):
    checkpoint = torch.load(run_folder / "checkpoints/best.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["config"]["polygons"]["threshold"] == THRESHOLD
    checkpoint["callbacks"]["PolygonF1"]["polygons"]["threshold"] = 0.999999
    torch.save(checkpoint, tmp_path / "calibrated.ckpt")
    assert sn6_predict(f"checkpoint={tmp_path}/calibrated.ckpt", f"out={tmp_path}/out").status == 0
    assert "POLYGON ((" not in (tmp_path / "out/proposals.csv").read_text()


@pytest.mark.slow
def test_a_safetensors_file_predicts_the_same_as_its_checkpoint(sn6_predict, run_folder, tmp_path):
    weights, metadata = read_checkpoint(run_folder / "checkpoints/best.ckpt", "checkpoint")
    write_weights(tmp_path / "weights.safetensors", weights, metadata.model_dump())
    for name, path in (("a", run_folder), ("b", tmp_path / "weights.safetensors")):
        assert sn6_predict(f"checkpoint={path}", "precision=32-true", f"out={tmp_path}/{name}").status == 0
    a, b = ((tmp_path / name / "proposals.csv").read_text() for name in ("a", "b"))
    assert a == b
    assert "POLYGON ((" in a
