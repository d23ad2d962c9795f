"""Each part of the benchmarks compares implementations that agree, and fails if they do not. No time is asserted."""

import copy
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import shapely
import torch
from helpers.commands import assert_one_line

from benchmarks import (
    archive,
    boundary,
    crop,
    f1,
    folder,
    fusion,
    growing_work,
    growth,
    layers,
    masks,
    polygons,
    process,
    regularization,
    step,
    targets,
    tile,
    timm_unet,
    watershed,
)
from benchmarks.comparison import Mismatch, NotRun, Row, table_of
from sn6.footprints import Footprints
from sn6.formats.challenge_csv import ChallengeCSVWriter

SHORT = {
    boundary: {"counts": (5,), "size": 120, "repeats": 1},
    targets: {"counts": (5,), "size": 120, "repeats": 1},
    watershed: {"counts": (9,), "size": 200, "repeats": 1},
    regularization: {"counts": (9,), "size": 200, "repeats": 1},
    fusion: {"looks": 3, "size": 90, "repeats": 1},
    folder: {"files": 12, "repeats": 1},
    layers: {"polygons": 70},
    polygons: {"components": 9, "repeats": 1},
    f1: {"tiles": 2, "buildings": 9, "extra": 4, "repeats": 1},
    crop: {"tiles": 8, "size": 96, "crop": 64, "repeats": 1},
    masks: {"buildings": 9, "repeats": 1},
    step: {"crops": 1, "size": 64, "width": 2, "repeats": 1},
    timm_unet: {"crops": 2, "crop": 64, "size": 128, "repeats": 1},
    archive: {"tiles": 2, "size": 128, "width": 4},
}


SLOW = (crop, step, archive, fusion, layers, timm_unet)
PARTS = [pytest.param(part, marks=[pytest.mark.slow] * (part in SLOW), id=part.__name__) for part in SHORT]


@pytest.mark.parametrize("part", PARTS)
def test_a_part_yields_rows_when_the_results_agree(part):
    rows = list(part.rows(**SHORT[part]))
    assert {type(row) for row in rows} <= {Row, NotRun}
    measured = [row for row in rows if isinstance(row, Row)]
    assert all(row.ours > 0 and row.theirs > 0 and row.agreement for row in measured)
    assert measured
    assert table_of(rows).row_count == len(rows)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("part", "options"),
    [(step, ((2, 64, "cuda"), 4, 1)), (tile, (256, 4, "cuda", 1)), (timm_unet, (2, 64, 256, "cuda", 1))],
    ids=["step", "tile", "timm_unet"],
)
def test_the_networks_agree_on_a_gpu(part, options):
    rows = list(part.on_device(*options))
    assert all(row.ours > 0 and row.theirs > 0 for row in rows if isinstance(row, Row))


WRONG = [
    (boundary, "boundary_term", lambda correct: lambda *options: correct(*options) + 1e-4),
    (
        polygons,
        "polygonize",
        lambda correct: lambda labels: (shapely.transform(correct(labels)[0], lambda xy: xy + 1), None),
    ),
    (f1, "match_tile", lambda correct: lambda truth, *options: correct(truth[1:], *options)),
    (crop, "plain_crop", lambda correct: lambda files: {name: 2 * one for name, one in correct(files).items()}),
    (masks, "rasterize_instances", lambda correct: lambda polygons, *options: correct(polygons[::-1], *options)),
    (step, "with_weights_of", lambda correct: lambda network, width: with_larger_bias(correct(network, width))),
    (
        targets,
        "whole_tile_targets",
        lambda correct: lambda instances, **options: correct(instances, **options) | {"edge": instances > 0},
    ),
    (
        watershed,
        "whole_tile_watershed",
        lambda correct: lambda *options, **more: tuple(values[1:] for values in correct(*options, **more)),
    ),
    (regularization, "regularize", lambda correct: lambda polygons: shapely.transform(polygons, lambda xy: 1.1 * xy)),
    (fusion, "plain_mean", lambda correct: lambda *options: (correct(*options)[0] + 0.01, correct(*options)[1])),
    (folder, "open_all", lambda correct: lambda path: dict.fromkeys(correct(path), (0.0, 0.0, 1.0, 1.0))),
    (timm_unet, "smp_with_weights_of", lambda correct: lambda network: with_larger_bias(copy.deepcopy(network))),
]


def with_larger_bias(network):
    """Increase the logits of a network by 0.1."""
    with torch.no_grad():
        network.head.bias += 0.1
    return network


@pytest.mark.parametrize(("part", "name", "break_it"), WRONG, ids=[part.__name__ for part, _, _ in WRONG])
def test_a_part_fails_when_the_results_differ(part, name, break_it, monkeypatch):
    if needed := {masks: "geopandas", timm_unet: "segmentation_models_pytorch"}.get(part):
        pytest.importorskip(needed)
    monkeypatch.setattr(part, name, break_it(getattr(part, name)))
    with pytest.raises(Mismatch):
        list(part.rows(**SHORT[part]))


def test_predictions_of_a_tile_are_compared_by_logits_and_polygons():
    logits = np.full((40, 40), -3, dtype=np.float32)
    logits[5:20, 5:25] = 3
    tile.check_agreement(logits, logits, logits)
    for half, theirs in ((logits, -logits), (-logits, logits)):
        with pytest.raises(Mismatch):
            tile.check_agreement(logits, half, theirs)


def test_predictions_of_an_archive_are_compared_by_the_pixels_of_the_footprints(tmp_path):
    def write(name, *sides):
        polygons = np.array([shapely.box(1, 1, side, side) for side in sides])
        with ChallengeCSVWriter(tmp_path / name) as table:
            table.write("a", (0.0, 0.0), Footprints(polygons, np.ones(len(sides))))
        return tmp_path / name

    assert archive.check_agreement(write("one", 15), write("two", 15), 40).startswith("100.00%")
    with pytest.raises(Mismatch):
        archive.check_agreement(write("one", 15), write("three", 22), 40)


def test_sn6_and_both_baselines_predict_the_same_buildings():
    case = tile.make_case(128, 4, "cpu")
    ours = tile.sn6_tile(case.ensemble("32-true"), case)
    peer = tile.with_weights_of(case.network, 4).eval()
    for predict in tile.BASELINES.values():
        theirs = tile.baseline_tile(predict, peer, case)
        assert len(ours) == len(theirs) > 0
        areas = sorted(shapely.area(ours.polygons)), sorted(shapely.area(theirs))
        np.testing.assert_allclose(*areas, rtol=0.1)  # simplified from different vertices


def test_both_fusions_and_both_networks_agree(tmp_path):
    fusion.write_outputs(tmp_path, 3, 90)
    (mean, number), (plain, plain_number) = (make(tmp_path, 3, 90)() for make in (fusion.make_sn6, fusion.make_plain))
    np.testing.assert_allclose(mean, plain, atol=1e-4)
    np.testing.assert_array_equal(number, plain_number)
    assert number.max() == 3
    pytest.importorskip("segmentation_models_pytorch")
    assert timm_unet.check_step(2, 64, "cpu")


@pytest.mark.parametrize(
    ("ours", "theirs", "min_ratio", "max_ours", "reached"),
    [
        (0.01, 1.0, 100, None, True),
        (0.011, 1.0, 100, None, False),
        (0.004, 0.01, None, 0.004, True),
        (0.005, 0.01, None, 0.004, False),
        (0.005, 0.01, 2, 0.004, False),
        (0.005, 0.01, None, None, None),
    ],
)
def test_a_target_is_a_ratio_or_a_time_or_both(ours, theirs, min_ratio, max_ours, reached):
    assert Row("path", "input", ours, "peer", theirs, "equal", min_ratio, max_ours).reached is reached


def test_the_peak_of_a_command_excludes_its_parent():
    ballast = np.ones(40_000_000)  # 320 MB in this process
    used = process.measure_command([sys.executable, "-c", "data = bytearray(100_000_000)"])
    assert 100e6 < used.peak < 200e6 < ballast.nbytes


@pytest.mark.parametrize(
    ("costs", "constant_memory", "note"),
    [
        ([(1, 10), (4, 10), (16, 10)], True, "ok"),
        ([(1, 10), (4, 40), (16, 160)], False, "ok"),
        ([(1, 10), (4, 40), (16, 160)], True, "memory grows"),
        ([(1, 10), (4, 10), (32, 10)], True, "time grows more than the work"),
        ([(1, 10), (16, 160), (17, 160)], False, "time grows more than the work; memory grows more than the work"),
    ],
)
def test_growth_reports_what_grows_more_than_the_work(costs, constant_memory, note):
    subject = growth.Subject("name", "unit", lambda step: costs[0], constant_memory)
    assert growth.cells(subject, costs)[-1] == note


@pytest.mark.parametrize("part", ["targets", "classes", "fusion"])
def test_work_in_memory_is_measured(part, tmp_path):
    measure = {
        "targets": partial(growing_work.measure_targets, 1),
        "classes": partial(growing_work.measure_classes, 9, 1),
        "fusion": partial(growing_work.measure_fusion, tmp_path, 1),
    }[part]
    assert min(measure(1)) > 0


@pytest.mark.slow
def test_work_of_processes_is_measured(tmp_path):
    assert min(growing_work.measure_folder(tmp_path, 5, 1)) > 0
    assert min(growing_work.measure_cached_folder(tmp_path, 1, 1)) > 0
    assert min(growing_work.measure_layers(tmp_path, 70, 1)) > 0


def test_help_lists_the_parts_and_an_unknown_part_is_an_error():
    command = [sys.executable, "-m", "benchmarks"]
    shown = subprocess.run([*command, "--help"], check=True, capture_output=True, text=True).stdout
    assert all(f"\n  {part} " in shown for part in (*(part.__name__.rpartition(".")[2] for part in SHORT), "tile"))
    failed = subprocess.run([*command, "polygon"], capture_output=True, text=True)
    assert_one_line(failed.returncode, failed.stderr, "'polygon'", "boundary")
