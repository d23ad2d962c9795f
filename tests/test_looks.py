"""F1 by looks: `benchmarks.looks` on a small archive, and the breakdown of `sn6 score` on hand-made tiles."""

import json
import subprocess
import sys

import numpy as np
import pytest
from helpers.bright import MEAN, STD, FirstBand, brighten
from helpers.commands import assert_fails, call
from helpers.handmade import OTHER_STRIP, SAR_STRIP, WEST, speckle, write_labels, write_orientations, write_tile
from helpers.networks import METADATA
from helpers.score_files import score, write_proposals
from shapely import box

from benchmarks import looks
from benchmarks.look_subsets import SINGLE, VARIANTS, Variant, neighbours, subset_of
from sn6.checkpoints.weights_file import write_weights
from sn6.cli import run_command
from sn6.datasets.placed_image import Grid, PlacedImage
from sn6.datasets.radar_units import Units
from sn6.datasets.spacenet6 import SpaceNet6, labels_path
from sn6.errors import UserError
from sn6.metrics.looks import NAMES, looks_of
from sn6.prediction.fusion import Fusion
from sn6.prediction.images import Image
from sn6.prediction.map_grid import Layout

NO_FILE = PlacedImage("it.tif", Grid("EPSG:32631", 0.0, 0.0, 0.5, 40, 50), (1,), False, Units("db"), None)
EVERYTHING = {side: VARIANTS.index(Variant(None, side)) for side in (False, True)}


ALLOW = "helpers.bright.FirstBand"


def simulate(root, *options):
    command = [sys.executable, "-m", "sn6.simulate", f"root={root}", "size=128", *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """An archive whose test tiles are seen by two passes from each side, with what a network takes for buildings."""
    root = simulate(tmp_path_factory.mktemp("archive") / "root", "tiles=2", "test_tiles=12", "passes=2")
    brighten(root)
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A network that returns the first band."""
    path = tmp_path_factory.mktemp("network") / "weights.safetensors"
    metadata = {"network": {"_target_": ALLOW}, "mean": [MEAN] * 4, "std": [STD] * 4}
    write_weights(path, FirstBand().state_dict(), METADATA | metadata)
    return path


@pytest.fixture(scope="module")
def measured(root, weights, tmp_path_factory):
    """Counts (variants, draws, tiles, columns), and the folder that they are in."""
    out = tmp_path_factory.mktemp("looks") / "0"
    counts, _ = looks.measure((weights, (ALLOW,)), root, out, (2, 0), Fusion(16.0, balance=True), "cpu")
    return counts, out


def image_at(row, column, from_south=False):
    """An image of 40 × 50 pixels of 0.5 m without a file."""
    corner = (0.5 * column, -0.5 * row)
    return Image("it", "it.tif", NO_FILE, (1,), 40, 50, corner, 0.5, 0.5, "EPSG:32631", from_south=from_south)


def score_prediction(sn6_command, root, weights, out, *options):
    """Predict the test tiles, and return the score and the printed text."""
    given = (f"checkpoint={weights}", f"allow={ALLOW}", f"root={root}", f"out={out}", "device=cpu")
    done = sn6_command("predict", *given, "check_values=false", *options)
    assert done.status == 0, done.err
    return score(sn6_command, root, out / "proposals.csv")


@pytest.mark.parametrize(("variant", "options"), [(SINGLE, ()), (Variant(None, True), ("revisits=true",))])
def test_one_tile_and_all_tiles_score_as_their_predictions_do(
    sn6_command, root, weights, measured, tmp_path, variant, options
):
    card, _ = score_prediction(sn6_command, root, weights, tmp_path / "out", *options)
    assert card["overall"]["tp"] > 0
    assert card["overall"]["fp"] > 0
    for counts in measured[0][VARIANTS.index(variant)]:
        totals = counts.sum(axis=0).tolist()
        assert totals[:3] == [card["overall"][key] for key in ("tp", "fp", "fn")]
        assert totals[3:6] == [card["by_neighbours"]["touching"][key] for key in ("tp", "fp", "fn")]


def test_a_subset_holds_the_tile_and_as_many_of_each_side_as_there_are():
    """Six images of one place: 0 to 3 from the north, 4 and 5 from the south; image 6 overlaps none, 7 only 6."""
    near = [image_at(i, i, from_south=i > 3) for i in range(6)]
    layout = Layout((*near, image_at(900, 0), image_at(910, 0)))
    assert neighbours(layout, 1) == ([0, 2, 3], [4, 5])
    assert neighbours(layout, 6) == ([7], [])
    taken = {variant: {subset_of(layout, 1, variant, (0, draw)) for draw in range(40)} for variant in VARIANTS}
    assert taken[SINGLE] == {()}
    assert taken[Variant(2, False)] == {(0, 1), (1, 2), (1, 3)}
    assert taken[Variant(2, True)] == {(1, 4), (1, 5)}
    assert taken[Variant(4, False)] == taken[Variant(8, False)] == taken[Variant(None, False)] == {(0, 1, 2, 3)}
    assert taken[Variant(4, True)] == {(0, 1, 4, 5), (1, 2, 4, 5), (1, 3, 4, 5)}
    assert taken[Variant(8, True)] == taken[Variant(None, True)] == {(0, 1, 2, 3, 4, 5)}
    assert subset_of(layout, 6, Variant(4, True), (0,)) == (6, 7)
    for draw in range(9):
        two, four = (set(subset_of(layout, 5, Variant(tiles, True), (draw,))) for tiles in (2, 4))
        assert two < four
        assert len(four & {4, 5}) == 2


def test_the_mean_number_of_looks_is_that_of_the_tiles_that_see_a_pixel(root, measured):
    """By counting the valid tiles at the centre of each valid pixel of each tile."""
    archive = SpaceNet6(root)
    tiles = archive.tiles("test_public", "SAR-Intensity")
    valid = [archive.read(tile, "SAR-Intensity", (1,))[1] for tile in tiles]
    for number, tile in enumerate(tiles):
        rows, columns = np.nonzero(valid[number])
        looks = np.zeros(len(rows), dtype=int)
        for other, seen in zip(tiles, valid, strict=True):
            down = np.floor(rows + 0.5 + 2 * (other.bounds[3] - tile.bounds[3])).astype(int)
            right = np.floor(columns + 0.5 + 2 * (tile.bounds[0] - other.bounds[0])).astype(int)
            inside = (down >= 0) & (down < 128) & (right >= 0) & (right < 128)
            looks[inside] += seen[down[inside], right[inside]]
        total, pixels = measured[0][EVERYTHING[True], 0, number, -2:]
        assert len(rows) - 2 * (128 + 128) < pixels <= len(rows)  # interpolation loses the border
        assert total / pixels == pytest.approx(looks.mean(), rel=0.1)
    assert (measured[0][0, :, :, -3] == 1).all()
    assert (measured[0][0, :, :, -2] == measured[0][0, :, :, -1]).all()


@pytest.mark.slow
def test_an_interrupted_measurement_resumes_in_several_processes(root, weights, measured, monkeypatch):
    counts, out = measured
    for number in (3, 7):
        (out / f"counts{number}.npy").unlink()
    before = (out / "counts4.npy").stat().st_mtime_ns
    monkeypatch.setattr(looks, "MIN_PIXELS_FOR_POOL", 0)
    again, _ = looks.measure((weights, (ALLOW,)), root, out, (2, 0), Fusion(16.0, balance=True), "cpu")
    np.testing.assert_array_equal(again, counts)
    assert (out / "counts4.npy").stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_benchmark_prints_a_table_and_draws_a_figure(root, weights, tmp_path, monkeypatch, capsys):
    def run(*options):
        argv = ["benchmarks.looks", f"checkpoint=[{weights},{weights}]", f"allow={ALLOW}", f"out={tmp_path}/out"]
        main = lambda: run_command(looks.looks, "benchmarks.looks")  # noqa: E731
        return call(main, [*argv, "device=cpu", *options], monkeypatch, capsys)

    done = run(f"root={root}", "draws=1")
    assert done.status == 0, done.err
    rows = [line for line in done.out.splitlines() if line.startswith("| ") and ("side" in line or "itself" in line)]
    assert len(rows) == 3 * len(VARIANTS)
    assert (tmp_path / "out/looks.png").stat().st_size > 10_000
    assert_fails(run(f"root={root}", "draws=2"), "conflict", "draws")


def test_tiles_that_do_not_overlap_are_refused(weights, tmp_path):
    root = simulate(tmp_path / "root", "tiles=1", "test_tiles=1")
    with pytest.raises(UserError) as error:
        looks.measure((weights, (ALLOW,)), root, tmp_path / "out", (1, 0), Fusion(0.0, True), "cpu")
    assert (error.value.kind, error.value.key) == ("wrong_data", "root")


# sn6 score

HOUSE, OTHER_HOUSE = box(4, 4, 24, 24), box(40, 4, 60, 24)  # pixels


@pytest.fixture
def three_tiles(tmp_path):
    """An archive of tiles of 32 m: `a`, and 16 m east of it `b` and `c`; its root, image ids and rows of proposals.

    One look in the west half of `a`, three in its east half, two in the east half of `b` and `c`.
    """
    root, strips = tmp_path / "archive", (SAR_STRIP, OTHER_STRIP, "20190823070610_20190823070846")
    places = zip(strips, (0, 16, 16), strict=True)
    a, b, c = (
        write_tile(root, "SAR-Intensity", speckle(), number=i, strip=strip, west=WEST + east)
        for i, (strip, east) in enumerate(places)
    )
    write_orientations(root)
    rows = [(a, HOUSE), (a, box(36, 4, 56, 24)), (b, HOUSE), (b, OTHER_HOUSE), (c, HOUSE), (c, OTHER_HOUSE)]
    write_labels(root, "".join(f'{name},{i},"{polygon.wkt}",5,,\n' for i, (name, polygon) in enumerate(rows)))
    proposals = [(a, HOUSE, 1), (b, HOUSE, 1), (b, box(40, 34, 60, 54), 1), (c, OTHER_HOUSE, 1)]
    return root, proposals


def write_prediction(folder, rows, revisits):
    (folder / "prediction.json").write_text(json.dumps({"settings": {"revisits": revisits}, "result": {}}))
    return write_proposals(folder, rows)


FUSED = {"fade": 16.0, "balance": True}


def test_a_fused_prediction_is_scored_by_the_number_of_tiles_that_see_a_building(three_tiles, tmp_path, sn6_command):
    root, rows = three_tiles
    card, printed = score(sn6_command, root, write_prediction(tmp_path, rows, FUSED))
    found = {name: tuple(one[key] for key in KEYS) for name, one in card["by_looks"].items()}
    assert found == {"1": (1, 1, 1, 1), "2": (2, 1, 2, 1), "3-4": (3, 1, 1, 1), "5-8": (0,) * 4, "9+": (0,) * 4}
    f1 = {name: one["f1"] for name, one in card["by_looks"].items()}
    assert f1 == pytest.approx({"1": 1, "2": 0.5, "3-4": 2 / (1 + 3), "5-8": 0, "9+": 0})
    assert any(line.split() == ["3-4", "3", "1", "0.333", "1", "1", "1.000", "0.500"] for line in printed.splitlines())


KEYS = ("buildings", "matched", "proposals", "tp")


def test_a_tile_that_was_not_predicted_is_no_look(three_tiles, tmp_path, sn6_command):
    root, rows = three_tiles
    card, _ = score(sn6_command, root, write_prediction(tmp_path, rows[:3], FUSED))
    found = {name: tuple(one[key] for key in KEYS) for name, one in card["by_looks"].items()}
    assert found["1"] == (2, 1, 2, 1)  # the east half of `b` too
    assert found["2"] == (2, 1, 1, 1)
    assert card["overall"]["fn"] == 4


def test_proposals_that_were_not_fused_have_no_breakdown_by_looks(three_tiles, tmp_path, sn6_command):
    root, rows = three_tiles
    assert score(sn6_command, root, write_proposals(tmp_path, rows))[0]["by_looks"] == {}
    single = write_prediction(tmp_path, rows, None)
    assert score(sn6_command, root, single)[0]["by_looks"] == {}
    fused = write_prediction(tmp_path, rows, FUSED)
    assert score(sn6_command, labels_path(root), fused)[0]["by_looks"] == {}  # without the places of the tiles
    assert score(sn6_command, labels_path(root), fused, f"root={root}")[0]["by_looks"] != {}


@pytest.mark.parametrize(("number", "name"), [(1, "1"), (2, "2"), (3, "3-4"), (4, "3-4"), (5, "5-8"), (9, "9+")])
def test_bins_of_looks(number, name):
    looks_there = looks_of([(0, 0, 32, 32)] * number)
    houses = np.array([HOUSE, box(200, 0, 220, 20)])
    found = looks_there.bins(houses, (0.0, 32.0), 0.5).tolist()
    assert found == [NAMES.index(name), -1]


def test_the_score_of_a_predicted_archive_has_the_breakdown(sn6_command, root, weights, tmp_path):
    card, _ = score_prediction(sn6_command, root, weights, tmp_path / "out", "revisits=true")
    total = card["overall"]
    assert sum(one["buildings"] for one in card["by_looks"].values()) == total["tp"] + total["fn"]
    assert sum(one["tp"] for one in card["by_looks"].values()) == total["tp"]
