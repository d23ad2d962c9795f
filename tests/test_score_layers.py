"""`python -m sn6.score` of two vector layers without tiles: by hand, against plain loops, and against tiles."""

import geopandas
import numpy as np
import pytest
import shapely
from helpers.commands import assert_fails
from helpers.score_files import counts, numbers_about, score
from shapely import LineString, Point, Polygon, affinity, box

from benchmarks.street_map import shifted, terraces
from sn6.footprints import Footprints
from sn6.formats.geojson import GeoJSONWriter
from sn6.formats.geoparquet import GeoParquetWriter
from sn6.metrics.boundary_iou import boundary_ious

ZONE = "EPSG:25833"
WEST, SOUTH = 390_000.0, 5_819_000.0  # a corner of squares of 450 m
HOUSE, LONE, ROW, SHED = (
    box(10, 10, 30, 30),
    box(60, 10, 70, 20),
    (box(100, 10, 110, 20), box(110, 10, 120, 20)),
    (box(140, 10, 144, 14)),
)
TRUTH = [HOUSE, LONE, *ROW, SHED]
PROPOSALS = {box(12, 10, 32, 30): 0.9, box(100, 10, 120, 20): 0.8, box(200, 10, 210, 20): 0.95, LONE: 0.3}


def write(path, shapes, crs=ZONE, **attributes):
    """Write polygons in m from (WEST, SOUTH) as a layer."""
    placed = [None if shape is None else affinity.translate(shape, WEST, SOUTH) for shape in shapes]
    frame = geopandas.GeoDataFrame(attributes or {"number": range(len(shapes))}, geometry=placed, crs=ZONE).to_crs(crs)
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_file(path)
    return path


@pytest.fixture
def layers(tmp_path):
    """Return the layers of TRUTH and PROPOSALS."""
    truth = write(tmp_path / "truth.gpkg", TRUTH, height=[5.0, 2.0, 9.0, 9.0, None])
    return truth, write(tmp_path / "proposals.gpkg", PROPOSALS, confidence=[*PROPOSALS.values()])


# --- by hand


def test_the_score_by_hand(layers, sn6_command):
    """The house at an IoU of 360/440 and the lone one are found; the row is merged, at an IoU of exactly 1/2."""
    card, printed = score(sn6_command, *layers, "height=height")
    assert card["overall"] == pytest.approx({"tp": 2, "fp": 2, "fn": 2, "precision": 0.5, "recall": 0.5, "f1": 0.5})
    scores = card["instances"]
    assert (scores["merged"], scores["split"]) == (1, 0)
    assert scores["matched_iou"] == pytest.approx((360 / 440 + 1) / 2)
    assert scores["pq"] == pytest.approx((360 / 440 + 1) / 4)
    assert scores["ap50"] == pytest.approx(1 / 4 * 1 / 2 + 1 / 4 * 2 / 4)  # FP, TP, FP, TP of 4 buildings
    band, shared = 20**2 - 17**2, 360 - 2 * 16.5 * 17 + 15 * 17
    assert scores["boundary_iou"] == pytest.approx((shared / (2 * band - shared) + 1) / 2)
    parts = {name: [part[key] for key in ("tp", "fp", "fn")] for name, part in card["by_neighbours"].items()}
    assert parts == {"touching": [0, 1, 2], "alone": [2, 1, 0]}
    assert {name: bin["buildings"] for name, bin in card["by_area"].items() if bin["buildings"]} == {
        "80-160 m2": 3,
        "320-640 m2": 1,
    }
    heights = {name: (bin["buildings"], bin["matched"]) for name, bin in card["by_height"].items() if bin["buildings"]}
    assert heights == {"0-3 m": (1, 1), "3-6 m": (1, 1), "6-12 m": (2, 0)}
    assert (card["iou"], card["min_area"], card["ground"]["crs"], card["ground"]["area"]) == (0.5, 20, ZONE, None)
    assert card["ground"]["bounds"] == pytest.approx([WEST + 10, SOUTH + 10, WEST + 210, SOUTH + 30])
    assert card["ground"]["km2"] == pytest.approx(200 * 20 / 1e6)
    for figure in ("0.500", f"{scores['boundary_iou']:.3f}", f"{scores['ap50']:.3f}", ZONE):
        assert figure in printed


def test_the_iou_of_a_match_is_an_option(layers, sn6_command):
    card, printed = score(sn6_command, *layers, "iou=0.9")
    assert counts(card) == (1, 3, 3)
    assert card["instances"]["ap90"] == pytest.approx(1 / 4 * 1 / 4)
    assert "AP90" in printed
    card, _ = score(sn6_command, *layers, "iou=0.45")
    assert counts(card) == (3, 1, 1)  # that of both in a row covers half of its proposal


def test_the_minimum_area_is_in_square_metres(layers, sn6_command):
    card, _ = score(sn6_command, *layers, "min_area=16")
    assert counts(card) == (2, 2, 3)
    assert card["by_area"]["16-20 m2"]["buildings"] == 1
    card, _ = score(sn6_command, *layers, "min_area=150")
    assert counts(card) == (1, 1, 0)
    assert "80-160 m2" not in card["by_area"]


def test_without_confidences_the_order_of_the_file_decides_and_there_is_no_ap(layers, tmp_path, sn6_command):
    """Of two proposals of one building the first matches it, although the second one is exact."""
    proposals = write(tmp_path / "q.gpkg", [box(12, 10, 32, 30), HOUSE])
    card, printed = score(sn6_command, layers[0], proposals)
    assert counts(card) == (1, 1, 3)
    assert card["instances"]["matched_iou"] == pytest.approx(360 / 440)
    assert card["instances"]["ap50"] is None
    assert "AP50" not in printed
    ranked = write(tmp_path / "r.gpkg", [box(12, 10, 32, 30), HOUSE], certainty=[0.2, 0.7])
    card, _ = score(sn6_command, layers[0], ranked, "confidence=certainty")
    assert card["instances"]["matched_iou"] == 1
    assert card["instances"]["ap50"] == pytest.approx(1 / 4)


def test_a_condition_selects_buildings(tmp_path, layers, sn6_command):
    for name in ("t.gpkg", "t.parquet"):
        truth = write(tmp_path / name, TRUTH, kind=["house", "hut", "house", "house", "hut"], tall=[5, 2, 9, 9, 1])
        card, _ = score(sn6_command, truth, layers[1], "where=kind = 'house' AND tall < 7", "height=tall")
        assert counts(card) == (1, 3, 0)
        assert card["by_height"]["3-6 m"]["matched"] == 1


def test_what_is_repaired_is_counted_in_a_note(tmp_path, layers, sn6_command):
    bow_tie = Polygon([(0, 0), (40, 40), (40, 0), (0, 40)])
    truth = write(tmp_path / "t.gpkg", [affinity.translate(bow_tie, 300, 0), *TRUTH])
    card, _ = score(sn6_command, truth, layers[1])
    assert counts(card) == (2, 2, 4)  # two triangles, a building each
    assert sum(str(truth) in note for note in card["notes"]) == 2


# --- against plain implementations


def plain_match(truths, proposals, confidences, min_area, min_iou):
    """Return the pairs of a loop over all proposals and buildings: proposal → (building, IoU)."""
    free = [i for i, truth in enumerate(truths) if truth.area >= min_area]
    pairs = {}
    for j in sorted(range(len(proposals)), key=lambda j: -confidences[j]):
        if proposals[j].area < min_area:
            continue
        ious = {
            i: truths[i].intersection(proposals[j]).area / truths[i].union(proposals[j]).area
            for i in free
            if truths[i].intersects(proposals[j])
        }
        best = max(ious, key=lambda i: ious[i], default=None)
        if best is not None and ious[best] > min_iou:
            pairs[j] = (best, ious[best])
            free.remove(best)
    return pairs


@pytest.mark.parametrize("min_iou", [0.2, 0.5, 0.75])
def test_a_town_is_scored_as_by_loops_over_all_pairs(tmp_path, sn6_command, min_iou):
    rng = np.random.default_rng(7)
    truths = terraces(rng, 250, 700, 25)
    proposed = shifted(rng, truths)
    proposals, confidences = jittered(rng, proposed.polygons), proposed.confidences
    files = (
        write(tmp_path / "t.gpkg", truths),
        write(tmp_path / "p.gpkg", proposals, confidence=confidences),
    )
    card, _ = score(sn6_command, *files, f"iou={min_iou}", "min_area=100")
    pairs = plain_match(truths, proposals, confidences, 100, min_iou)
    sizes = [sum(one.area >= 100 for one in side) for side in (truths, proposals)]
    assert counts(card) == (len(pairs), sizes[1] - len(pairs), sizes[0] - len(pairs))
    assert 10 < len(pairs) < min(sizes)
    assert card["instances"]["matched_iou"] == pytest.approx(np.mean([iou for _, iou in pairs.values()]), rel=1e-5)
    bands = [(band(truths[i]), band(proposals[j])) for j, (i, _) in pairs.items()]
    boundary_iou = np.mean([one.intersection(other).area / one.union(other).area for one, other in bands])
    assert card["instances"]["boundary_iou"] == pytest.approx(boundary_iou, rel=1e-5)


def jittered(rng, polygons):
    """Move polygons by about 1 m, and scale them."""
    scales = rng.uniform(0.8, 1.2, (len(polygons), 2))
    return [affinity.scale(one, *scale) for one, scale in zip(polygons, scales.tolist(), strict=True)]


def band(polygon, distance=1.5):
    return polygon.intersection(polygon.exterior.buffer(distance))


def test_the_boundary_iou_of_a_narrow_building_is_its_iou():
    narrow, beside = np.array([box(0, 0, 20, 3)], dtype=object), np.array([box(0, 1, 20, 4)], dtype=object)
    assert boundary_ious(narrow, beside, 1.5) == pytest.approx([40 / 80])
    assert boundary_ious(narrow, narrow, 1.5) == pytest.approx([1])


def test_the_boundary_iou_counts_the_outline_of_a_court():
    """The band around the court is 1.5 m wide, with round corners."""
    court = Polygon(box(0, 0, 40, 40).exterior, [box(10, 10, 30, 30).exterior])
    filled = np.array([box(0, 0, 40, 40)], dtype=object)
    outer, inner = 40**2 - 37**2, 4 * 20 * 1.5 + np.pi * 1.5**2
    ious = boundary_ious(np.array([court], dtype=object), filled, 1.5)
    assert ious == pytest.approx([outer / (outer + inner)], rel=1e-3)


# --- against the score of tiles


@pytest.fixture
def one_tile(tmp_path):
    """Write a town on a tile of 300 m as files of sn6, and as layers without tiles of the town and its surroundings."""
    rng = np.random.default_rng(5)
    town = terraces(rng, 300, 400, 25)  # pixels are metres here; parts of the town are beyond the tile
    proposed = shifted(rng, town)
    proposals = np.array(jittered(rng, proposed.polygons), dtype=object)
    tile = box(0, 0, 300, 300)
    files = []
    for name, polygons, confidences in (("t", town, np.ones(len(town))), ("p", proposals, proposed.confidences)):
        write(tmp_path / f"{name}.gpkg", polygons, confidence=confidences)
        parts, row = shapely.get_parts(shapely.intersection(polygons, tile), return_index=True)
        kept = shapely.area(parts) > 0
        with GeoJSONWriter(tmp_path / f"{name}.geojson", ZONE, 0.5) as file:
            pixels = shapely.transform(parts[kept], lambda xy: (xy - (0, 300)) / (0.5, -0.5))
            file.write("one", (WEST, SOUTH + 300), Footprints(pixels, confidences[row[kept]]))
        files.append((tmp_path / f"{name}.geojson", tmp_path / f"{name}.gpkg"))
    return files, write(tmp_path / "area.gpkg", [tile])


def test_one_tile_scores_as_its_ground(one_tile, sn6_command):
    ((truth, all_truth), (proposals, all_proposals)), area = one_tile
    by_tile, _ = score(sn6_command, truth, proposals)
    assert by_tile["tiles"] == 1
    cut, _ = score(sn6_command, all_truth, all_proposals, f"area={area}")
    assert by_tile["overall"]["tp"] > 50
    for key in ("overall", "by_neighbours", "by_area", "by_height"):
        assert cut[key] == by_tile[key]
    assert cut["instances"] == pytest.approx(by_tile["instances"], rel=1e-6)
    assert cut["ground"]["km2"] == pytest.approx(0.09)
    uncut, _ = score(sn6_command, all_truth, all_proposals)
    assert sum(counts(uncut)) > 1.3 * sum(counts(cut))


def test_a_layer_without_tiles_beside_one_of_sn6(one_tile, tmp_path, sn6_command):
    """The tiles of one file have no part in the score of both."""
    ((truth, _), (proposals, _)), _ = one_tile
    by_tile, _ = score(sn6_command, truth, proposals)
    frame = geopandas.read_file(truth).drop(columns="image_id")
    for name in ("labels.geojson", "labels.parquet"):
        path = tmp_path / name
        frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_file(path)
        card, _ = score(sn6_command, path, proposals)
        assert card["overall"] == by_tile["overall"]


def test_a_file_of_tiles_without_footprints_is_scored_by_tile(one_tile, tmp_path, sn6_command):
    ((truth, _), _), _ = one_tile
    for name, writer in (("e.geojson", GeoJSONWriter), ("e.parquet", GeoParquetWriter)):
        with writer(tmp_path / name, ZONE, 0.5) as file:
            file.write("one", (WEST, SOUTH + 300), Footprints(np.empty(0, dtype=object), np.empty(0)))
        card, _ = score(sn6_command, truth, tmp_path / name)
        assert card["tiles"] == 1
        assert counts(card)[:2] == (0, 0)


def test_a_geoparquet_of_sn6_is_a_layer(layers, tmp_path, sn6_command):
    with GeoParquetWriter(tmp_path / "p.parquet", ZONE, 1.0) as file:
        pixels = [affinity.affine_transform(one, (1, 0, 0, -1, 0, 100)) for one in PROPOSALS]
        file.write(
            "one", (WEST, SOUTH + 100), Footprints(np.array(pixels, dtype=object), np.array([*PROPOSALS.values()]))
        )
    card, expected = score(sn6_command, layers[0], tmp_path / "p.parquet")[0], score(sn6_command, *layers)[0]
    assert card["overall"] == expected["overall"]
    assert card["instances"] == pytest.approx(expected["instances"])


# --- CRS and ground


@pytest.mark.parametrize(
    ("crs_of_truth", "crs_of_proposals", "scored_in"),
    [
        (ZONE, "EPSG:4326", ZONE),
        (ZONE, "EPSG:3857", ZONE),
        (ZONE, "EPSG:25832", ZONE),
        ("EPSG:4326", ZONE, "EPSG:32633"),
        ("EPSG:3857", "EPSG:4326", "EPSG:32633"),  # its metres are too long by a factor of 1.6
        ("EPSG:2236", "EPSG:4326", "EPSG:32617"),  # feet, in Florida
    ],
)
def test_layers_in_any_crs_are_scored_in_metres(tmp_path, sn6_command, crs_of_truth, crs_of_proposals, scored_in):
    truth, proposals = TRUTH, [*PROPOSALS]
    if crs_of_truth == "EPSG:2236":
        place = (560_000 - WEST, 2_850_000 - SOUTH)
        truth, proposals = ([affinity.translate(one, *place) for one in side] for side in (truth, proposals))
        paths = [tmp_path / name for name in ("t.gpkg", "p.gpkg")]
        for path, side, crs in zip(paths, (truth, proposals), (crs_of_truth, crs_of_proposals), strict=True):
            placed = [affinity.translate(one, WEST, SOUTH) for one in side]
            geopandas.GeoDataFrame(geometry=placed, crs="EPSG:32617").to_crs(crs).to_file(path)
    else:
        paths = [
            write(tmp_path / "t.gpkg", truth, crs_of_truth),
            write(tmp_path / "p.gpkg", proposals, crs_of_proposals),
        ]
    card, _ = score(sn6_command, *paths, "iou=0.51")  # an IoU of exactly 0.5 may be above it after a projection
    assert card["ground"]["crs"] == scored_in
    assert counts(card) == (2, 2, 2)
    assert card["by_area"]["320-640 m2"]["matched"] == 1
    assert card["instances"]["matched_iou"] == pytest.approx((360 / 440 + 1) / 2, abs=0.005)


def test_an_area_cuts_both_layers_alike(layers, tmp_path, sn6_command):
    """Its edge halves the house and its proposal; what is left of the lone one is too small to count."""
    area = write(tmp_path / "a.geojson", [box(0, 0, 20, 60), box(60, 0, 62, 60), box(90, 0, 130, 30)], "EPSG:4326")
    card, printed = score(sn6_command, *layers, f"area={area}", "iou=0.51", "min_area=21")
    assert counts(card) == (1, 1, 2)
    assert card["instances"]["matched_iou"] == pytest.approx(8 / 10, abs=1e-3)
    assert (card["ground"]["area"], card["ground"]["km2"]) == (str(area), pytest.approx(2520e-6, rel=0.01))
    assert str(area) in printed


def test_an_area_without_proposals_scores_0(layers, tmp_path, sn6_command):
    area = write(tmp_path / "a.gpkg", [box(139, 9, 150, 20)])
    card, _ = score(sn6_command, *layers, f"area={area}", "min_area=10")
    assert counts(card) == (0, 0, 1)
    assert card["instances"]["ap50"] == 0


@pytest.mark.parametrize("writer", [GeoJSONWriter, GeoParquetWriter])
def test_a_map_without_footprints_scores_0(layers, tmp_path, sn6_command, writer):
    path = tmp_path / ("none.geojson" if writer is GeoJSONWriter else "none.parquet")
    with writer(path, ZONE, 0.5) as file:
        file.write("a", (WEST, SOUTH), Footprints(np.empty(0, dtype=object), np.empty(0)))
    card, _ = score(sn6_command, layers[0], path)
    assert (card["overall"]["tp"], card["overall"]["fp"], card["overall"]["fn"]) == (0, 0, 4)


def test_proposals_beyond_the_ground_truth_are_told(layers, sn6_command):
    card, _ = score(sn6_command, *layers)
    assert [note for note in card["notes"] if note.startswith(f"{layers[1]}: 1 of 4 ")]


def test_polygons_that_are_twice_in_a_layer_are_told(layers, tmp_path, sn6_command):
    """As those of overlapping tiles; the third one has an IoU of 360/440 with each of the first two."""
    proposals = write(tmp_path / "q.gpkg", [HOUSE, HOUSE, box(12, 10, 32, 30), LONE])
    card, _ = score(sn6_command, layers[0], proposals)
    assert counts(card) == (2, 2, 2)
    assert numbers_about(card, proposals)[0][0] == 2


def test_the_bootstrap_resamples_squares_of_ground(tmp_path, sn6_command):
    """Pairs count where the building is: the one across the edge of two squares is in the western one."""
    truth = [box(430, 10, 460, 40), box(500, 10, 520, 30), box(10, 500, 30, 520)]
    proposals = [box(440, 10, 467, 40), box(10, 10, 30, 30), box(700, 700, 705, 703)]  # one is too small to count
    files = write(tmp_path / "t.gpkg", truth), write(tmp_path / "p.gpkg", proposals)
    card, printed = score(sn6_command, *files, "block_size=450")
    assert counts(card) == (1, 1, 2)
    assert card["interval"]["spatial_blocks"] == len({(0, 0), (1, 0), (0, 1)})
    assert card["interval"]["f1"] == pytest.approx([0, 2 / 3])  # of no square, of one with a true and a false positive
    assert "95%" in printed
    card, _ = score(sn6_command, *files, "block_size=1e6")
    assert card["interval"] is None


# --- invalid input


def test_layers_that_cannot_be_scored_are_errors(layers, tmp_path, sn6_command):
    truth, proposals = layers

    def fails(kind, key, *overrides, truth=truth, proposals=proposals, **value):
        done = sn6_command(
            "score", f"truth={truth}", f"proposals={proposals}", *overrides, f"out={tmp_path / 's.json'}"
        )
        assert_fails(done, kind, key, **value)
        assert not (tmp_path / "s.json").exists()

    without_crs = write(tmp_path / "n.shp", TRUTH)
    without_crs.with_suffix(".prj").unlink()
    fails("wrong_data", without_crs, truth=without_crs)
    for name, shape in (("points", Point(0, 0)), ("lines", LineString([(0, 0), (9, 9)]))):
        path = write(tmp_path / f"{name}.gpkg", [shape])
        fails("wrong_data", path, proposals=path)
    fails("wrong_data", truth, "where=height > 99")
    fails("not_found", truth, "height=hight", value="hight")
    fails("not_found", proposals, "confidence=certainty", value="certainty")
    fails("not_found", tmp_path / "no.gpkg", proposals=tmp_path / "no.gpkg")
    fails("wrong_data", truth, "min_area=1000", value=1000)
    elsewhere = write(tmp_path / "e.gpkg", [box(900, 900, 920, 920)])
    fails("wrong_data", elsewhere, proposals=elsewhere)
    fails("wrong_data", elsewhere, f"area={elsewhere}")
    partly = write(tmp_path / "c.gpkg", [HOUSE, LONE], confidence=[0.5, None])
    fails("wrong_data", partly, proposals=partly)
    metres_in_degrees = tmp_path / "m.gpkg"
    geopandas.read_file(proposals).set_crs(4326, allow_override=True).to_file(metres_in_degrees)
    fails("wrong_data", metres_in_degrees, proposals=metres_in_degrees, value="EPSG:4326")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and nothing else")
    fails("unreadable", tmp_path / "b.parquet", proposals=tmp_path / "b.parquet")


@pytest.mark.parametrize(("option", "value"), [("strict", "true"), ("root", "somewhere"), ("flips", "true")])
def test_options_of_tiles_are_refused_without_tiles(layers, sn6_command, option, value):
    truth, proposals = layers
    done = sn6_command("score", f"truth={truth}", f"proposals={proposals}", f"{option}={value}")
    assert_fails(done, "conflict", option)


@pytest.mark.parametrize(
    "override", ["area=a.gpkg", "iou=0.4", "min_area=0", "where=x > 1", "height=h", "confidence=c"]
)
def test_options_of_layers_are_refused_with_tiles(one_tile, sn6_command, override):
    ((truth, _), (proposals, _)), _ = one_tile
    done = sn6_command("score", f"truth={truth}", f"proposals={proposals}", override)
    assert_fails(done, "conflict", override.partition("=")[0])


@pytest.mark.parametrize(("key", "value"), [("iou", "0"), ("iou", "1"), ("min_area", "-1")])
def test_options_out_of_range_are_errors(layers, sn6_command, key, value):
    truth, proposals = layers
    done = sn6_command("score", f"truth={truth}", f"proposals={proposals}", f"{key}={value}")
    assert_fails(done, "invalid_value", key, value)
