"""What a prediction needs is known before it starts."""

from types import SimpleNamespace

import pytest
import shapely
from helpers.errors import user_error

from sn6.datasets.placed_image import Grid, PlacedImage
from sn6.datasets.radar_units import Units
from sn6.footprints.threshold import Threshold
from sn6.heads import Heads
from sn6.prediction.ensemble import Averaging
from sn6.prediction.estimate import check_size, megapixels
from sn6.prediction.images import Image
from sn6.prediction.plan import Plan
from sn6.targets.mask import Mask

NO_FILE = PlacedImage("it.tif", Grid("EPSG:32631", 0.0, 0.0, 0.5, 1, 1), (1,), False, Units("db"), None)
HEADS = Heads({"mask": Mask()})


def image_of(edge, area=None):
    """A square image of `edge` pixels of 0.5 m whose north-west corner is the origin."""
    return Image("it", "it.tif", NO_FILE, (1,), edge, edge, (0.0, 0.0), 0.5, 0.5, "EPSG:32631", area=area)


def plan_of(folder, *edges):
    averaging = Averaging(False, (1.0,), "32-true")
    return Plan((), (), tuple(map(image_of, edges)), 512, 128, averaging, Threshold(), 1, folder / "new", None)


def test_only_the_ground_to_predict_counts():
    area = shapely.to_wkb(shapely.box(0, -100, 50, 0))  # 100 × 200 pixels
    assert megapixels(image_of(2000)) == 4
    assert megapixels(image_of(2000, area)) == 0.02


def test_an_image_of_400000_pixels_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("sn6.files.shutil.disk_usage", lambda path: SimpleNamespace(free=10**15))
    with user_error("missing_value", "yes"):
        check_size(plan_of(tmp_path, 400_000), HEADS, is_confirmed=False, keeps_all=False)
    check_size(plan_of(tmp_path, 400_000), HEADS, is_confirmed=True, keeps_all=False)
    check_size(plan_of(tmp_path, *[900] * 5462), HEADS, is_confirmed=False, keeps_all=False)  # all of SpaceNet 6


@pytest.mark.parametrize(("keeps_all", "images"), [(False, 1), (True, 3)])
def test_a_disk_that_cannot_hold_the_outputs(tmp_path, monkeypatch, keeps_all, images):
    """Windows of 512 pixels that overlap by 128 read each pixel (512 / 384)² times."""
    needed = images * 4096**2 * 4 * (512 / 384) ** 2
    monkeypatch.setattr("sn6.files.shutil.disk_usage", lambda path: SimpleNamespace(free=round(needed) - 1))
    with user_error("unwritable", tmp_path / "new"):
        check_size(plan_of(tmp_path, *[4096] * 3), HEADS, is_confirmed=False, keeps_all=keeps_all)
    monkeypatch.setattr("sn6.files.shutil.disk_usage", lambda path: SimpleNamespace(free=round(needed) + 1))
    check_size(plan_of(tmp_path, *[4096] * 3), HEADS, is_confirmed=False, keeps_all=keeps_all)
    assert not (tmp_path / "new").exists()
