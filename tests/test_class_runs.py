"""Runs with buildings of two classes: two ranks, resuming, prediction, and what is refused."""

import csv
import signal

import geopandas
import pytest
import torch
from helpers.commands import assert_fails, read_metrics
from helpers.ranks import on_ranks
from helpers.resuming import RUN, assert_same_run, log_of
from helpers.stopping import run_and_stop
from helpers.two_classes import NAMES, data_of, make_world

from sn6.checkpoints.loading import find_weights
from sn6.checkpoints.run_files import FINAL_WEIGHTS
from sn6.footprints.threshold import Threshold
from sn6.formats.challenge_csv import read_proposals
from sn6.losses import CrossEntropy
from sn6.prediction.trained_network import load_network
from sn6.targets.classes import Classes


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path)


def score_on_ranks(ranks, world):
    """Validate and test a network that is right by the brightness of the pixels; return the scores of the classes."""
    from helpers.training import make_trainer

    from sn6.callbacks.polygon_f1 import PolygonF1
    from sn6.heads import Head
    from sn6.schedules import constant
    from sn6.segmenter import Segmenter

    class ByBrightness(torch.nn.Module):
        """Decibels: below 40 background, a shed is at 49.5, a house at 66."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, image):
            return torch.cat([(abs(image - level) * -20) for level in (30.5, 66.0, 49.5)], dim=1) * self.weight

    heads = {"classes": Head(Classes(NAMES), CrossEntropy())}
    data = data_of(world)
    segmenter = Segmenter(ByBrightness(), heads, lambda parameters: torch.optim.SGD(parameters, lr=0.1), constant)
    callback = PolygonF1(Threshold(min_area=20.0, simplify=0.0))
    trainer = make_trainer(ranks, world / f"out{ranks}", callbacks=[callback])
    (world / f"out{ranks}").mkdir(exist_ok=True)
    trainer.test(segmenter, data, verbose=False)
    logged = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("test/")}
    return callback.class_scores, callback.scores["f1"], logged


def test_two_ranks_score_the_classes_as_one(world):
    ((scores, f1, logged),) = on_ranks(score_on_ranks, 1, world)
    for other in on_ranks(score_on_ranks, 2, world):
        assert other[:2] == (scores, f1)
    assert set(scores) == set(NAMES)
    assert all(one["tp"] > 0 and one["f1"] == 1 and one["iou"] > 0.95 for one in scores.values())
    assert logged["test/f1_shed"] == scores["shed"]["f1"]
    assert logged["test/iou_house"] == pytest.approx(scores["house"]["iou"])
    for ranks in (1, 2):
        proposals = geopandas.read_file(world / f"out{ranks}" / "footprints.geojson")
        assert set(proposals["category"]) == set(NAMES)
        assert ((proposals["category"] == "house") == (proposals["area_m2"] > 60)).all()
    one, two = (read_proposals(world / f"out{ranks}" / "proposals.csv", NAMES) for ranks in (1, 2))
    assert {name: found.classes.tolist() for name, found in one.items()} == {
        name: found.classes.tolist() for name, found in two.items()
    }


# --- commands


def overrides_of(world, *more):
    """The overrides of a run of a few steps on the world; its folder is `it` in the folder of the world."""
    data = ["data=folder", f"data.images={world / 'im'}", f"data.labels={world / 'b.gpkg'}", "data.units=dn"]
    return [*RUN, *data, "data.tile_size=64", "data.num_workers=0", "heads=classes", *more]


@pytest.mark.slow
def test_a_run_with_classes_resumes_and_predicts(world, monkeypatch, sn6_command):
    monkeypatch.chdir(world)
    overrides = overrides_of(world, "data.category=kind", "data.classes=[house,shed]")
    assert run_and_stop(overrides, world) == 0, log_of(world)[-3000:]
    (world / "stopped").mkdir()
    assert run_and_stop(overrides, world / "stopped", "SIGKILL it 1 2") == -signal.SIGKILL
    assert run_and_stop(overrides, world / "stopped") == 0, log_of(world / "stopped")[-3000:]
    assert_same_run(world / "stopped/outputs/it", world / "outputs/it")
    metrics = read_metrics(world / "outputs/it")
    for use in ("validation", "test"):
        by_class = metrics[use]["classes"]
        assert list(by_class) == list(NAMES)
        assert sum(one["tp"] + one["fn"] for one in by_class.values()) == metrics[use]["tp"] + metrics[use]["fn"]
    with (world / "outputs/it/metrics.csv").open() as file:
        assert {f"val/{key}_{name}" for key in ("f1", "iou") for name in NAMES} <= set(next(csv.reader(file)))
    trained = load_network(find_weights(world / "outputs/it", "checkpoint", FINAL_WEIGHTS))
    assert trained.heads.class_names == NAMES
    options = [
        "flips=true",
        "merge=true",
        "formats=[csv,geojson,parquet]",
        "probability=true",
        "threshold=0.01",
        "min_area=0",
        "window=64",
        "overlap=16",
    ]
    files = ["checkpoint=outputs/it", f"images={world / 'im'}", "out=out", "device=cpu"]
    done = sn6_command("predict", *files, *options)
    assert done.status == 0, done.err
    for name in ("footprints", "merged"):
        table = geopandas.read_parquet(world / "out" / f"{name}.parquet")
        assert len(table)
        assert set(table["category"]) <= set(NAMES)
    proposals = read_proposals(world / "out/proposals.csv", NAMES)
    assert sum(map(len, proposals.values())) == len(geopandas.read_file(world / "out/footprints.geojson"))


@pytest.mark.parametrize(
    ("kind", "key", "more"),
    [
        ("invalid_value", "data.classes", []),
        ("not_found", "data.classes", ["data.category=kind", "data.classes=[house,church]"]),
        (
            "conflict",
            "heads.classes",
            ["data.category=kind", "data.classes=[house,shed]", "heads.classes.target.names=[shed,house]"],
        ),
        (
            "unknown_value",
            "callbacks.checkpoint.monitor",
            ["data.category=kind", "data.classes=[house,shed]", "callbacks.checkpoint.monitor=val/f1_church"],
        ),
    ],
)
def test_wrong_classes_are_one_line(world, sn6_run, kind, key, more):
    assert_fails(sn6_run(*overrides_of(world, *more)), kind, key)
