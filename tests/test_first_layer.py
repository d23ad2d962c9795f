"""Adapt the first layer of ImageNet weights to other bands, against values computed by hand."""

import pytest
import torch
import torch.nn.functional as F
from helpers.errors import user_error

from sn6.models.first_layer import FirstLayer

RADAR = ("HH", "HV", "VH", "VV")


def filters(*values):
    """Return the weight of one 1×1 filter with these values by band."""
    return torch.tensor(values).reshape(1, -1, 1, 1)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (FirstLayer("mean", RADAR), [3.0, 3.0, 3.0, 3.0]),  # (1 + 4 + 7) / 4
        (FirstLayer("repeat", RADAR), [0.75, 3.0, 5.25, 0.75]),  # times 3/4
        (FirstLayer("names", ("B", "G", "R", "NIR")), [7.0, 4.0, 1.0, 0.0]),
        (FirstLayer("names", ("B", "G", "R")), [7.0, 4.0, 1.0]),  # as many bands, in another order
        (FirstLayer("mean", ("B", "G", "R")), [1.0, 4.0, 7.0]),  # as many bands: unchanged
        (FirstLayer("repeat", ("HH",)), [3.0]),
        (FirstLayer("mean", ("HH",)), [12.0]),
    ],
)
def test_each_rule_gives_the_values_computed_by_hand(rule, expected):
    adapted = rule.of(filters(1.0, 4.0, 7.0), len(expected))
    assert adapted.flatten().tolist() == pytest.approx(expected)


def test_bands_of_rearranged_pixels_are_adapted_alike():
    """Two pixels of three bands are six input channels, the bands of a pixel side by side."""
    adapted = FirstLayer("repeat", RADAR).of(filters(4.0, 8.0, 12.0, 40.0, 80.0, 120.0), 4)
    assert adapted.flatten().tolist() == [3.0, 6.0, 9.0, 3.0, 30.0, 60.0, 90.0, 30.0]


@pytest.mark.parametrize("bands", [1, 2, 4, 8])
def test_a_widened_layer_responds_to_grey_like_the_rgb_layer(bands):
    weight, grey = torch.randn(6, 3, 3, 3), torch.randn(2, 1, 9, 9)
    widened = F.conv2d(grey.expand(-1, bands, -1, -1), FirstLayer().of(weight, bands))
    torch.testing.assert_close(widened, F.conv2d(grey.expand(-1, 3, -1, -1), weight), rtol=1e-4, atol=1e-5)


def test_names_without_a_common_band_are_an_error():
    with user_error("conflict", key="model.adapt", value="names"):
        FirstLayer("names", RADAR).of(filters(1.0, 4.0, 7.0), 4)
