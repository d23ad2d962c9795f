"""Predict large images in overlapping windows."""

from functools import partial

import numpy as np
import pytest
import torch
from helpers.errors import user_error
from torch import nn

from sn6.models.fcn import FCN8s
from sn6.models.sliding_window import predict_windows, windows_1d
from sn6.models.ternausnet import TernausNet
from sn6.models.unet import UNet


@pytest.mark.parametrize(
    ("size", "window", "overlap"), [((67, 45), 16, 5), ((33, 100), 40, 0), ((31, 31), 30, 29), ((50, 20), 25, 24)]
)
def test_windows_of_a_pointwise_network_equal_a_single_pass(size, window, overlap):
    network, image = nn.Conv2d(4, 3, 1).eval(), torch.randn(2, 4, *size)
    with torch.no_grad():
        torch.testing.assert_close(predict_windows(network, image, window, overlap), network(image), rtol=0, atol=1e-5)


def test_the_network_gets_one_window_at_a_time_and_every_pixel():
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
    """Two windows differ by 1: the blend changes from one to the other in small steps."""
    calls = iter([0.0, 1.0])
    logits = predict_windows(lambda part: torch.full_like(part, next(calls)), torch.zeros(1, 1, 8, 96), 64, 32)
    row = logits[0, 0, 0]
    assert (row[:43] < 1e-6).all()  # 32 + 3/8 of the overlap
    assert (row[53:] > 1 - 1e-6).all()
    assert row.diff()[43:52].min() > 0
    assert row.diff().max() < 0.25
    torch.testing.assert_close(row[47] + row[48], torch.tensor(1.0))


@pytest.mark.parametrize("build", [UNet, TernausNet])
def test_windows_of_a_network_agree_with_a_single_pass(build):
    """A pixel changes logits up to 107 pixels away in a U-Net, 184 in a TernausNet: less than 3/8 of these overlaps."""
    network, image = build(in_channels=2, width=4).eval(), torch.randn(1, 2, 610, 900)
    overlap = {UNet: 288, TernausNet: 504}[build]
    with torch.inference_mode():
        single, windows = network(image), predict_windows(network, image, overlap + 96, overlap)
    assert single.std() > 0.1
    torch.testing.assert_close(windows, single, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("build", "reach"),
    [(UNet, 107), (TernausNet, 184), (partial(TernausNet, encoder="vgg16"), 215), (FCN8s, 245)],
)
def test_a_pixel_changes_logits_as_far_away_as_the_default_overlap_assumes(build, reach):
    network, farthest = build(in_channels=1, width=2).eval(), 0
    for column in range(512, 544):  # all positions within the 32 pixels that are pooled into one
        image = torch.zeros(1, 1, 32, 1056)
        image[..., 16, column] = torch.nan
        with torch.inference_mode():
            reached = torch.isnan(network(image)[0, 0]).any(0).nonzero()
        farthest = max(farthest, column - int(reached.min()), int(reached.max()) - column)
    assert farthest == reach


@pytest.mark.parametrize(("size", "window", "overlap"), [(2000, 1024, 256), (901, 300, 250), (70, 64, 63), (10, 64, 0)])
def test_blend_weights_sum_to_one_and_windows_start_where_pooling_starts(size, window, overlap):
    total = np.zeros(size)
    for part in windows_1d(size, window, overlap):
        assert part.stop - part.start <= window
        assert part.start % 32 == 0 or window - overlap < 32
        total[part.start : part.stop] += part.blend_weight
    assert total == pytest.approx(np.ones(size), abs=1e-6)


def test_a_small_image_is_passed_in_one_piece():
    image = torch.randn(1, 2, 30, 32)
    assert predict_windows(lambda x: x, image, window=32, overlap=8) is image


@pytest.mark.parametrize("overlap", [32, 40, -1])
def test_an_invalid_overlap_is_an_error(overlap):
    with user_error("invalid_value", key="overlap", value=overlap):
        predict_windows(lambda x: x, torch.zeros(1, 1, 64, 64), 32, overlap)
