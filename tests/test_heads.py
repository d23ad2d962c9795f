"""Heads of a network: their channels, losses and directions, by hand and by plain loops."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from helpers.errors import user_error
from helpers.handmade import OTHER_STRIP, SAR_STRIP, speckle, write_labels, write_orientations, write_tile
from helpers.labels import labels_of
from scipy import ndimage
from torch import nn
from torch.utils.data import default_collate

from sn6.data.augment import Dihedral
from sn6.data.dataset import CropDataset, TileDataset
from sn6.data.normalization import Statistics
from sn6.data.source import Source
from sn6.data.store import Store
from sn6.data.stored_crops import StoredCrops
from sn6.datasets.spacenet6 import PRODUCTS, SpaceNet6
from sn6.footprints.threshold import Threshold
from sn6.heads import Head, HeadLosses, Heads
from sn6.losses import BCE, SmoothL1, WeightedBoundary
from sn6.prediction.ensemble import Averaging, Ensemble
from sn6.prediction.trained_network import TrainedNetwork
from sn6.schedules import constant
from sn6.segmenter import Segmenter
from sn6.targets.centre import Centre
from sn6.targets.contact import Contact
from sn6.targets.distance import Distance
from sn6.targets.edge import InnerEdge
from sn6.targets.height import Height
from sn6.targets.mask import Mask
from sn6.targets.offset import Offset
from sn6.targets.target import Target, tile_layers
from sn6.training.loss import as_loss

ALL = {
    "mask": Mask(),
    "contact": Contact(),
    "edge": InnerEdge(),
    "distance": Distance(),
    "centre": Centre(),
    "offset": Offset(),
    "height": Height(),
}
SIDE = 64  # pixels, of the tiles written here
UNSCALED = Statistics((0.0,) * 4, (1.0,) * 4, 0.1)
SAR = Source(PRODUCTS["SAR-Intensity"], (1, 2, 3, 4), orient=True, min_area=20.0)


# --- channels


def test_the_channels_do_not_depend_on_the_order_of_the_declaration():
    outputs = torch.randn(2, 8, 3, 5)
    heads, reversed_heads = Heads(ALL), Heads(dict(reversed(ALL.items())))
    assert heads.channels == 8
    parts = heads.split(outputs)
    assert list(parts) == list(reversed_heads.split(outputs)) == ["mask", *sorted(set(ALL) - {"mask"})]
    assert parts["mask"].shape == (2, 1, 3, 5)
    assert parts["offset"].shape == (2, 2, 3, 5)
    assert torch.equal(torch.cat(list(parts.values()), dim=1), outputs)


def test_maps_are_probabilities_or_the_outputs_themselves():
    heads = Heads({"mask": Mask(), "height": Height()})
    maps = heads.activate(heads.split(torch.tensor([0.0, math.log(3)]).reshape(1, 2, 1, 1).requires_grad_()))
    assert maps["mask"].item() == 0.5
    assert maps["height"].item() == pytest.approx(math.log(3))
    assert not maps["height"].requires_grad


# --- losses


def test_smooth_l1_by_hand():
    """Differences of 0.5, 3 and -1 with β = 1: 0.125, 2.5 and 0.5."""
    outputs, target = torch.tensor([0.5, 3.0, -1.0, 9.0]).reshape(1, 1, 1, 4), torch.zeros(1, 1, 1, 4)
    valid = torch.tensor([True, True, True, False]).reshape(1, 1, 1, 4)
    assert SmoothL1()(outputs, target, valid).item() == pytest.approx(3.125 / 3)
    assert SmoothL1(beta=2.0)(outputs, target, valid).item() == pytest.approx((0.0625 + 2.0 + 0.25) / 3)
    both = torch.cat([outputs, 0 * outputs], dim=1)
    assert SmoothL1()(both, torch.zeros(1, 2, 1, 4), valid).item() == pytest.approx(3.125 / 6)


def batch_of(targets, seed=0, shape=(3, 12, 9)):
    """Draw outputs, and a batch with nodata and unknown pixels; the last sample has no valid pixel."""
    generator = torch.Generator().manual_seed(seed)
    number, *size = shape
    valid = torch.rand((number, 1, *size), generator=generator) < 0.7
    valid[2] = False
    batch = {"valid": valid}
    for name, target in targets.items():
        batch[name] = torch.rand((number, target.channels, *size), generator=generator)
        if target.stored_range is None:
            batch[name][torch.rand((number, 1, *size), generator=generator).expand_as(batch[name]) < 0.4] = torch.nan
    outputs = torch.randn((number, Heads(targets).channels, *size), generator=generator)
    outputs.mT[~valid.mT.expand_as(outputs.mT)] = torch.nan
    return outputs.requires_grad_(), batch


def test_the_loss_is_the_weighted_sum_of_the_heads_and_leaves_out_unknown_pixels():
    """A plain loop over the pixels."""
    targets = {"mask": Mask(), "offset": Offset(), "height": Height()}
    weights = {"mask": 1.0, "offset": 0.25, "height": 3.0}
    losses = HeadLosses({name: Head(one, SmoothL1(), weights[name]) for name, one in targets.items()})
    outputs, batch = batch_of(targets)
    by_head = losses(losses.heads.split(outputs), batch)
    total = losses.weighted_sum(by_head)
    parts = losses.heads.split(outputs.detach())
    for name, target in targets.items():
        for i in range(3):
            values = []
            for row, column in zip(*np.nonzero(batch["valid"][i, 0].numpy()), strict=True):
                pixel = (parts[name][i, :, row, column] - batch[name][i, :, row, column]).tolist()
                if not any(map(math.isnan, pixel)):
                    values += [abs(d) - 0.5 if abs(d) > 1 else d * d / 2 for d in pixel]
            expected = sum(values) / len(values) if values else 0
            assert by_head[name][i].item() == pytest.approx(expected, rel=1e-5)
            assert len(values) < target.channels * 12 * 9 * 0.8
    expected = sum(weights[name] * by_head[name] for name in targets)
    torch.testing.assert_close(total, expected)
    total.sum().backward()
    gradient = losses.heads.split(outputs.grad)
    assert torch.isfinite(outputs.grad).all()
    for name, target in targets.items():
        is_known = batch["valid"] & ~torch.isnan(batch[name]).any(dim=1, keepdim=True)
        assert ((gradient[name] != 0).any(dim=1, keepdim=True) == is_known).all(), (name, target)


def test_the_mask_alone_has_the_loss_itself():
    outputs, batch = batch_of({"mask": Mask()})
    losses = HeadLosses({"mask": Head(Mask(), BCE(), 1.0)})
    total = losses.weighted_sum(losses({"mask": outputs}, batch))
    assert torch.equal(total, BCE()(outputs, batch["mask"], batch["valid"]))


def test_each_loss_has_the_maps_of_its_own_targets():
    """Two losses may declare targets of the same name."""
    heads = {
        "mask": Head(Mask(), WeightedBoundary(w0=10.0)),
        "contact": Head(Contact(), WeightedBoundary(w0=5.0)),
    }
    losses = HeadLosses(heads)
    assert set(losses.targets) == {"contact", "mask.weight", "contact.weight"}
    assert losses.targets["contact.weight"].w0 == 5.0
    outputs, batch = batch_of(losses.heads)
    batch |= {"mask.weight": torch.full_like(batch["mask"], 2.0), "contact.weight": torch.zeros_like(batch["mask"])}
    by_head = losses(losses.heads.split(outputs), batch)
    torch.testing.assert_close(by_head["mask"], 2 * BCE()(outputs[:, :1], batch["mask"], batch["valid"]))
    assert (by_head["contact"] == 0).all()


@pytest.mark.parametrize("name", ALL)
def test_a_loss_is_tried_on_the_target_of_its_head(name):
    of_sigmoid, of_linear = BCE(), SmoothL1()
    target = ALL[name]
    right, wrong = (of_sigmoid, None) if target.activation == "sigmoid" else (of_linear, of_sigmoid)
    assert as_loss(right, "right", target, f"heads.{name}.loss") is right
    stock = nn.BCEWithLogitsLoss() if target.activation == "sigmoid" else nn.L1Loss()
    as_loss(stock, "stock", target)
    if wrong is not None:
        with user_error("invalid_value", f"heads.{name}.loss._target_", "wrong"):
            as_loss(wrong, "wrong", target, f"heads.{name}.loss")


# --- stored layers


@dataclass(frozen=True)
class Ramp(Target):
    """Rise from -2 to 3 with the number of the instance."""

    top: float = 3.0
    stored_range: ClassVar[tuple[float, float] | None] = (-2.0, 3.0)

    def tile(self, labels):
        return np.linspace(-2, self.top, labels.instances.size).reshape(labels.instances.shape)[None]


def test_a_layer_is_rounded_to_255_steps_of_its_range():
    labels = labels_of(np.zeros((30, 40)))
    layer = tile_layers({"ramp": Ramp()}, labels)["ramp"]
    assert layer.dtype == np.uint8
    exact = np.linspace(-2, 3, 1200).reshape(1, 30, 40)
    decoded = Ramp().decode(torch.from_numpy(layer)).numpy()
    assert np.abs(decoded - exact).max() <= 5 / 255 / 2 + 1e-6
    assert (decoded[0, 0, 0], decoded[0, -1, -1]) == (-2, 3)
    for wrong in (3.1, math.nan):
        with user_error("mismatch", "ramp"):
            tile_layers({"ramp": Ramp(wrong)}, labels)


@pytest.mark.parametrize("name", ["mask", "contact", "edge"])
def test_binary_layers_are_exact_in_a_byte(name):
    instances = np.zeros((40, 40), np.int32)
    instances[3:20, 3:20], instances[20:37, 3:20] = 1, 2
    layer = tile_layers({name: ALL[name]}, labels_of(instances))[name]
    decoded = ALL[name].decode(torch.from_numpy(layer)).numpy()
    np.testing.assert_array_equal(decoded, ALL[name].tile(labels_of(instances)))
    assert set(np.unique(decoded)) == {0, 1}


def test_a_store_says_its_size_before_it_is_made(tiles, caplog, capsys):
    """A byte for a map between 0 and 1, four for each component of others; the headers are the rest of the files."""
    targets = {name: one for name, one in ALL.items() if name != "mask"}
    archive = SpaceNet6(tiles)
    store = Store(archive, SAR, tiles / "store", targets)
    with caplog.at_level("INFO", "sn6"):
        store.prepare(archive.tiles("train", "SAR-Intensity"))
    size = 2 * SIDE**2 * (4 * 2 + 1 + 2 + 4 * 1 + (2 + 1) * 4)
    text = f"{size / 1e6:.3g} MB"
    assert text in capsys.readouterr().err
    assert text in caplog.text
    written = sum(path.stat().st_size for path in store.folder.rglob("*.npy"))
    assert size < written < size + 2 * 9 * 200
    files = store.files(archive.tiles("train", SAR.product.name)[0])
    dtypes = {name: str(np.load(path).dtype) for name, path in files.items()}
    assert {name for name in targets if dtypes[name] == "float32"} == {"offset", "height"}
    assert {name for name in targets if dtypes[name] == "uint8"} == {"contact", "edge", "distance", "centre"}


# --- directions


@pytest.fixture
def tiles(tmp_path):
    """Write a tile imaged from the south and one from the north, with two buildings that do not touch."""
    for number, strip in ((1, SAR_STRIP), (2, OTHER_STRIP)):
        write_tile(tmp_path, "SAR-Intensity", speckle(seed=number), number=number, strip=strip)
    ell = '"POLYGON ((4 6, 24 6, 24 12, 10 12, 10 30, 4 30, 4 6))"'
    box = '"POLYGON ((40 35, 61 35, 61 47, 40 47, 40 35))"'
    rows = "".join(
        f"{strip}_tile_{number},{i},{polygon},5,5,1\n"
        for number, strip in ((1, SAR_STRIP), (2, OTHER_STRIP))
        for i, polygon in enumerate((ell, box))
    )
    write_labels(tmp_path, rows)
    write_orientations(tmp_path)
    return tmp_path


def expected_offsets(mask):
    """Return metres from each pixel to the centre of its component, in the frame of the mask."""
    labels, count = ndimage.label(mask)
    expected = np.full((2, *mask.shape), np.nan)
    assert count == 2
    for row, column in zip(*np.nonzero(mask), strict=True):
        rows, columns = np.nonzero(labels == labels[row, column])
        expected[:, row, column] = (rows.mean() - row) * 0.5, (columns.mean() - column) * 0.5
    return expected


def test_offsets_point_to_the_centres_in_every_position_from_geotiffs_and_from_a_store(tiles):
    archive, targets = SpaceNet6(tiles), {name: one for name, one in ALL.items() if name != "mask"}
    both = archive.tiles("train", "SAR-Intensity")
    store = Store(archive, SAR, tiles / "store", targets)
    store.prepare(both)
    for size in (SIDE, SIDE + 7):  # beyond the tile there is no building
        datasets = [TileDataset(archive, both, SAR, UNSCALED, "zero", targets, reader) for reader in (None, store)]
        crops = [CropDataset(one, size, 1, Dihedral(), seed=0) for one in datasets]
        draws = [(epoch, draw) for epoch in range(12) for draw in (0, 1)]
        stored = StoredCrops(crops[1], store, torch.device("cpu")).__getitems__(draws)
        seen = set()
        for number, draw in enumerate(draws):
            sample = crops[0][draw]
            expected = expected_offsets(sample["mask"][0].numpy())
            known = ~np.isnan(expected)
            np.testing.assert_allclose(sample["offset"].numpy()[known], expected[known], atol=1e-5)
            assert torch.isnan(sample["offset"][0]).sum() + known[0].sum() == SIDE**2
            seen.add(sample["mask"].numpy().tobytes())
            for name in ("mask", "valid", *targets):
                both_ways = (stored[name][number], crops[1][draw][name])
                assert all(torch.equal(one.nan_to_num(-9.0), sample[name].nan_to_num(-9.0)) for one in both_ways), name
        assert len(seen) >= 8
        whole = [default_collate([one[i] for i in (0, 1)]) for one in datasets]
        for name in targets:
            assert torch.equal(whole[0][name].nan_to_num(-9.0), whole[1][name].nan_to_num(-9.0)), name
        for sample in (datasets[0][0], datasets[0][1]):
            np.testing.assert_allclose(sample["offset"], expected_offsets(sample["mask"][0].numpy()), atol=1e-5)


class Sides(nn.Module):
    """Give bands of the image: the mask is the first one; offsets are 1 m down and 2 m to the right of it."""

    def forward(self, image):
        first = image[:, :1]
        return torch.cat([first, first, 2 * first], dim=1)


def ensemble_of(**options):
    heads = Heads({"mask": Mask(), "offset": Offset()})
    trained = TrainedNetwork(Sides(), heads, 1, None, SAR, UNSCALED, "zero", Threshold(), None, False, "32-true")
    return Ensemble([trained], "cpu", Averaging(**{"flips": False, "scales": (1.0,), "precision": "32-true"} | options))


def test_flips_at_prediction_turn_the_offsets_back():
    """To the right of a flipped image is to the left: the columns cancel, the rows stay."""
    pixels, valid = np.zeros((4, 8, 8), np.float32), np.ones((8, 8), bool)
    pixels[0, 2, 1], valid[7] = 4, False
    (plain,), (flipped,) = (ensemble_of(flips=flips).outputs([pixels], [valid]) for flips in (False, True))
    assert plain[:, 2, 1].tolist() == [4, 4, 8]
    assert flipped[:, 2, 1].tolist() == [4, 4, 0]
    assert np.isnan(plain[:, 7]).all()
    assert np.nansum(np.abs(flipped)) == 8


@pytest.mark.parametrize("window", [None, 16])
def test_a_run_averages_flips_as_a_prediction_does(window):
    heads = {"mask": Head(Mask(), BCE()), "offset": Head(Offset(), SmoothL1())}
    pixels = np.random.default_rng(0).normal(size=(4, 24, 20)).astype(np.float32)
    batch = {"image": torch.from_numpy(pixels)[None], "valid": torch.ones(1, 1, 24, 20, dtype=torch.bool)}
    batch |= {"mask": torch.zeros(1, 1, 24, 20), "offset": torch.zeros(1, 2, 24, 20)}
    for flips in (False, True):
        segmenter = Segmenter(Sides(), heads, torch.optim.SGD, constant, window=window, window_overlap=8, flips=flips)
        maps = segmenter.validation_step(batch, 0)["maps"]
        (expected,) = ensemble_of(flips=flips).outputs([pixels], [np.ones((24, 20), bool)])
        np.testing.assert_allclose(maps["offset"][0], expected[1:], atol=1e-5)
        np.testing.assert_allclose(maps["mask"][0], 1 / (1 + np.exp(-expected[:1])), atol=1e-5)


def test_offsets_of_an_enlarged_image_are_in_metres_of_the_image_itself():
    pixels, valid = np.ones((4, 8, 8), np.float32), np.ones((8, 8), bool)
    (outputs,) = ensemble_of(scales=(2.0,)).outputs([pixels], [valid])
    np.testing.assert_allclose(outputs, np.broadcast_to([[[1.0]], [[0.5]], [[1.0]]], (3, 8, 8)), rtol=1e-6)


@pytest.mark.parametrize("scale", [0.8, 1.24, 1.33])
def test_a_scaled_image_gives_its_outputs_in_place(scale):
    """At sizes whose products with the scale are no whole numbers: a column's number comes out where it is."""
    pixels, valid = np.zeros((4, 33, 333), np.float32), np.ones((33, 333), bool)
    pixels[0] = np.arange(333)
    (outputs,) = ensemble_of(scales=(scale,)).outputs([pixels], [valid])
    np.testing.assert_allclose(outputs[0, :, 5:-5], pixels[0, :, 5:-5], atol=0.1)
