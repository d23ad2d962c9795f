"""A data set of a user's own with a GeoTIFF for each tile: what its class need not say, and units of its product."""

import numpy as np
import pytest
from helpers.errors import user_error
from helpers.towns import SIZE, write_town

from sn6.data.source import Source, is_rotated
from sn6.datasets.declaration import Product
from sn6.datasets.radar_units import Units
from sn6.datasets.tile_files import TileFiles


class Town(TileFiles):
    """Tiles without labels, whose values are what `units` says."""

    name, crs, pixel_size = "Town", "EPSG:25833", 0.5

    def __init__(self, root, units):
        self.root = root
        self.products = {"SAR": Product("SAR", ("VV", "VH"), "float32", 0.5, "radar", None, units=units)}

    def products_of(self, split):
        paths = (self.root / "images").glob("*.tif") if split == "train" else ()
        return {path.stem: ("SAR",) for path in paths}

    def path_of(self, split, product, image_id):
        return self.root / "images" / f"{image_id}.tif"

    def labels(self, tile):
        return None

    def has_labels(self, tile):
        return False

    def input_files(self, product):
        return {}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_town(tmp_path_factory.mktemp("towns") / "town", images=3, bands=2)


@pytest.mark.parametrize(
    ("units", "decibels"),
    [
        (Units(), lambda x: x),
        (Units("power", 2.0, 3.0), lambda x: 10 * np.log10(2 * x) + 3),
        (Units("amplitude"), lambda x: 20 * np.log10(x)),
    ],
)
def test_values_become_decibels_while_they_are_read(root, units, decibels):
    stored, data_set = Town(root, Units()), Town(root, units)
    tile = data_set.tiles("train", "SAR")[1]
    values, _ = stored.read(tile, "SAR", (1, 2))
    read, valid = data_set.read(tile, "SAR", (2, 1))
    assert valid.all()
    np.testing.assert_allclose(read, decibels(values[::-1]), rtol=1e-5)


def test_what_a_class_need_not_say(root):
    data_set = Town(root, Units())
    tiles = data_set.tiles("train", "SAR")
    assert [(tile.image_id, tile.strip, tile.orientation) for tile in tiles] == [
        (f"town_{number}", f"town_{number}", None) for number in range(3)
    ]
    assert tiles[0].size(0.5) == (SIZE, SIZE)
    assert data_set.frame == data_set.crs
    assert not data_set.has_test_labels
    source = Source(data_set.products["SAR"], (1, 2), True, 20.0)
    with user_error("missing_value", key="data.orient"):
        is_rotated(data_set, tiles[0], source)
    with user_error("not_found", key=root, value="PAN"):
        data_set.tiles("train", "PAN")
