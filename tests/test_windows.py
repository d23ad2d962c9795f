"""Whole tiles in overlapping windows."""

import pytest
import torch
from torch import nn

from sn6.errors import UserError
from sn6.models.windows import predict_windows


@pytest.mark.parametrize(
    ("size", "window", "overlap"), [((67, 45), 16, 5), ((33, 100), 40, 0), ((31, 31), 30, 29), ((50, 20), 25, 24)]
)
def test_windows_of_a_pointwise_network_give_the_single_pass(size, window, overlap):
    network, image = nn.Conv2d(4, 3, 1).eval(), torch.randn(2, 4, *size)
    with torch.no_grad():
        torch.testing.assert_close(predict_windows(network, image, window, overlap), network(image), rtol=0, atol=1e-5)


def test_the_network_sees_no_more_than_one_window_and_every_pixel():
    seen = torch.zeros(61, 90)

    def network(part):
        assert max(part.shape[2:]) <= 32
        rows, columns = part[0, 0].long(), part[0, 1].long()
        seen[rows, columns] += 1
        return part[:, :1].bfloat16()

    rows, columns = torch.meshgrid(torch.arange(61.0), torch.arange(90.0), indexing="ij")
    logits = predict_windows(network, torch.stack([rows, columns])[None], window=32, overlap=8)
    assert seen.min() >= 1
    assert logits.dtype == torch.float32


def test_windows_blend_without_a_seam():
    """Two windows that disagree by 1: the blend goes over from one to the other in even steps."""
    calls = iter([0.0, 1.0])
    logits = predict_windows(lambda part: torch.full_like(part, next(calls)), torch.zeros(1, 1, 8, 24), 16, 8)
    steps = logits[0, 0, 0].diff()
    assert (logits[..., :8] == 0).all()
    assert (logits[..., 16:] == 1).all()
    torch.testing.assert_close(steps[8:15], torch.full((7,), 0.125))


def test_a_small_image_goes_through_as_it_is():
    image = torch.randn(1, 2, 30, 32)
    assert predict_windows(lambda whole: whole, image, window=32, overlap=8) is image


@pytest.mark.parametrize("overlap", [32, 40, -1])
def test_an_overlap_that_leaves_no_step_is_refused(overlap):
    with pytest.raises(UserError, match=f"overlap={overlap} does not go with window=32"):
        predict_windows(lambda x: x, torch.zeros(1, 1, 64, 64), 32, overlap)
