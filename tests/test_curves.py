"""The curves of a run."""

from sn6.plots.curves import curves_figure


def test_curves_are_drawn_from_what_was_logged(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss,val/f1\n0,0.7,\n1,0.5,\n1,,0.25\n")
    left, right = curves_figure(path).axes
    (loss,) = left.lines
    assert loss.get_xdata().tolist() == [0, 1]
    assert loss.get_ydata().tolist() == [0.7, 0.5]
    (f1,) = right.lines
    assert f1.get_ydata().tolist() == [0.25]
