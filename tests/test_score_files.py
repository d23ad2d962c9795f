"""`python -m sn6.score` on files of each format, on the files of a run, and on invalid input."""

import json

import numpy as np
import pytest
from helpers.commands import assert_fails, small_run
from helpers.handmade import NORTH, WEST, speckle, write_tile
from helpers.score_files import counts, score, write_proposals, write_truth
from helpers.two_strips import CORNERS, write_two_strips
from shapely import Polygon, affinity, box

from sn6.datasets.spacenet6 import CRS, PIXEL, labels_path
from sn6.footprints import Footprints
from sn6.formats.challenge_csv import ChallengeCSVWriter
from sn6.formats.geojson import GeoJSONWriter
from sn6.formats.geoparquet import GeoParquetWriter

WRITERS = {
    "csv": ChallengeCSVWriter,
    "geojson": lambda path: GeoJSONWriter(path, CRS, PIXEL),
    "parquet": lambda path: GeoParquetWriter(path, CRS, PIXEL),
}
HOUSE = box(0, 0, 20, 20)


def write_all(folder, tiles):
    """Write the same tiles, name → (corner, polygons), in the three formats."""
    for suffix, writer in WRITERS.items():
        with writer(folder / f"p.{suffix}") as file:
            for name, (corner, polygons) in tiles.items():
                confidences = np.linspace(0, 1, len(polygons))
                file.write(name, corner, Footprints(np.array(polygons, dtype=object), confidences))


# --- the formats


def test_the_three_formats_give_the_same_score(tmp_path, sn6_command):
    """Corners off any grid; areas of exactly 80 px² and IoUs of exactly 1/2, which rounding would change."""
    rng = np.random.default_rng(3)
    edge = [box(0, 0, 10, 8), box(20, 0, 40, 10), Polygon([(50, 0), (70, 0), (70, 10), (60, 10), (60, 20), (50, 20)])]
    truth = {}
    tiles = {}
    for i in range(30):
        moved = [affinity.translate(shape, *rng.integers(0, 400, 2)) for shape in edge]
        corner = (WEST + rng.uniform(0, 1e3), NORTH - rng.uniform(0, 1e3))
        truth[f"s_tile_{i}"] = [*moved, affinity.translate(moved[1], 500, 0)]
        halves = [moved[0], box(*moved[1].bounds[:2], moved[1].bounds[0] + 10, moved[1].bounds[3]), moved[2]]
        tiles[f"s_tile_{i}"] = (corner, halves if i % 3 else [])
    truth_csv = write_truth(tmp_path, [(name, polygon, 5) for name, shapes in truth.items() for polygon in shapes])
    write_all(tmp_path, tiles)
    cards = {suffix: score(sn6_command, truth_csv, tmp_path / f"p.{suffix}")[0] for suffix in WRITERS}
    assert counts(cards["csv"]) == (40, 20, 80)
    assert cards["csv"]["interval"] is None
    assert len(cards["csv"]["notes"]) == len(cards["geojson"]["notes"]) + 1  # no interval without positions
    assert cards["geojson"] == cards["parquet"]
    assert cards["geojson"]["overall"] == cards["csv"]["overall"]
    assert cards["geojson"]["by_area"] == cards["csv"]["by_area"]
    assert cards["geojson"]["interval"]["spatial_blocks"] > 1
    for name in ("p.geojson", "p.parquet"):  # as the ground truth, too
        assert counts(score(sn6_command, tmp_path / name, tmp_path / "p.csv")[0]) == (60, 0, 0)


def test_a_gis_file_without_our_metadata_gets_its_tiles_from_the_archive(tmp_path, sn6_command):
    geopandas = pytest.importorskip("geopandas")
    root = tmp_path / "archive"
    _, proposed = write_two_strips(root)
    write_all(tmp_path, {name: (c, polygons) for (name, polygons), c in zip(proposed.items(), CORNERS, strict=True)})
    expected = {suffix: score(sn6_command, root, tmp_path / f"p.{suffix}")[0] for suffix in WRITERS}
    assert counts(expected["csv"]) == (2, 1, 2)
    table = geopandas.read_file(tmp_path / "p.geojson")
    table.to_parquet(tmp_path / "q.parquet")
    table.to_file(tmp_path / "q.geojson", driver="GeoJSON")
    assert "tiles" not in json.loads((tmp_path / "q.geojson").read_text())
    for suffix in ("parquet", "geojson"):
        card, _ = score(sn6_command, root, tmp_path / f"q.{suffix}")
        assert card == expected[suffix]
    without_root = sn6_command("score", f"truth={labels_path(root)}", f"proposals={tmp_path / 'q.parquet'}")
    assert_fails(without_root, "missing_value", key="root", value=table["image_id"][0])
    table.to_crs(4326).to_parquet(tmp_path / "degrees.parquet")
    degrees = sn6_command("score", f"truth={root}", f"proposals={tmp_path / 'degrees.parquet'}")
    assert_fails(degrees, "wrong_data", key=tmp_path / "degrees.parquet", value="EPSG:4326")


def test_files_in_other_crss_are_errors_even_if_they_name_their_tiles(tmp_path, sn6_command):
    """ogr2ogr keeps the members `tiles` and `pixel_size` of a collection and moves only the coordinates."""
    geopandas = pytest.importorskip("geopandas")
    root = tmp_path / "archive"
    names, proposed = write_two_strips(root)
    write_all(tmp_path, {name: (c, polygons) for (name, polygons), c in zip(proposed.items(), CORNERS, strict=True)})
    collection, table = json.loads((tmp_path / "p.geojson").read_text()), geopandas.read_file(tmp_path / "p.geojson")
    for crs in (3857, 4326, 32632, 28992):
        moved = json.loads(table.to_crs(crs).to_json())
        (tmp_path / "moved.geojson").write_text(json.dumps(collection | {"features": moved["features"]}))
        for truth in (root, tmp_path / "p.geojson"):
            done = sn6_command("score", f"truth={truth}", f"proposals={tmp_path / 'moved.geojson'}")
            assert_fails(done, "wrong_data", key=tmp_path / "moved.geojson")
    table.to_crs(3857).to_parquet(tmp_path / "mercator.parquet")
    done = sn6_command("score", f"truth={root}", f"proposals={tmp_path / 'mercator.parquet'}")
    assert_fails(done, "wrong_data", key=tmp_path / "mercator.parquet", value="EPSG:3857")
    corner = (491000.0, 6790000.0)  # of a file whose tiles are in another CRS, too
    with GeoJSONWriter(tmp_path / "other.geojson", "EPSG:3857", PIXEL) as file:
        file.write(names[0], corner, Footprints(np.array([HOUSE], dtype=object), np.ones(1)))
    done = sn6_command("score", f"truth={root}", f"proposals={tmp_path / 'other.geojson'}")
    assert_fails(done, "wrong_data", key=tmp_path / "other.geojson", value=names[0])
    done = sn6_command("score", f"truth={tmp_path / 'p.geojson'}", f"proposals={tmp_path / 'other.geojson'}")
    assert_fails(done, "conflict", key=tmp_path / "other.geojson", value=names[0])


def test_footprints_on_another_pixel_size_than_the_archive_are_an_error(tmp_path, sn6_command):
    root = tmp_path / "archive"
    names, _ = write_two_strips(root)
    with GeoJSONWriter(tmp_path / "coarse.geojson", CRS, 2 * PIXEL) as file:
        file.write(names[0], CORNERS[0], Footprints(np.array([HOUSE], dtype=object), np.ones(1)))
    done = sn6_command("score", f"truth={root}", f"proposals={tmp_path / 'coarse.geojson'}")
    assert_fails(done, "wrong_data", key=tmp_path / "coarse.geojson", value=1.0)


@pytest.mark.slow
def test_the_files_of_a_run_score_what_it_reported(sn6_run, sn6_command, archive_root, tmp_path):
    """A network after two steps, whose maps are full of holes and corners, on tiles of both look directions."""
    overrides = [*small_run(model="unet"), f"data.root={archive_root}", "polygons.threshold=0.27"]
    assert sn6_run(*overrides, "trainer.limit_val_batches=1", "trainer.limit_test_batches=4").status == 0
    folder = tmp_path / "outputs" / "it"
    reported = json.loads((folder / "metrics.json").read_text())["test"]
    assert reported["fp"] > 10
    assert reported["fn"] > 5
    for name in ("proposals.csv", "footprints.geojson"):
        card, _ = score(sn6_command, archive_root, folder / name)
        assert counts(card) == (reported["tp"], reported["fp"], reported["fn"])
        assert set(card["by_look_direction"]) == {"north", "south"}


# --- invalid input


UNPARSABLE = "POLYGON ((0 0, 9"
THREE_POINTS = "POLYGON ((0 0, 9 0, 0 0))"
NAN = "POLYGON ((0 0, 9 0, nan 9, 0 0))"
FULL_NAME = "SN6_Train_AOI_11_Rotterdam_SAR-Intensity_s_s_tile_7.tif"


@pytest.mark.parametrize(
    ("truth", "proposals", "kind", "file", "value"),
    [
        ([("a", "POLYGON EMPTY", "")], [("a", HOUSE, 1)], "wrong_data", "truth.csv", None),
        ([("a", HOUSE, 3)], [("b", HOUSE, 1)], "wrong_data", "proposals.csv", None),
        ([("a", HOUSE, 3)], [], "wrong_data", "proposals.csv", None),
        ([("a", HOUSE, 3)], [("a", UNPARSABLE, 1)], "invalid_value", "proposals.csv", UNPARSABLE),
        ([("a", HOUSE, 3)], [("a", THREE_POINTS, 1)], "invalid_value", "proposals.csv", THREE_POINTS),
        ([("a", NAN, 1)], [("a", HOUSE, 1)], "invalid_value", "truth.csv", NAN),
        ([("s_s_tile_7", HOUSE, 3)], [(FULL_NAME, HOUSE, 1)], "conflict", "proposals.csv", FULL_NAME),
        (
            [("a_tile_7", HOUSE, 3), ("b_tile_7", HOUSE, 3)],
            [("a_tile_7", HOUSE, 1)],
            "conflict",
            "truth.csv",
            "b_tile_7",
        ),
    ],
)
def test_rows_that_cannot_be_scored_are_errors(tmp_path, sn6_command, truth, proposals, kind, file, value):
    files = write_truth(tmp_path, truth), write_proposals(tmp_path, proposals)
    done = sn6_command("score", f"truth={files[0]}", f"proposals={files[1]}", f"out={tmp_path / 'score.json'}")
    assert_fails(done, kind, key=tmp_path / file, value=value)
    assert not (tmp_path / "score.json").exists()


@pytest.mark.parametrize(
    ("override", "kind", "key", "value"),
    [
        ("resamples=0", "invalid_value", "resamples", "0"),
        ("block_size=0", "invalid_value", "block_size", "0"),
        ("root=nowhere", "not_found", "nowhere", None),
        ("proposal=x", "unknown_key", "proposal", "x"),
    ],
)
def test_invalid_options_are_errors(tmp_path, sn6_command, override, kind, key, value):
    files = write_truth(tmp_path, [("a", HOUSE, 3)]), write_proposals(tmp_path, [("a", HOUSE, 1)])
    done = sn6_command("score", f"truth={files[0]}", f"proposals={files[1]}", override)
    assert_fails(done, kind, key, value)


def test_an_archive_without_labels_is_an_error(tmp_path, sn6_command):
    name = write_tile(tmp_path / "archive", "SAR-Intensity", speckle())
    proposals = write_proposals(tmp_path, [(name, HOUSE, 1)])
    done = sn6_command("score", f"truth={tmp_path / 'archive'}", f"proposals={proposals}")
    assert_fails(done, "not_found", "truth", tmp_path / "archive")


@pytest.mark.parametrize(
    ("name", "content", "kind", "value"),
    [
        ("p.shp", b"", "unknown_value", ".shp"),
        ("p.csv", b"ImageId,BuildingId,PolygonWKT_Pix\n", "wrong_data", "Confidence"),
        ("p.parquet", b"PAR1 and nothing else", "unreadable", None),
        ("missing/p.parquet", None, "not_found", None),
        (
            "p.geojson",
            b'{"features": [{"geometry": null, "properties": {"image_id": "a"}}]}',
            "wrong_data",
            "confidence",
        ),
        ("p.geojson", b'{"features": [{"geometry": null, "properties": {"confidence": 1}}]}', "wrong_data", "image_id"),
        (
            "p.geojson",
            b'{"tiles": ["a"], "features": [{"geometry": null, "properties": {"image_id": "a", "confidence": 1}}]}',
            "unreadable",
            "tiles",
        ),
    ],
)
def test_files_that_cannot_be_used_are_errors(tmp_path, sn6_command, name, content, kind, value):
    truth = write_truth(tmp_path, [("a", HOUSE, 3)])
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert_fails(sn6_command("score", f"truth={truth}", f"proposals={tmp_path / name}"), kind, tmp_path / name, value)
