"""Each part of the benchmarks measures two ways that agree, and ends where they do not. No time is asserted."""

import subprocess
import sys

import numpy as np
import pytest
import shapely
import torch

from benchmarks import archive, boundary, crop, f1, growth, masks, polygons, process, step, tile
from benchmarks.comparison import Mismatch, NotRun, Row, table_of
from sn6.footprints import Footprints
from sn6.formats.challenge_csv import ChallengeCSVWriter

SHORT = {
    boundary: {"counts": (5,), "size": 120, "repeats": 1},
    polygons: {"components": 9, "repeats": 1},
    f1: {"tiles": 2, "buildings": 9, "invented": 4, "repeats": 1},
    crop: {"tiles": 8, "size": 96, "crop": 64, "repeats": 1},
    masks: {"buildings": 9, "repeats": 1},
    step: {"crops": 1, "size": 64, "width": 2, "repeats": 1},
    archive: {"tiles": 2, "size": 128, "width": 4},
}


@pytest.mark.parametrize("part", SHORT, ids=lambda part: part.__name__)
def test_a_part_gives_rows_where_both_ways_agree(part):
    rows = list(part.rows(**SHORT[part]))
    assert {type(row) for row in rows} <= {Row, NotRun}
    measured = [row for row in rows if isinstance(row, Row)]
    assert all(row.ours > 0 and row.theirs > 0 and row.equality for row in measured)
    assert measured
    assert table_of(rows).row_count == len(rows)


WRONG = [
    (boundary, "boundary_term", lambda right: lambda *given: right(*given) + 1e-4),
    (
        polygons,
        "polygonize",
        lambda right: lambda labels: (shapely.transform(right(labels)[0], lambda xy: xy + 1), None),
    ),
    (f1, "match_tile", lambda right: lambda truth, *given: right(truth[1:], *given)),
    (crop, "plain_crop", lambda right: lambda place: {name: 2 * one for name, one in right(place).items()}),
    (masks, "rasterize_instances", lambda right: lambda found, *given: right(found[::-1], *given)),
    (step, "with_weights_of", lambda right: lambda network, width: brighter(right(network, width))),
]


def brighter(network):
    with torch.no_grad():
        network.head.bias += 0.1
    return network


@pytest.mark.parametrize(("part", "name", "spoil"), WRONG, ids=[part.__name__ for part, _, _ in WRONG])
def test_a_part_ends_where_the_answers_differ(part, name, spoil, monkeypatch):
    if part is masks:
        pytest.importorskip("geopandas")
    monkeypatch.setattr(part, name, spoil(getattr(part, name)))
    with pytest.raises(Mismatch):
        list(part.rows(**SHORT[part]))


def test_a_tile_is_compared_by_its_logits_and_its_polygons():
    logits = np.full((40, 40), -3, dtype=np.float32)
    logits[5:20, 5:25] = 3
    assert "equal" in tile.agreement(logits, logits, logits)
    for half, theirs in ((logits, -logits), (-logits, logits)):
        with pytest.raises(Mismatch):
            tile.agreement(logits, half, theirs)


def test_an_archive_is_compared_by_the_ground_of_the_footprints(tmp_path):
    def written(name, *sides):
        found = np.array([shapely.box(1, 1, side, side) for side in sides])
        with ChallengeCSVWriter(tmp_path / name) as table:
            table.write("a", (0.0, 0.0), Footprints(found, np.ones(len(sides))))
        return tmp_path / name

    assert archive.agreement(written("one", 15), written("two", 15), 40).startswith("100.00%")
    with pytest.raises(Mismatch):
        archive.agreement(written("one", 15), written("three", 22), 40)


def test_both_ways_of_a_tile_find_the_same_buildings():
    given = tile.case(128, 4, "cpu")
    ours = tile.sn6_tile(given.ensemble("32-true"), given)
    peer = tile.with_weights_of(given.network, 4).eval()
    for way in (tile.whole, tile.windows):
        theirs = tile.baseline_tile(way, peer, given)
        assert len(ours) == len(theirs) > 0
        areas = sorted(shapely.area(ours.polygons)), sorted(shapely.area(theirs))
        np.testing.assert_allclose(*areas, rtol=0.1)  # simplified each from a corner of its own


@pytest.mark.parametrize(
    ("ours", "theirs", "ratio", "most", "reached"),
    [
        (0.01, 1.0, 100, None, True),
        (0.011, 1.0, 100, None, False),
        (0.004, 0.01, None, 0.004, True),
        (0.005, 0.01, None, 0.004, False),
        (0.005, 0.01, 2, 0.004, False),
        (0.005, 0.01, None, None, None),
    ],
)
def test_what_is_wanted_is_a_ratio_or_a_time_or_both(ours, theirs, ratio, most, reached):
    assert Row("path", "input", ours, "peer", theirs, "equal", ratio, most).reached is reached


def test_the_peak_of_a_command_is_its_own():
    ballast = np.ones(40_000_000)  # 320 MB in the process that asks
    used = process.of_command([sys.executable, "-c", "held = bytearray(100_000_000)"])
    assert 100e6 < used.peak < 200e6 < ballast.nbytes


@pytest.mark.parametrize(
    ("taken", "steady", "told"),
    [
        ([(1, 10), (4, 10), (16, 10)], True, "as wanted"),
        ([(1, 10), (4, 40), (16, 160)], False, "as wanted"),
        ([(1, 10), (4, 40), (16, 160)], True, "memory grows"),
        ([(1, 10), (4, 10), (32, 10)], True, "time grows more than the work"),
        ([(1, 10), (16, 160), (17, 160)], False, "time grows more than the work; memory grows more than the work"),
    ],
)
def test_growth_tells_what_grows_more_than_the_work(taken, steady, told):
    subject = growth.Subject("name", "once", lambda step: taken[0], steady)
    assert growth.cells(subject, taken)[-1] == told


def test_help_lists_the_parts_and_an_unknown_one_is_told():
    command = [sys.executable, "-m", "benchmarks"]
    shown = subprocess.run([*command, "--help"], check=True, capture_output=True, text=True).stdout
    assert all(f"\n  {part} " in shown for part in (*(part.__name__.rpartition(".")[2] for part in SHORT), "tile"))
    refused = subprocess.run([*command, "polygon"], capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith("sn6: benchmarks: there is no part 'polygon'")
