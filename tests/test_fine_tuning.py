"""Start from weights that were trained on other images: refused in one line, or adapted as the config says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.commands import assert_fails, read_metrics
from helpers.errors import user_error
from helpers.networks import random_network, write_network
from helpers.towns import write_town
from rasterio.warp import transform

from sn6.checkpoints.initial_weights import MODEL_KEY, provenance, read_initial_weights
from sn6.checkpoints.metadata import ForeignMetadata
from sn6.checkpoints.run_files import FINAL_WEIGHTS
from sn6.data.folds import Fold
from sn6.data.source import Source
from sn6.datasets.declaration import Product, Tile
from sn6.datasets.radar_units import Units
from sn6.datasets.spacenet6 import PRODUCTS, SpaceNet6
from sn6.models.ternausnet import TernausNet

SAR = Source(PRODUCTS["SAR-Intensity"], (1, 2, 3, 4), True, 20.0)


def own(bands=("HH", "HV", "VH", "VV"), pixel_size=0.5, sensor="radar", **more):
    """Return a source of a user's own images."""
    product = Product("images", bands, "float32", pixel_size, sensor, **more)
    return Source(product, tuple(product.numbers), False, 20.0)


@pytest.fixture(scope="module")
def network():
    return random_network()


def load(path, network, source, adapt, key=MODEL_KEY):
    """Load weights of four radar bands into a network for `source`; return it and what was done by tensor."""
    given = read_initial_weights(str(write_network(path / "w.safetensors", network)), key, FINAL_WEIGHTS)
    other = TernausNet(len(source.bands), 1, width=4)
    rows = given.load_into(other, source, adapt, reset_head=False)
    return other, {row.tensor: row for row in rows}, given


@pytest.mark.parametrize("source", [SAR, own(), own(units=Units("dn", 0.1, -30.0)), own(pixel_size=0.501)])
def test_the_same_kind_of_images_needs_no_rule(tmp_path, network, source):
    """Digital numbers become decibels while they are read, and 0.2% of a pixel is no other scale."""
    other, rows, given = load(tmp_path, network, source, None)
    assert given.differences(source) == []
    assert {row.action for row in rows.values()} == {"loaded"}
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in other.state_dict().items())


@pytest.mark.parametrize(
    ("source", "named"),
    [
        (own(bands=("VV",)), ["HH, HV, VH, VV", "VV"]),
        (own(bands=("HH", "HV", "VV", "VH")), ["HH, HV, VV, VH"]),
        (own(pixel_size=0.35), ["0.5 m", "0.35 m"]),
        (own(bands=("B", "G", "R", "NIR"), sensor="optical"), ["radar", "optical", "B, G, R, NIR"]),
        (own(bands=("band1",), pixel_size=10.0, sensor="optical"), ["0.5 m", "10 m", "band1", "radar", "optical"]),
    ],
)
def test_other_images_are_refused_by_what_differs(tmp_path, network, source, named):
    with user_error("missing_value", key="model.adapt") as caught:
        load(tmp_path, network, source, None)
    assert all(words in str(caught.value) for words in named)
    other, rows, given = load(tmp_path, network, source, "mean")
    assert given.differences(source)
    first = [name for name, row in rows.items() if row.action == "adapted"]
    assert len(first) == (len(source.bands) != 4)
    assert {row.action for name, row in rows.items() if name not in first} == {"loaded"}
    for name in first:
        old = network.state_dict()[name]
        new = len(source.bands)
        torch.testing.assert_close(other.state_dict()[name], old.sum(1, keepdim=True).expand(-1, new, -1, -1) / new)


def test_bands_of_the_same_name_keep_their_filters(tmp_path, network):
    other, rows, _ = load(tmp_path, network, own(bands=("VV", "HH")), "names")
    (name,) = (name for name, row in rows.items() if row.action == "adapted")
    old, new = network.state_dict()[name], other.state_dict()[name]
    assert torch.equal(new, old[:, [3, 0]])


def test_the_hand_off_is_made_for_another_sensor_but_not_another_scale(tmp_path, network):
    optical, key = own(bands=("B", "G", "R", "NIR"), sensor="optical"), "callbacks.sar_handoff.weights"
    _, rows, _ = load(tmp_path, network, optical, None, key)
    assert {row.action for row in rows.values()} == {"loaded"}
    coarse = replace(optical, product=replace(optical.product, pixel_size=1.0))
    with user_error("missing_value", key="callbacks.sar_handoff.adapt"):
        load(tmp_path, network, coarse, None, key)


def test_weights_of_other_programs_do_not_say_what_they_saw(tmp_path, network):
    _, _, given = load(tmp_path, network, SAR, None)
    assert replace(given, metadata=ForeignMetadata()).differences(own(pixel_size=10.0)) == []


# --- the ground they were trained on


def square(west, north, crs_from, crs_to):
    """Return the box of 100 m around a corner in another CRS."""
    x, y = transform(crs_from, crs_to, [west, west + 100, west, west + 100], [north, north, north - 100, north - 100])
    return min(x), min(y), max(x), max(y)


@pytest.mark.parametrize(
    ("crs", "shift", "overlapping"),
    [
        ("EPSG:25833", 0, 1),
        ("EPSG:25833", 200, 0),
        ("EPSG:25832", 0, 1),
        ("EPSG:25832", 200, 0),
        ("EPSG:6933", 0, 1),
        ("EPSG:6933", 200, 0),
    ],
)
def test_the_training_area_is_compared_on_the_ground(tmp_path, network, crs, shift, overlapping):
    """Whatever CRS the run divides its ground in; the numbers of another zone are another place."""
    trained = square(390_000.0, 5_820_000.0, "EPSG:25833", "EPSG:25833")
    _, _, given = load(tmp_path, network, SAR, None)
    about = given.metadata.model_copy(update={"training_area": (trained,), "training_crs": "EPSG:25833"})
    given = replace(given, metadata=about)
    tile = Tile("a", "train", "s", None, square(390_000.0 + shift, 5_820_000.0, "EPSG:25833", crs), ())
    found = provenance(given, Fold([], [tile], [tile], []), crs, None)
    assert found["scored_tiles_in_training_area"] == overlapping
    same_numbers = replace(tile, bounds=trained)
    found = provenance(given, Fold([], [same_numbers], [same_numbers], []), "EPSG:25831", None)
    assert found["scored_tiles_in_training_area"] == 0


def test_weights_of_older_versions_were_trained_on_spacenet_6(tmp_path, network):
    _, _, given = load(tmp_path, network, SAR, None)
    assert given.metadata.training_crs == SpaceNet6.crs


# --- by the command line


def test_a_network_of_three_bands_is_fine_tuned_for_one(sn6_run, tmp_path):
    wide = write_town(tmp_path / "wide", bands=3)
    narrow = write_town(tmp_path / "narrow", bands=1, pixel_size=0.4, origin=(500_000.0, 5_500_000.0))
    short = [
        *("model=unet", "model.width=4", "model.depth=2", "data.crop=32", "data.batch_size=2", "data.num_workers=0"),
        *("trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.accelerator=cpu", "optimizer.lr=0.0"),
        *("optimizer.weight_decay=0.0", "trainer.precision=32-true", "callbacks.image_logging.tiles=0"),
        *("callbacks.calibration=null", "+trainer.enable_progress_bar=false", "~callbacks.progress_bar"),
    ]

    def run(town, *more):
        data = ("data=folder", f"data.images={town}/images", f"data.labels={town}/buildings.gpkg")
        return sn6_run(*short, *data, *more)

    assert run(wide, "name=wide").status == 0
    weights = f"model.weights={tmp_path}/outputs/wide"
    refused = run(narrow, "name=refused", weights)
    assert_fails(refused, "missing_value", "model.adapt")
    assert all(words in refused.err for words in ("band1, band2, band3", "0.5 m", "0.4 m"))
    done = run(narrow, "name=narrow", weights, "model.adapt=repeat")
    assert done.status == 0, done.err
    said = done.err.replace("\n", " ")
    assert "repeat: 3 bands to 1" in said
    assert "0.5 m" in said
    first, last = (
        torch.load(tmp_path / f"outputs/{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("wide", "narrow")
    )
    name = "network.encoder.0.0.weight"
    np.testing.assert_allclose(last[name], first[name][:, :1] * 3, rtol=1e-6)
    others = [key for key in first if key.startswith("network.") and key != name and "running" not in key]
    assert all(torch.equal(last[key], first[key]) for key in others if "num_batches" not in key)
    assert read_metrics(tmp_path / "outputs/narrow")["weights"]["scored_tiles_in_training_area"] == 0
