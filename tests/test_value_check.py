"""`python -m sn6.predict` compares the values of every image with those that the network was trained on."""

import numpy as np
import pytest
from helpers.commands import assert_fails
from helpers.handmade import OTHER_STRIP, write_orientations, write_tif, write_tile
from helpers.networks import METADATA, random_network

from sn6.checkpoints.weights_file import write_weights

MEAN, STD = [-9.0, -16.0, -15.5, -8.0], [5.0, 4.0, 4.5, 5.5]  # calibrated decibels
RECIPE = {"mean": [127.5] * 4, "std": [31.875] * 4}


@pytest.fixture(scope="module")
def network():
    return random_network()


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "weights.safetensors"
    write_weights(path, network.state_dict(), METADATA | {"mean": MEAN, "std": STD})
    return path


@pytest.fixture
def sn6_predict(sn6_command, weights, tmp_path):
    """`python -m sn6.predict checkpoint=... out=<tmp_path>/out overrides...` in this process, on the CPU."""
    return lambda *overrides: sn6_command(
        "predict", f"checkpoint={weights}", f"out={tmp_path}/out", *overrides, "device=cpu"
    )


def decibels(seed=0, size=64, offset=0.0):
    generator = np.random.default_rng(seed)
    return np.stack([generator.normal(m + offset, s, (size, size)) for m, s in zip(MEAN, STD, strict=True)]).astype(
        "f4"
    )


def write_folder(folder, images):
    for number, pixels in enumerate(images):
        write_tif(folder / f"{number:02}.tif", pixels, west=592000 + 100 * number)
    return folder


def test_values_like_those_of_the_training_data_print_nothing(sn6_predict, tmp_path):
    folder = write_folder(tmp_path / "in", [decibels(seed) for seed in range(3)])
    done = sn6_predict(f"images={folder}")
    assert done.status == 0, done.err
    assert str(tmp_path / "in") not in done.err


@pytest.mark.parametrize("wrong", [10 ** (decibels(7) / 10) * 1e3, decibels(7, offset=60.0), decibels(7).round() * 100])
def test_one_image_in_other_units_is_found_among_many(sn6_predict, tmp_path, wrong):
    images = [decibels(seed) for seed in range(12)]
    images[8] = wrong.astype("f4")
    folder = write_folder(tmp_path / "in", images)
    assert_fails(sn6_predict(f"images={folder}"), "wrong_data", folder / "08.tif")
    assert not (tmp_path / "out").exists()
    done = sn6_predict(f"images={folder}", "check_values=false")
    assert done.status == 0, done.err
    assert "08.tif" not in done.err


def test_linear_power_is_a_warning_in_one_line(sn6_predict, tmp_path):
    path = write_tif(tmp_path / "power.tif", 10 ** (decibels() / 10))
    done = sn6_predict(f"images={path}")
    assert done.status == 0, done.err
    (line,) = [line for line in done.err.splitlines() if str(path) in line]
    assert "linear power" in line
    assert "10·log10" in line


def test_nodata_is_not_compared(sn6_predict, tmp_path):
    """Only a corner of 30 × 30 pixels in a large image has data."""
    pixels = np.zeros((4, 700, 700), dtype="f4")
    pixels[:, 600:630, 100:130] = decibels(size=30)
    done = sn6_predict(f"images={write_tif(tmp_path / 'corner.tif', pixels)}")
    assert (done.status, "corner.tif" in done.err) == (0, False), done.err
    pixels[:, 600:630, 100:130] += 60
    path = write_tif(tmp_path / "shifted.tif", pixels)
    assert_fails(sn6_predict(f"images={path}"), "wrong_data", path)


def test_the_tiles_of_an_archive_are_compared_too(sn6_predict, tmp_path):
    root = tmp_path / "archive"
    write_orientations(root)
    for number in range(3):
        pixels = decibels(number, size=128)
        values = 10 ** (pixels / 10) * 1e4 if number == 2 else pixels
        image_id = write_tile(root, "SAR-Intensity", values, number, OTHER_STRIP, west=592000 + 64 * number)
    done = sn6_predict(f"root={root}", "split=train")
    assert_fails(done, "wrong_data")
    assert done.error.key.endswith(f"{image_id}.tif")
    assert not (tmp_path / "out").exists()
    assert sn6_predict(f"root={root}", "split=train", "tiles=[0,1]").status == 0


def test_each_network_of_an_ensemble_is_compared(sn6_command, network, weights, tmp_path):
    other = tmp_path / "other.safetensors"
    write_weights(other, network.state_dict(), METADATA | {"mean": [m + 45 for m in MEAN], "std": STD})
    path = write_tif(tmp_path / "area.tif", decibels())
    overrides = (f"images={path}", f"out={tmp_path}/out", "device=cpu")
    assert_fails(sn6_command("predict", f"checkpoint=[{weights},{other}]", *overrides), "wrong_data", path)


def test_a_network_with_the_numbers_of_a_recipe_takes_any_values(sn6_command, network, tmp_path):
    recipe = tmp_path / "recipe.safetensors"
    write_weights(recipe, network.state_dict(), METADATA | RECIPE)
    path = write_tif(tmp_path / "area.tif", decibels())
    done = sn6_command("predict", f"checkpoint={recipe}", f"images={path}", f"out={tmp_path}/out", "device=cpu")
    assert done.status == 0, done.err
    assert str(path) not in done.err


def test_a_truncated_image_is_refused_before_anything_is_written(sn6_predict, tmp_path):
    path = write_tif(tmp_path / "short.tif", decibels(size=400))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    assert_fails(sn6_predict(f"images={path}"), "unreadable", path)
    assert not (tmp_path / "out").exists()


def test_bands_are_chosen_by_the_command(sn6_command, sn6_predict, tmp_path):
    """The bands of the file are in reverse order, which only their values betray."""
    pixels = np.concatenate([np.full((1, 64, 64), 35, dtype="f4"), decibels()[::-1]])  # angle of incidence, VV ... HH
    path = write_tif(tmp_path / "five.tif", pixels)
    assert_fails(sn6_predict(f"images={path}"), "wrong_data", path, 5)
    assert_fails(sn6_predict(f"images={path}", "bands=[5,4,3]"), "invalid_value", "bands", ["5", "4", "3"])
    assert_fails(sn6_predict(f"images={path}", "bands=[0,1,2,3]"), "invalid_value", "bands")
    assert_fails(sn6_predict(f"images={path}", "bands=[1,2,3,4]"), "wrong_data", path)
    assert not (tmp_path / "out").exists()
    done = sn6_predict(f"images={path}", "bands=[5,4,3,2]", "probability=true")
    assert (done.status, str(path) in done.err.replace("out/", "")) == (0, False), done.err
    assert_fails(sn6_predict(f"images={path}", "bands=[4,5,3,2]", "check_values=false"), "conflict", "images_sha256")
    assert_fails(sn6_predict(f"root={tmp_path}", "bands=[1,2,3,4]"), "conflict", "bands", ["1", "2", "3", "4"])
