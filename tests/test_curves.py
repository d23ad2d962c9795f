"""Test the curves of a run, of the threshold and of a sweep."""

import numpy as np
import pytest

from sn6.plots.curves import Course, curves_figure, sweep_figure, threshold_figure


def test_curves_have_the_logged_values_over_the_epochs(tmp_path):
    path = tmp_path / "metrics.csv"
    rows = ["0,0.7,,", "1,0.5,,", "1,,,0.25", "1,,0.65,", "2,0.3,,", "3,,,0.2", "3,,0.35,"]
    path.write_text("\n".join(["step,train/loss,train/epoch_loss,val/f1", *rows]))
    left, right = curves_figure(path, Course(steps_per_epoch=2, chosen_step=2, oracle_f1=0.9)).axes
    batches, means, chosen = left.lines
    assert batches.get_xdata().tolist() == [0.5, 1, 1.5]
    assert batches.get_ydata().tolist() == [0.7, 0.5, 0.3]
    assert means.get_xdata().tolist() == [1, 2]
    assert means.get_ydata() == pytest.approx([0.65, 0.35])
    assert chosen.get_xdata() == [1, 1]
    f1, oracle, chosen = right.lines
    assert (f1.get_xdata().tolist(), f1.get_ydata().tolist()) == ([1, 2], [0.25, 0.2])
    assert oracle.get_ydata() == [0.9, 0.9]
    assert chosen.get_xdata() == [1, 1]


def test_the_threshold_figure_has_a_line_for_each_score():
    curve = [{"threshold": t, "f1": 0.4, "precision": t, "recall": 1 - t} for t in (0.25, 0.75)]
    (axis,) = threshold_figure(curve, "test tiles").axes
    assert {line.get_label(): line.get_ydata().tolist() for line in axis.lines} == {
        "f1": [0.4, 0.4],
        "precision": [0.25, 0.75],
        "recall": [0.75, 0.25],
    }
    assert axis.get_title().startswith("test tiles")


@pytest.mark.parametrize(
    ("texts", "positions", "scale"),
    [
        (["1e-4", "1e-2"], [1e-4, 1e-2], "log"),
        (["2", "4"], [2, 4], "linear"),
        (["unet", "fcn8s"], [1, 0], "linear"),  # in alphabetical order
    ],
)
def test_a_sweep_has_a_panel_for_each_key(texts, positions, scale):
    jobs = [({"key": text, "seed": "0"}, score) for text, score in zip(texts, (0.3, 0.6), strict=True)]
    axis, other = sweep_figure(jobs, "f1").axes
    (points,) = axis.collections
    np.testing.assert_allclose(points.get_offsets(), np.transpose([positions, (0.3, 0.6)]))
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_xscale(), other.get_xlabel()) == ("key", "f1", scale, "seed")
