"""Limits of batches are totals over the devices: the same tiles are scored on one rank and on several."""

import pytest
import torch
from helpers.commands import assert_fails, read_metrics, small_run
from helpers.errors import user_error
from helpers.ranks import on_ranks
from helpers.training import make_datamodule, make_segmenter, make_trainer

from sn6.data.limits import limited_tiles
from sn6.data.sampler import EpochSampler

CASES = (  # limit, tiles of a batch → tiles of 7
    ({"limit_val_batches": 3}, 1, 3),
    ({"limit_val_batches": 2}, 2, 4),
    ({"limit_val_batches": 4}, 2, 7),
    ({"limit_val_batches": 100}, 1, 7),
    ({"limit_val_batches": 1}, 1, 1),
    ({"limit_val_batches": 1.0}, 1, 7),
    ({"limit_val_batches": 0.5}, 1, 3),
    ({"limit_val_batches": 0.8}, 2, 6),
    ({"overfit_batches": 5}, 1, 5),
)


def evaluate(ranks, root, folder):
    """Return for each case which tiles a validation, and a test with the same limit, have scored."""
    from sn6.callbacks.polygon_f1 import PolygonF1
    from sn6.metrics.tile_table import UNSEEN
    from sn6.training.quiet import quiet_libraries

    scored = []
    for limits, batch_size, _ in CASES:
        data = make_datamodule(root, eval_batch_size=batch_size)
        data.setup()
        data.validation_tiles = data.test_tiles = data._dataset([*data.fold.validation, *data.fold.train][:7])
        test = {"limit_test_batches": next(iter(limits.values()))}
        trainer = make_trainer(ranks, folder, callbacks=[PolygonF1()], **limits, **test)
        data.count_over_ranks(trainer)
        for evaluation in (trainer.validate, trainer.test):
            with quiet_libraries():
                evaluation(make_segmenter(torch.nn.Conv2d(4, 1, 1)), data, verbose=False)
            scored.append((trainer.callbacks[0].by_tile[:, 0] != UNSEEN).tolist())
    return scored


@pytest.mark.slow
def test_the_same_tiles_are_scored_on_one_rank_and_on_two(archive_root, tmp_path):
    (one,) = on_ranks(evaluate, 1, archive_root, tmp_path)
    assert on_ranks(evaluate, 2, archive_root, tmp_path) == [one, one]
    for (limits, _, number), validation, test in zip(CASES, one[::2], one[1::2], strict=True):
        assert validation == test == [True] * number + [False] * (7 - number), limits


@pytest.mark.parametrize(
    ("tiles", "batch_size", "limit", "expected"),
    [(705, 1, 0.1, 70), (705, 4, 0.1, 68), (705, 4, 2, 8), (5, 2, 1.0, 5), (5, 2, 1, 2), (5, 2, 3, 5), (0, 1, 1.0, 0)],
)
def test_the_number_of_tiles(tiles, batch_size, limit, expected):
    assert limited_tiles(tiles, batch_size, limit, "key") == expected


def test_a_fraction_of_less_than_a_batch():
    with user_error("invalid_value", key="trainer.limit_val_batches", value=0.1):
        limited_tiles(9, 1, 0.1, "trainer.limit_val_batches")


@pytest.mark.parametrize(
    ("override", "kind", "key", "value"),
    [
        ("trainer.limit_val_batches=0", "invalid_value", "trainer.limit_val_batches", 0),
        ("trainer.limit_test_batches=0.0", "invalid_value", "trainer.limit_test_batches", 0),
        ("trainer.limit_test_batches=0.01", "invalid_value", "trainer.limit_test_batches", 0.01),
        ("+trainer.limit_predict_batches=1", "conflict", "trainer.limit_predict_batches", 1),
    ],
)
def test_limits_that_leave_nothing_or_have_no_effect(sn6_run, archive_root, tmp_path, override, kind, key, value):
    done = sn6_run(*small_run(), f"data.root={archive_root}", override)
    assert_fails(done, kind, key, value)
    assert not (tmp_path / "outputs/it/checkpoints").exists()  # before the training


def test_overfit_batches_repeats_its_crops_and_limits_the_validation(sn6_run, archive_root, tmp_path):
    overrides = [line for line in small_run() if "limit_train" not in line and "limit_val" not in line]
    done = sn6_run(*overrides, f"data.root={archive_root}", "+trainer.overfit_batches=3", "trainer.max_epochs=2")
    assert done.status == 0, done.err
    assert read_metrics(tmp_path / "outputs/it")["validation"]["tiles"] == 3
    state = torch.load(tmp_path / "outputs/it/checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 6


def test_a_repeating_sampler_has_the_draws_of_the_first_epoch():
    repeating, other = (EpochSampler(10, 4, seed=5, repeats=repeats) for repeats in (True, False))
    first = list(other)
    for sampler in (repeating, other):
        sampler.set_epoch(3)
    assert list(repeating) == first != list(other)
