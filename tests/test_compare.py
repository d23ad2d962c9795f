"""`sn6 compare`: groups of runs, their means, differences and intervals, and runs that cannot be compared."""

import csv
import json
import math

import numpy as np
import pytest
import yaml
from helpers.commands import assert_fails

from sn6.metrics.comparison import as_latex, as_markdown
from sn6.metrics.matching import Counts

CORNERS = {"a": (0.0, 900.0), "b": (450.0, 900.0), "c": (900.0, 900.0), "d": (1350.0, 900.0)}


def make_run(folder, tiles, seed=0, lr=1e-3, overrides=None):
    """Write the files of a finished run that counted these (tp, fp, fn) on its test tiles."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints/best.ckpt").touch()
    total = Counts(*np.sum(list(tiles.values()), axis=0).tolist())
    test = {"f1": total.f1, "precision": total.precision, "recall": total.recall, "scored_on": "test tiles"}
    test |= {f"{part}_f1": value for part, value in (("touching", 0.0), ("alone", total.f1))}
    metrics = {"test": test, "validation": {"f1": 0.1}, "operating_point": {"f1": 0.1}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    config = {"seed": seed, "name": folder.name, "optimizer": {"lr": lr}}
    config |= {group: {} for group in ("data", "model", "trainer", "callbacks")}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with (folder / "test_tiles.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", "west", "north", "tp", "fp", "fn", "touching_tp", "touching_fp", "touching_fn"])
        for name, counts in tiles.items():
            writer.writerow([name, *CORNERS[name], *counts, 0, 0, 0])
    if overrides is not None:
        job = {"overrides": overrides, "status": "finished", "value": total.f1}
        (folder / "job.json").write_text(json.dumps(job))
    return folder


@pytest.fixture
def sn6_compare(sn6_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: sn6_command("compare", *arguments)


def tables(folder):
    lines = [line.strip("| \n").split(" | ") for line in (folder / "comparison.md").read_text().splitlines()]
    with (folder / "runs.csv").open(newline="") as file:
        return lines, list(csv.DictReader(file))


def numbers(text):
    return [float(word) for word in text.replace("(", " ").replace(")", " ").replace("to", " ").split()]


def test_runs_that_differ_in_their_seed_are_one_group(sn6_compare, tmp_path):
    """F1 by hand: 0.5, 0.7 and 0.8."""
    folders = [
        make_run(tmp_path / "first", {"a": (5, 5, 5), "b": (5, 5, 5)}),
        make_run(tmp_path / "second", {"a": (7, 3, 3), "b": (7, 3, 3)}, seed=1),
        make_run(tmp_path / "other", {"a": (8, 2, 2), "b": (8, 2, 2)}, lr=1e-2),
    ]
    done = sn6_compare(*folders, f"out={tmp_path}/out")
    assert done.status == 0, done.err
    (_, _, first, other), runs = tables(tmp_path / "out")
    assert [(run["group"], run["run"], run["seed"]) for run in runs] == [
        ("first", str(folders[0]), "0"),
        ("first", str(folders[1]), "1"),
        ("other", str(folders[2]), "0"),
    ]
    assert [float(run["f1"]) for run in runs] == pytest.approx([0.5, 0.7, 0.8])
    assert first[:2] == ["first", f"0.600 ± {0.1 * math.sqrt(2):.3f} (2)"]
    assert other[:2] == ["other", "0.800"]
    # all tiles are alike, so every resampled ground has the same score
    assert numbers(first[2]) == pytest.approx([0.6] * 3)
    assert numbers(other[3]) == pytest.approx([0.2] * 3)
    assert first[3] == ""
    assert (tmp_path / "out/comparison.png").stat().st_size > 1000


def test_a_difference_is_paired_on_the_ground(sn6_compare, tmp_path):
    """Hard and easy ground make each score uncertain; one run is better everywhere, so their difference is not."""
    worse = {"a": (1, 9, 9), "b": (9, 1, 1), "c": (1, 9, 9), "d": (9, 1, 1)}
    better = {name: (tp + 1, fp - 1, fn - 1) for name, (tp, fp, fn) in worse.items()}
    make_run(tmp_path / "worse", worse)
    make_run(tmp_path / "better", better, lr=1.0)
    assert sn6_compare("worse", "better").status == 0
    _, _, first, second = tables(tmp_path / "outputs/comparison")[0]
    _, low, high = numbers(first[2])
    assert high - low > 0.4
    assert numbers(second[3]) == pytest.approx([0.1, 0.1, 0.1])


def test_the_interval_equals_that_of_a_plain_bootstrap(sn6_compare, tmp_path):
    counts = {"a": (3, 4, 9), "b": (9, 1, 1), "c": (5, 9, 2), "d": (1, 7, 3)}
    make_run(tmp_path / "run", counts)
    assert sn6_compare("run").status == 0
    _, low, high = numbers(tables(tmp_path / "outputs/comparison")[0][2][2])
    generator, table = np.random.default_rng(5), np.array(list(counts.values()))
    scores = []
    for _ in range(20_000):
        tp, fp, fn = table[generator.integers(4, size=4)].sum(axis=0)
        scores.append(2 * tp / (2 * tp + fp + fn))
    assert (low, high) == pytest.approx(np.quantile(scores, (0.025, 0.975)), abs=0.03)


def test_a_sweep_is_grouped_by_everything_but_the_seed(sn6_compare, tmp_path):
    tiles = {"a": (5, 5, 5), "b": (5, 5, 5)}
    for lr in (0.1, 0.2):
        for seed in (0, 1):
            make_run(tmp_path / f"sweep/lr-{lr}_seed-{seed}", tiles, seed, lr, [f"optimizer.lr={lr}", f"seed={seed}"])
    failed = tmp_path / "sweep/failed"
    failed.mkdir()
    (failed / "job.json").write_text(json.dumps({"overrides": ["optimizer.lr=9"], "status": "failed"}))
    assert sn6_compare("sweep").status == 0
    runs = tables(tmp_path / "outputs/comparison")[1]
    assert [run["group"] for run in runs] == ["sweep: optimizer.lr=0.1"] * 2 + ["sweep: optimizer.lr=0.2"] * 2


def test_what_cannot_be_compared_is_one_line(sn6_compare, tmp_path):
    make_run(tmp_path / "run", {"a": (5, 5, 5)})
    make_run(tmp_path / "elsewhere", {"b": (5, 5, 5)})
    assert_fails(sn6_compare("run", "elsewhere"), "conflict", "runs", "elsewhere")
    assert_fails(sn6_compare("run", "missing"), "not_found", "runs", "missing")
    assert_fails(sn6_compare(), "missing_value", "runs")
    (tmp_path / "elsewhere/metrics.json").unlink()
    assert_fails(sn6_compare("run", "elsewhere"), "not_found", "runs", "elsewhere")
    (tmp_path / "run/test_tiles.csv").write_text("image_id,tp\na,1\n")
    assert_fails(sn6_compare("run"), "unreadable", "run/test_tiles.csv")
    assert not (tmp_path / "outputs").exists()


def test_names_are_escaped_in_tables():
    rows = [["", "50% & more"], ["a_b|c", "0.1 ± 0.2"]]
    assert as_markdown(rows).splitlines()[2] == "| a_b\\|c | 0.1 ± 0.2 |"
    assert as_latex(rows).splitlines()[2:5] == [r" & 50\% \& more \\", r"\hline", r"a\_b|c & 0.1 $\pm$ 0.2 \\"]
