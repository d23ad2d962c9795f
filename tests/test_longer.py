"""A finished run trains longer: exactly with a constant learning rate, with others only where that is said."""

import json

import pytest
import torch
from helpers.resuming import RUN, assert_same_run, log_of, logged_values, metrics_of, weights_of
from helpers.stopping import read_user_error, run_and_stop

from sn6.config.composition import compose_values, composing
from sn6.training.longer import is_longer, keeps_rates

IT = "outputs/it"


def node_of(*overrides):
    with composing() as more:
        return compose_values([*more, *overrides], name="it", folder="it")["schedule"]


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_schedules_that_keep_their_rates_in_a_longer_run(schedule):
    assert keeps_rates(node_of(f"schedule={schedule}"))
    assert not keeps_rates(node_of(f"schedule={schedule}", "schedule.warmup=0.1"))


@pytest.mark.parametrize("schedule", ["cosine", "polynomial", "flat_then_linear", "multistep", "one_cycle"])
def test_schedules_whose_rates_depend_on_the_length(schedule):
    assert not keeps_rates(node_of(f"schedule={schedule}"))


@pytest.mark.parametrize(
    ("before", "after", "longer"),
    [
        ((2, -1), (3, -1), True),
        ((2, -1), (2, -1), False),
        ((3, -1), (2, -1), False),
        ((2, 100), (2, -1), True),
        ((2, 100), (-1, 200), True),
        ((2, 100), (4, 50), False),
        ((None, 100), (None, 100), False),
    ],
)
def test_longer_is_more_epochs_or_steps_and_less_of_none(before, after, longer):
    saved, config = ({"trainer": dict(zip(("max_epochs", "max_steps"), one, strict=True))} for one in (before, after))
    assert is_longer(saved, config) == longer


def train_twice(archive_root, tmp_path, first_length):
    """Train to `first_length`, then to the end, and in another folder without a stop.

    Returns:
        Both folders, and the metrics of the first length.
    """
    run = [*RUN, f"data.root={archive_root}", "schedule=constant"]
    short, whole = tmp_path / "short", tmp_path / "whole"
    for folder, overrides in ((short, [*run, first_length]), (whole, run)):
        folder.mkdir()
        assert run_and_stop(overrides, folder) == 0, log_of(folder)[-3000:]
    before = json.loads((short / IT / "metrics.json").read_text())
    assert run_and_stop(run, short) == 0, log_of(short)[-3000:]
    return short / IT, whole / IT, before


@pytest.mark.slow
def test_a_finished_run_trains_longer_to_the_same_bits(archive_root, tmp_path):
    short, whole, before = train_twice(archive_root, tmp_path, "trainer.max_epochs=1")
    assert_same_run(short, whole)
    assert metrics_of(short) == metrics_of(whole)
    assert json.loads((short / "metrics.before.json").read_text()) == before


@pytest.mark.slow
def test_a_run_that_ended_within_an_epoch_trains_longer_to_the_same_bits(archive_root, tmp_path):
    short, whole, _ = train_twice(archive_root, tmp_path, "trainer.max_steps=6")
    trained = [[row for row in logged_values(each) if row["train/loss"]] for each in (short, whole)]
    assert trained[0] == trained[1]
    weights, expected = weights_of(short), weights_of(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights.items())


@pytest.mark.slow
def test_a_finished_run_of_another_schedule_needs_a_word(archive_root, tmp_path):
    run = [*RUN, f"data.root={archive_root}", "schedule=cosine"]
    assert run_and_stop([*run, "trainer.max_epochs=1"], tmp_path) == 0, log_of(tmp_path)[-3000:]
    files = {path: path.read_bytes() for path in (tmp_path / IT).rglob("*") if path.suffix in (".json", ".ckpt")}
    assert run_and_stop(run, tmp_path) == 1
    assert read_user_error(tmp_path) == ("conflict", "trainer.max_epochs", 2)
    assert all(path.read_bytes() == content for path, content in files.items())
    assert not (tmp_path / IT / "error.txt").exists()
    assert run_and_stop([*run, "resume=extend"], tmp_path) == 0, log_of(tmp_path)[-3000:]
    assert metrics_of(tmp_path / IT) != files[tmp_path / IT / "metrics.json"]
    assert (tmp_path / IT / "metrics.before.json").read_bytes() == files[tmp_path / IT / "metrics.json"]
