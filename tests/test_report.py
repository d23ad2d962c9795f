"""What a run prints without a terminal, its contact sheet, and the commands that it names at its end."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import read_metrics, small_run, start, wait_for_end
from helpers.forked import python_m
from matplotlib.colors import to_hex
from shapely import box

from sn6.metrics.matching import Counts, match_tile
from sn6.plots.contact_sheet import Panel, contact_sheet
from sn6.plots.tiles import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE
from sn6.training.contact_sheet import best_median_worst

WITH_PROGRESS = [line for line in small_run() if "progress_bar" not in line]
STAGES = "stages={eo: ['data=eo'], sar: ['data=sar', 'callbacks.sar_handoff.weights=${run_folder}/eo']}"


@pytest.fixture(scope="module")
def printed(archive_root, tmp_path_factory):
    """The folder of a run of two stages and what it printed to a file."""
    folder = tmp_path_factory.mktemp("run")
    more = ["trainer.max_epochs=2", "trainer.limit_test_batches=null", "polygons.threshold=0.27"]
    overrides = [line for line in WITH_PROGRESS if "max_epochs" not in line and "limit_test" not in line]
    done = python_m(["sn6.run", *overrides, *more, f"data.root={archive_root}", STAGES], folder)
    assert done.status == 0, done.err
    return folder, done.err


def test_without_a_terminal_there_are_only_plain_lines(printed):
    _, err = printed
    assert "\x1b" not in err
    assert "\r" not in err
    assert all(line == line.rstrip() for line in err.splitlines())
    assert len(err.splitlines()) < 70


def test_each_validation_has_a_line(printed):
    folder, err = printed
    of_epochs = [line for line in err.splitlines() if re.match(r"epoch \d", line)]
    assert len(of_epochs) == 4
    for stage in ("eo", "sar"):
        assert read_metrics(folder / "outputs/it" / stage)["test"]["tiles"] > 0


def test_the_result_of_each_stage_is_at_the_end(printed):
    folder, err = printed
    lines = err.splitlines()
    for stage, metrics in read_metrics(folder / "outputs/it")["stages"].items():
        test = metrics["test"]
        (row,) = [line.split() for line in lines[-16:] if line.startswith(f"{stage} ")]
        values = (*(test[key] for key in ("f1", "precision", "recall")), test["oracle"]["f1"])
        values += (test["touching_f1"], test["alone_f1"])
        assert row[1:8] == [*(f"{value:.3f}" for value in values), str(test["tiles"])]


def commands_in(err):
    return [line.strip() for line in err.splitlines() if line.strip().startswith("python -m sn6.")]


@pytest.mark.slow
def test_the_next_commands_run_as_they_are_printed(printed):
    folder, err = printed
    commands = commands_in(err)
    assert len(commands) == 3
    for command in commands:
        done = python_m(shlex.split(command)[2:], folder)
        assert done.status == 0, f"{command}\n{done.err}"
    assert (folder / "outputs/it/prediction/proposals.csv").exists()
    assert list((folder / "outputs/it/tiles").glob("*.png"))
    assert (folder / "outputs/it/score.json").exists()


@pytest.mark.slow
def test_the_next_commands_of_an_optical_run_with_a_blank_in_its_name(archive_root, tmp_path):
    """Its scored tiles are validation tiles: the score of the file is that of the run."""
    import json

    overrides = [line for line in WITH_PROGRESS if not line.startswith(("name=", "trainer.limit"))]
    more = ["name=an optical run", "data=eo", "trainer.limit_train_batches=2", f"data.root={archive_root}"]
    trained = python_m(["sn6.run", *overrides, *more], tmp_path)
    assert trained.status == 0, trained.err
    for command in commands_in(trained.err):
        done = python_m(shlex.split(command)[2:], tmp_path)
        assert done.status == 0, f"{command}\n{done.err}"
    folder = tmp_path / "outputs/an optical run"
    overall, test = json.loads((folder / "score.json").read_text())["overall"], read_metrics(folder)["test"]
    assert [overall[key] for key in ("tp", "fp", "fn")] == [test[key] for key in ("tp", "fp", "fn")]


@pytest.mark.slow
def test_one_process_of_two_prints(bright_root, tmp_path):
    overrides = [*WITH_PROGRESS, "trainer.devices=2", "data.batch_size=4", "trainer.limit_val_batches=null"]
    overrides += [f"data.root={bright_root}"]
    status, err = wait_for_end(start(tmp_path, overrides))
    assert status == 0, err
    lines = err.splitlines()
    for beginning in ("run ", "network ", "epoch 0", "calibrating", "refining", "next:"):
        assert len([line for line in lines if line.startswith(beginning)]) == 1, beginning
    assert len(commands_in(err)) == 3
    assert Path(tmp_path / "outputs/it/figures/test_contact_sheet.png").exists()


# --- the contact sheet


def test_the_best_the_median_and_the_worst_tiles_are_drawn():
    counts = {
        0: Counts(tp=1, fp=1, fn=0),  # 2/3
        1: Counts(),  # neither buildings nor proposals
        2: Counts(tp=2),  # 1
        3: Counts(fn=5),  # 0 with 5 errors
        4: Counts(tp=1, fp=2, fn=1),  # 2/5
        5: Counts(fp=2),  # 0 with 2 errors
    }
    ranked = [2, 0, 4, 5, 3]
    assert best_median_worst(counts, 1) == [("best", 2), ("median", 4), ("worst", 3)]
    assert best_median_worst(counts, 2) == best_median_worst(counts, 1)  # not enough for two of each
    more = counts | {6: Counts(tp=3, fp=1), 7: Counts(fp=9)}  # 6/7 and 0 with 9 errors: 2, 6, 0, 4, 5, 3, 7
    expected = [("best", 2), ("median", 0), ("worst", 3), ("best", 6), ("median", 4), ("worst", 7)]
    assert best_median_worst(more, 2) == expected
    pair = {index: counts[index] for index in ranked[:2]}
    assert best_median_worst(pair, 2) == [("best", 2), ("worst", 0)]
    assert best_median_worst({7: Counts()}, 2) == [("best", 7)]
    assert best_median_worst({}, 2) == []


def test_a_panel_has_the_outlines_of_its_match():
    truth = np.array([box(0, 0, 20, 20), box(30, 0, 50, 20), box(0, 30, 20, 50)], dtype=object)
    proposals = np.array([box(1, 0, 21, 20), box(60, 60, 80, 80)], dtype=object)
    match = match_tile(truth, proposals, np.array([0.9, 0.8]))
    picture = np.zeros((90, 90), dtype=np.float32)
    figure = contact_sheet([Panel("tile 7", picture, 0.5, truth, proposals, match)], "a run")
    drawn = {
        to_hex(collection.get_edgecolor()[0]): [path.get_extents().extents.tolist() for path in collection.get_paths()]
        for collection in figure.axes[0].collections
    }
    assert drawn == {
        TRUE_POSITIVE: [[1, 0, 21, 20]],
        FALSE_NEGATIVE: [[30, 0, 50, 20], [0, 30, 20, 50]],
        FALSE_POSITIVE: [[60, 60, 80, 80]],
    }
    heading = figure.axes[0].get_title()
    assert "0.40" in heading  # 2 · 1 / (2 · 1 + 1 + 2)
    assert "7" in heading
