"""The fields of the polygonizer are cross-fitted on validation tiles, and used by the test and by sn6.predict."""

import csv
import json
import shutil
import threading
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from helpers.bright import MEAN, STD, FirstBand, bright_run
from helpers.commands import read_metrics, small_run, start, wait_for_end
from helpers.forked import python_m
from helpers.ranks import on_ranks
from helpers.training import make_datamodule, make_segmenter, make_trainer
from scipy import ndimage
from scipy.special import expit

from sn6.data.cross_fitting import cross_fit
from sn6.data.dataset import TileDataset
from sn6.data.folds import bounds_of
from sn6.datasets.spacenet6 import PIXEL
from sn6.footprints import Footprints, rotate_polygons
from sn6.footprints.threshold import Threshold
from sn6.formats.challenge_csv import read_proposals
from sn6.metrics.matching import Counts, match_tile
from sn6.targets.rasterize import rasterize_instances

THRESHOLDS, MIN_AREAS = [0.1, 0.3, 0.5, 0.8], [0.0, 20.0, 33.25, 60.0]


@pytest.fixture(scope="module")
def column_root(bright_root, tmp_path_factory):
    """The archive without ground truth of its test tiles: the validation column is scored as the test."""
    root = shutil.copytree(bright_root, tmp_path_factory.mktemp("column") / "root")
    shutil.rmtree(root / "test_public_truth")
    return root


@pytest.fixture(scope="module")
def bright(column_root, tmp_path_factory):
    """The folder of a run on one rank."""
    folder = tmp_path_factory.mktemp("one")
    done = python_m(["sn6.run", *bright_run(column_root, folder)], folder)
    assert done.status == 0, done.err
    return folder / "outputs/it"


class Noisy(TileDataset):
    """Tiles whose first band is the mask with noise of the size of a building, as logits."""

    def sample(self, index):
        sample = super().sample(index)
        rng, mask = np.random.default_rng(index), sample["mask"][0]
        coarse = np.kron(rng.normal(0, 1.2, tuple(-(-size // 12) for size in mask.shape)), np.ones((12, 12)))
        sample["image"][0] = 2 * mask - 1.5 + coarse[: mask.shape[0], : mask.shape[1]]
        return sample


def noisy_data(root):
    """Return a datamodule of all labelled tiles as validation tiles."""
    data = make_datamodule(root)
    data.setup()
    tiles = [*data.fold.validation, *data.fold.train]
    data.validation_tiles = Noisy(data.data_set, tiles, data.source, data.statistics)
    return data


def calibrate_noisy(ranks, root, folder, limit=1.0):
    """Return the choice of a calibration, and the counts of each tile at each point."""
    from sn6.callbacks.calibration import Calibration, calibrate
    from sn6.callbacks.polygon_f1 import PolygonF1
    from sn6.training.quiet import quiet_libraries

    data, calibration = noisy_data(root), Calibration({"threshold": THRESHOLDS, "min_area": MIN_AREAS})
    polygon_f1 = PolygonF1(Threshold(simplify=1.0))
    trainer = make_trainer(ranks, folder, callbacks=[polygon_f1, calibration], limit_val_batches=limit)
    data.count_over_ranks(trainer)
    with quiet_libraries():
        choice = calibrate(trainer, make_segmenter(FirstBand()), data, None)
    assert polygon_f1.polygonizer == choice.point.polygonizer
    ((points, table),) = calibration.search.tables
    tables = {point: table.by_tile[:, number].tolist() for number, point in enumerate(points)}
    points = [(point.polygonizer, point.f1, point.chosen_on, point.tiles) for point in (choice.point, *choice.halves)]
    by_tile = {tile.image_id: options for tile, options in choice.cross_fitted.items()}
    return points, by_tile, tables


def test_the_counts_are_those_of_a_plain_loop_over_buildings(bright_root, tmp_path):
    """Label, drop and compare regions one by one, by SciPy and sets of pixels."""
    _, _, tables = calibrate_noisy(1, bright_root, tmp_path)
    assert list(tables) == [Threshold(*pair, 1.0) for pair in product(THRESHOLDS, MIN_AREAS)]
    dataset = noisy_data(bright_root).validation_tiles
    for index in range(0, len(dataset), 4):
        sample, polygons = dataset.sample(index), dataset.labels(index).polygons
        truth = rasterize_instances(polygons, *sample["valid"].shape[1:])
        truth = np.rot90(truth, 2) if dataset.is_rotated(index) else truth
        buildings = [truth == number for number, one in enumerate(polygons, 1) if one.area >= 80]
        for threshold, min_area in product(THRESHOLDS, MIN_AREAS):
            is_building = (1 / (1 + np.exp(-sample["image"][0])) > threshold) & sample["valid"][0]
            regions, count = ndimage.label(is_building)
            sizes = np.bincount(regions.ravel())
            kept = [n for n in range(1, count + 1) if sizes[n] >= max(80, 4 * min_area)]
            tp = sum(
                any((regions == n)[one].sum() > 0.5 * (one | (regions == n)).sum() for one in buildings) for n in kept
            )
            counts = [tp, len(kept) - tp, len(buildings) - tp]
            assert tables[Threshold(threshold, min_area, 1.0)][index] == counts
    assert len({json.dumps(counts) for counts in tables.values()}) > 8  # the points differ


def test_the_counts_are_near_those_of_polygons(bright_root, tmp_path):
    from sn6.callbacks.polygon_f1 import PolygonF1
    from sn6.training.quiet import quiet_libraries

    _, _, tables = calibrate_noisy(1, bright_root, tmp_path)
    for point in (Threshold(0.3, 20.0, 1.0), Threshold(0.5, 60.0, 1.0)):
        polygon_f1 = PolygonF1(replace(point, simplify=0.0))
        trainer = make_trainer(1, tmp_path, callbacks=[polygon_f1])
        with quiet_libraries():
            trainer.validate(make_segmenter(FirstBand()), noisy_data(bright_root), verbose=False)
        tp, fp, fn = np.array(tables[point]).sum(axis=0)
        assert 2 * tp / (2 * tp + fp + fn) == pytest.approx(polygon_f1.scores["f1"], abs=0.02)


def test_the_own_candidates_are_tried_coarse_to_fine(bright_root, tmp_path):
    from sn6.callbacks.calibration import Calibration, calibrate
    from sn6.callbacks.polygon_f1 import PolygonF1
    from sn6.training.quiet import quiet_libraries

    data, calibration = noisy_data(bright_root), Calibration()
    trainer = make_trainer(1, tmp_path, callbacks=[PolygonF1(), calibration])
    data.count_over_ranks(trainer)
    with quiet_libraries():
        choice = calibrate(trainer, make_segmenter(FirstBand()), data, None)
    (coarse, _), (fine, _) = calibration.search.tables
    assert coarse == [Threshold(*pair) for pair in product(*Threshold.candidates.values())]
    assert fine
    assert not set(fine) & set(coarse)
    assert {(point.fill_holes, point.opening) for point in coarse} == {(0.0, 0.0)}
    assert {(point.fill_holes, point.opening) for point in fine} == {*product((0.0, 20.0), (0.0, 1.5))}
    assert all(round(point.threshold * 20, 9).is_integer() and point.min_area % 10 == 0 for point in fine)
    assert list(choice.scores) == [*coarse, *fine]
    assert choice.scores[choice.point.polygonizer].f1 == choice.point.f1
    assert choice.point.f1 >= max(choice.scores[point].f1 for point in coarse)
    (row,) = [row for row in choice.table() if row["chosen"]]
    assert (row["threshold"], row["min_area"]) == (
        choice.point.polygonizer.threshold,
        choice.point.polygonizer.min_area,
    )


def test_two_ranks_choose_the_same_as_one(bright_root, tmp_path):
    (one,) = on_ranks(calibrate_noisy, 1, bright_root, tmp_path)
    assert on_ranks(calibrate_noisy, 2, bright_root, tmp_path) == [one, one]
    # 21 tiles, an odd number: of 10 and of 11
    (limited,) = on_ranks(calibrate_noisy, 1, bright_root, tmp_path, 21)
    assert on_ranks(calibrate_noisy, 2, bright_root, tmp_path, 21) == [limited, limited]
    assert len(limited[1]) == 21


def test_each_half_is_chosen_on_tiles_of_the_other(bright_root, tmp_path):
    points, by_tile, tables = calibrate_noisy(1, bright_root, tmp_path)
    tiles = noisy_data(bright_root).validation_tiles.tiles
    halves = cross_fit(bounds_of(tiles))
    everything = np.arange(len(tiles))
    for (options, f1, chosen_on, _), choosers in zip(
        points, (everything, *(half.choosers for half in halves)), strict=True
    ):
        scores = {}
        for pair, counts in tables.items():
            tp, fp, fn = np.array(counts)[choosers].sum(axis=0)
            scores[pair] = 2 * tp / (2 * tp + fp + fn)
        assert f1 == max(scores.values()) == scores[options] > 0
        assert chosen_on == len(choosers)
    for half, (options, *_, number) in zip(halves, points[1:], strict=True):
        assert number == len(half.tiles)
        assert all(by_tile[tiles[index].image_id] == options for index in half.tiles)


@pytest.mark.parametrize(
    ("config", "best", "chosen"),
    [
        ((0.5, 20.0), [(0.4, 20.0), (0.6, 20.0), (0.7, 20.0)], (0.4, 20.0)),  # equally far: the lower
        ((0.6, 20.0), [(0.4, 20.0), (0.7, 60.0)], (0.7, 60.0)),  # the threshold is the nearer one
        ((0.5, 50.0), [(0.5, 20.0), (0.5, 60.0)], (0.5, 60.0)),
        ((0.5, 20.0), [], (0.5, 20.0)),  # nothing is matched: those of the config
        ((0.35, 33.0), [], (0.35, 33.0)),
    ],
)
def test_of_equal_pairs_the_nearest_to_the_config_is_chosen(config, best, chosen):
    from sn6.callbacks.operating_point import best_point

    scores = {Threshold(*pair): Counts(int(pair in best), 1, 1) for pair in product([0.7, 0.4, 0.6, 0.5], [60.0, 20.0])}
    assert best_point(scores, Threshold(*config), ["threshold", "min_area"]) == Threshold(*chosen)


# --- runs


def tile_rows(path):
    with path.open() as file:
        return {row["image_id"]: [int(float(row[key])) for key in ("tp", "fp", "fn")] for row in csv.DictReader(file)}


def test_the_reported_scores_are_cross_fitted_and_the_stored_point_is_not(bright, column_root):
    """Recompute the footprints of each tile at the point of its half, from the pixels."""
    metrics = read_metrics(bright)
    point = metrics["operating_point"]
    assert point["calibrated_on"] == "validation tiles"
    with (bright / "calibration.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(float(row["threshold"]), int(row["chosen"])) for row in table] == [
        (threshold, threshold == point["threshold"]) for threshold in (0.5, 0.8)
    ]
    assert [float(row["f1"]) for row in table if int(row["chosen"])] == [point["f1"]]
    assert (bright / "figures/calibration.png").exists()
    # the north wants the dim buildings, the south not the dim blobs
    assert sorted(half["threshold"] for half in point["halves"]) == [0.5, 0.8]
    state = torch.load(bright / "checkpoints/best.ckpt", weights_only=True)["callbacks"]["PolygonF1"]
    fields = ("threshold", "min_area", "simplify", "fill_holes", "opening")
    assert state["polygons"] == {key: point[key] for key in ("_target_", *fields)}
    data = make_datamodule(column_root, mean=[MEAN] * 4, std=[STD] * 4)
    data.setup()
    tiles, stored = data.fold.validation, Threshold(point["threshold"], point["min_area"], point["simplify"])
    halves = cross_fit(bounds_of(tiles))
    assert [(half["tiles"], half["chosen_on"]) for half in point["halves"]] == [
        (len(half.tiles), len(half.choosers)) for half in halves
    ]
    expected, in_sample = {}, Counts()
    for half, chosen in zip(halves, point["halves"], strict=True):
        options = replace(stored, threshold=chosen["threshold"], min_area=chosen["min_area"])
        for index in half.tiles.tolist():
            match = recompute(data.validation_tiles, index, options)
            expected[tiles[index].image_id] = match.counts
            in_sample += recompute(data.validation_tiles, index, stored).counts
    rows = {image_id: [counts.tp, counts.fp, counts.fn] for image_id, counts in expected.items()}
    assert tile_rows(bright / "validation_tiles.csv") == rows
    assert tile_rows(bright / "test_tiles.csv") == rows
    total = sum(expected.values(), Counts())
    for use in ("validation", "test"):
        assert (metrics[use]["tp"], metrics[use]["fp"], metrics[use]["fn"]) == (total.tp, total.fp, total.fn)
        assert metrics[use]["f1"] == total.f1
    assert point["f1"] == pytest.approx(in_sample.f1, abs=0.1)  # by the IoU of pixels: merged pairs are near 0.5
    assert total.f1 < in_sample.f1  # a point that was chosen on the tiles themselves looks better
    proposals = read_proposals(bright / "proposals.csv")
    for index, tile in enumerate(tiles):
        proposed = proposals[tile.image_id]
        counts = match_tile(
            data.validation_tiles.labels(index).polygons, proposed.polygons, proposed.confidences
        ).counts
        assert counts == expected[tile.image_id]


def recompute(dataset, index, options):
    """Return the match of a tile at an operating point, by the plain functions."""
    sample = dataset.sample(index)
    footprints = options({"mask": expit(sample["image"][:1])}, sample["valid"][0], PIXEL)
    if dataset.is_rotated(index):
        rotated = rotate_polygons(footprints.polygons, *sample["valid"][0].shape)
        footprints = Footprints(rotated, footprints.confidences)
    return match_tile(dataset.labels(index).polygons, footprints.polygons, footprints.confidences)


@pytest.mark.slow
def test_a_run_on_two_ranks_has_the_same_point_and_scores(bright, column_root, tmp_path):
    status, err = wait_for_end(start(tmp_path, [*bright_run(column_root, tmp_path), "trainer.devices=2"]))
    assert status == 0, err
    one, two = read_metrics(bright), read_metrics(tmp_path / "outputs/it")
    for key in ("operating_point", "validation", "test"):
        assert {k: v for k, v in two[key].items() if k != "loss"} == {k: v for k, v in one[key].items() if k != "loss"}
    for name in ("validation_tiles.csv", "proposals.csv"):
        assert tile_rows(bright / "validation_tiles.csv") == tile_rows(tmp_path / "outputs/it/validation_tiles.csv"), (
            name
        )


@pytest.mark.parametrize("off", ["callbacks.calibration=null", "~callbacks.calibration"])
def test_without_the_callback_the_values_of_the_config_stay(sn6_run, archive_root, tmp_path, off):
    done = sn6_run(*small_run(), f"data.root={archive_root}", off, "polygons.min_area=33")
    assert done.status == 0, done.err
    point = read_metrics(tmp_path / "outputs/it")["operating_point"]
    assert (point["threshold"], point["min_area"]) == (0.5, 33)
    assert (point["calibrated_on"], point["f1"], point["halves"]) == (None, None, None)


def test_one_block_keeps_the_values_of_the_config(sn6_run, archive_root, tmp_path):
    done = sn6_run(*small_run(), f"data.root={archive_root}", "trainer.limit_val_batches=1")
    assert done.status == 0, done.err
    assert "polygons" in done.err
    assert read_metrics(tmp_path / "outputs/it")["operating_point"]["calibrated_on"] is None


@pytest.mark.parametrize("name", ["PolygonF1", "Calibration"])
def test_after_an_error_no_more_tiles_are_scored(tmp_path, name):
    """The interpreter waits for the thread before it ends, so a queue of tiles would keep a failed run alive."""
    from sn6.callbacks.calibration import Calibration
    from sn6.callbacks.polygon_f1 import PolygonF1
    from sn6.callbacks.scoring import ScoringThread

    callback = {"PolygonF1": PolygonF1, "Calibration": Calibration}[name]()
    error = make_trainer(1, tmp_path, callbacks=[callback]), make_segmenter(FirstBand()), ValueError()
    callback.on_exception(*error)  # before the first tile
    started, may_end = threading.Event(), threading.Event()
    scored = []

    def score(number):
        scored.append(number)
        started.set()
        may_end.wait(60)

    callback.thread = ScoringThread(score)
    for number in range(5):
        callback.thread.submit(number)
    assert started.wait(60)
    callback.on_exception(*error)
    may_end.set()
    callback.thread.thread.shutdown(wait=True)
    assert scored == [0]
