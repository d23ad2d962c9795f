"""Threshold and minimum area are cross-fitted on validation tiles, and used by the test and by sn6.predict."""

import csv
import json
import shutil
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from helpers.bright import MEAN, STD, FirstBand, bright_run
from helpers.commands import read_metrics, small_run, start, wait_for_end
from helpers.ranks import on_ranks
from helpers.training import make_datamodule, make_segmenter, make_trainer

from sn6.data.cross_fitting import cross_fit
from sn6.data.dataset import TileDataset
from sn6.data.folds import bounds_of
from sn6.datasets.layout import PIXEL
from sn6.footprints import Footprints, PolygonOptions, rotate_polygons
from sn6.footprints.polygonize import footprints_from_logits
from sn6.formats.challenge_csv import read_proposals
from sn6.metrics.matching import Counts, match_tile

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
    status, err = wait_for_end(start(folder, bright_run(column_root, folder)))
    assert status == 0, err
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
    data.validation_tiles = Noisy(data.archive, tiles, data.source, data.statistics)
    return data


def calibrate_noisy(ranks, root, folder, limit=1.0):
    """Return the choice of a calibration, and the counts of each tile with each pair."""
    from sn6.callbacks.calibration import Calibration, calibrate
    from sn6.callbacks.polygon_f1 import PolygonF1
    from sn6.training.quiet import quiet_libraries

    data, calibration = noisy_data(root), Calibration(thresholds=THRESHOLDS, min_areas=MIN_AREAS)
    polygon_f1 = PolygonF1(simplify=1.0)
    trainer = make_trainer(ranks, folder, callbacks=[polygon_f1, calibration], limit_val_batches=limit)
    data.count_over_ranks(trainer)
    with quiet_libraries():
        choice = calibrate(trainer, make_segmenter(FirstBand()), data, None)
    assert polygon_f1.options == choice.point.options
    tables = {pair: table.by_tile[:, 3:].tolist() for pair, table in calibration.tables.items()}
    points = [(point.options, point.f1, point.chosen_on, point.tiles) for point in (choice.point, *choice.halves)]
    by_tile = {tile.image_id: options for tile, options in choice.cross_fitted.items()}
    return points, by_tile, tables


def test_the_counts_are_those_of_a_validation_with_each_pair(bright_root, tmp_path):
    from sn6.callbacks.polygon_f1 import PolygonF1
    from sn6.training.quiet import quiet_libraries

    _, _, tables = calibrate_noisy(1, bright_root, tmp_path)
    assert list(tables) == list(product(THRESHOLDS, MIN_AREAS))
    for (threshold, min_area), counts in tables.items():
        polygon_f1 = PolygonF1(threshold, min_area, simplify=1.0)
        trainer = make_trainer(1, tmp_path, callbacks=[polygon_f1])
        with quiet_libraries():
            trainer.validate(make_segmenter(FirstBand()), noisy_data(bright_root), verbose=False)
        assert polygon_f1.by_tile[:, 3:].tolist() == counts, (threshold, min_area)
    assert len({json.dumps(counts) for counts in tables.values()}) > 8  # the pairs differ


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
        assert f1 == max(scores.values()) == scores[options.threshold, options.min_area] > 0
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
    from sn6.callbacks.calibration import Calibration
    from sn6.metrics.tile_table import TileTable

    calibration = Calibration(thresholds=[0.7, 0.4, 0.6, 0.5], min_areas=[60.0, 20.0])
    calibration.config = PolygonOptions(*config)
    calibration.tables = {pair: TileTable(1) for pair in product(calibration.thresholds, calibration.min_areas)}
    for pair, table in calibration.tables.items():
        table.enter(0, 0, 0, 0, Counts(int(pair in best), 1, 1))
        table.compute()
    point = calibration.best_point(np.array([0]), 1)
    assert (point.options.threshold, point.options.min_area) == chosen
    assert point.f1 == (0.5 if best else 0.0)


# --- runs


def tile_rows(path):
    with path.open() as file:
        return {row["image_id"]: [int(float(row[key])) for key in ("tp", "fp", "fn")] for row in csv.DictReader(file)}


def test_the_reported_scores_are_cross_fitted_and_the_stored_point_is_not(bright, column_root):
    """Recompute the footprints of each tile at the point of its half, from the pixels."""
    metrics = read_metrics(bright)
    point = metrics["operating_point"]
    assert point["calibrated_on"] == "validation tiles"
    # the north wants the dim buildings, the south not the dim blobs
    assert sorted(half["threshold"] for half in point["halves"]) == [0.5, 0.8]
    state = torch.load(bright / "checkpoints/best.ckpt", weights_only=True)["callbacks"]["PolygonF1"]
    assert {key: state[key] for key in ("threshold", "min_area", "simplify")} == {
        key: point[key] for key in ("threshold", "min_area", "simplify")
    }
    data = make_datamodule(column_root, mean=[MEAN] * 4, std=[STD] * 4)
    data.setup()
    tiles, stored = data.fold.validation, PolygonOptions(point["threshold"], point["min_area"], point["simplify"])
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
    assert point["f1"] == pytest.approx(in_sample.f1)
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
    footprints = footprints_from_logits(sample["image"][0], sample["valid"][0], options, PIXEL)
    if dataset.is_rotated(index):
        rotated = rotate_polygons(footprints.polygons, *sample["valid"][0].shape)
        footprints = Footprints(rotated, footprints.confidences)
    return match_tile(dataset.labels(index).polygons, footprints.polygons, footprints.confidences)


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
    done = sn6_run(*small_run(), f"data.root={archive_root}", off, "callbacks.polygon_f1.min_area=33")
    assert done.status == 0, done.err
    point = read_metrics(tmp_path / "outputs/it")["operating_point"]
    assert (point["threshold"], point["min_area"]) == (0.5, 33)
    assert (point["calibrated_on"], point["f1"], point["halves"]) == (None, None, None)


def test_one_block_keeps_the_values_of_the_config(sn6_run, archive_root, tmp_path):
    done = sn6_run(*small_run(), f"data.root={archive_root}", "trainer.limit_val_batches=1")
    assert done.status == 0, done.err
    assert "callbacks.polygon_f1" in done.err
    assert read_metrics(tmp_path / "outputs/it")["operating_point"]["calibrated_on"] is None
