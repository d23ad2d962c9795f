"""The bands of a file that a network needs: by position, by bands=, and by what the file says about them."""

import numpy as np
import pytest
import rasterio
from helpers.errors import user_error
from helpers.handmade import speckle, write_tif
from rasterio.enums import ColorInterp

from sn6.data.source import Source
from sn6.datasets.declaration import Product
from sn6.datasets.spacenet6 import PRODUCTS
from sn6.prediction.band_selection import described_band
from sn6.prediction.raster_images import ReadOptions, raster_image

SAR = Source(PRODUCTS["SAR-Intensity"], (1, 2, 3, 4), orient=True, min_area=0.0)
CO_POLARISED = Source(PRODUCTS["SAR-Intensity"], (4, 1), orient=True, min_area=0.0)  # VV, HH
RGB_AS_FOUR = Source(PRODUCTS["PS-RGB"], (3, 1, 1, 2), orient=True, min_area=0.0)  # B, R, R, G


def write(path, bands, descriptions=(), interpretation=()):
    """Write a file whose band n holds the value 10 · n."""
    path = write_tif(path, np.full((bands, 8, 8), 10.0, dtype=np.float32) * np.arange(1, bands + 1)[:, None, None])
    with rasterio.open(path, "r+") as file:
        if descriptions:
            file.descriptions = descriptions
        if interpretation:
            file.colorinterp = interpretation
    return path


def first_pixel(path, source, **options):
    pixels, valid = raster_image(str(path), "a", source, ReadOptions(**options)).read(slice(0, 8), slice(0, 8))
    assert valid.all()
    return pixels[:, 0, 0].tolist()


@pytest.mark.parametrize(
    ("description", "band"),
    [
        ("VV", "VV"),
        ("Sigma0_VV_db", "VV"),
        ("gamma0-hv", "HV"),
        ("Sigma0HH", "HH"),
        ("IntensityVH", "VH"),
        (" Red ", "R"),
        ("r", "R"),
        ("NIR (842 nm)", "NIR"),
        ("Panchromatic", "PAN"),
        ("VV/VH", None),
        ("B1", None),
        ("band 4", None),
        ("red edge", None),
        ("heavy", None),
        ("", None),
        (None, None),
    ],
)
def test_words_of_descriptions(description, band):
    assert described_band(description) == band


def test_bands_are_those_of_the_product_by_position(tmp_path):
    assert first_pixel(write(tmp_path / "a.tif", 4), SAR) == [10, 20, 30, 40]
    assert first_pixel(write(tmp_path / "b.tif", 4), CO_POLARISED) == [40, 10]
    assert first_pixel(write(tmp_path / "c.tif", 3), RGB_AS_FOUR) == [30, 10, 10, 20]


def test_an_alpha_band_is_no_band_wherever_it_is(tmp_path):
    grey, alpha = [ColorInterp.gray, *[ColorInterp.undefined] * 3], ColorInterp.alpha
    assert first_pixel(write(tmp_path / "last.tif", 5, interpretation=[*grey, alpha]), SAR) == [10, 20, 30, 40]
    inside = [*grey[:2], alpha, *grey[2:]]
    assert first_pixel(write(tmp_path / "inside.tif", 5, interpretation=inside), SAR) == [10, 20, 40, 50]


def test_bands_select_and_order(tmp_path):
    path = write(tmp_path / "a.tif", 6)
    assert first_pixel(path, SAR, bands=("6", "2", "2", "1")) == [60, 20, 20, 10]
    assert first_pixel(path, CO_POLARISED, bands=("3", "5")) == [30, 50]
    for bands in ((1, 2, 3), (1, 2, 3, 4, 5), (1, 2, 3, 7)):
        given = tuple(map(str, bands))
        with user_error("invalid_value", key="bands", value=list(given)):
            raster_image(str(path), "a", SAR, ReadOptions(bands=given))


def test_bands_are_selected_by_their_names_too(tmp_path):
    path = write(tmp_path / "a.tif", 5, ("angle", "Sigma0_VV", "Sigma0_VH", "Gamma0_VV", "dB"))
    assert first_pixel(path, CO_POLARISED, bands=("Gamma0_VV", "1"), check_names=False) == [40, 10]
    assert first_pixel(path, CO_POLARISED, bands=("sigma0_vv", "dB")) == [20, 50]
    for bands in (("VV", "1"), ("HH", "1"), ("", "1"), ("-1", "1")):  # two of this name, and none
        with user_error("invalid_value", key="bands", value=list(bands)):
            raster_image(str(path), "a", CO_POLARISED, ReadOptions(bands=bands))


def test_another_number_of_bands_names_bands(tmp_path):
    six = write(tmp_path / "six.tif", 6)
    with user_error("wrong_data", key=six, value=6) as caught:
        raster_image(str(six), "a", SAR, ReadOptions())
    assert "bands=[1,2,3,4]" in str(caught.value)
    two = write(tmp_path / "two.tif", 2)
    with user_error("wrong_data", key=two, value=2) as caught:
        raster_image(str(two), "a", SAR, ReadOptions())
    assert "bands=" not in str(caught.value)


def test_a_file_with_exactly_the_bands_of_the_network_is_used_in_order(tmp_path):
    assert first_pixel(write(tmp_path / "two.tif", 2), CO_POLARISED) == [10, 20]
    described = write(tmp_path / "named.tif", 2, ("HH", "VV"))
    assert first_pixel(described, CO_POLARISED) == [20, 10]
    assert first_pixel(described, CO_POLARISED, check_names=False) == [10, 20]


def test_bands_are_found_by_their_names_in_any_order(tmp_path):
    path = write(tmp_path / "a.tif", 4, ("Sigma0_VV_db", "Sigma0_VH_db", "Sigma0_HV_db", "Sigma0_HH_db"))
    assert first_pixel(path, SAR) == first_pixel(path, SAR, bands=("4", "3", "2", "1")) == [40, 30, 20, 10]
    assert first_pixel(path, SAR, check_names=False) == [10, 20, 30, 40]
    six = write(tmp_path / "six.tif", 6, ("angle", "VV", "VH", "HV", "HH", "mask"))
    assert first_pixel(six, SAR) == [50, 40, 30, 20]
    with user_error("wrong_data", key=path, value="HV"):  # of a network of VV and HH
        raster_image(str(path), "a", CO_POLARISED, ReadOptions(bands=("1", "3")))
    assert first_pixel(path, CO_POLARISED) == [10, 40]


def test_names_that_the_network_has_from_its_training_files_find_bands(tmp_path):
    """Of a network that was trained on a folder of images: the descriptions of their bands, or numbers."""
    product = Product("images", ("coherence", "Beta0_VV", "Sigma0_VV"), "float32", 0.5, "radar")
    path = write(tmp_path / "a.tif", 4, ("Sigma0_VV", "Beta0_VV", "angle", "Coherence"))
    assert first_pixel(path, Source(product, (3, 1), orient=False, min_area=0.0)) == [10, 40]
    numbered = Product("images", ("band1", "band2"), "float32", 0.5, "radar")
    two = write(tmp_path / "b.tif", 2, ("VV", "VH"))
    assert first_pixel(two, Source(numbered, (1, 2), orient=False, min_area=0.0)) == [10, 20]


def test_described_bands_in_the_right_order_and_other_words_are_used(tmp_path):
    for number, names in enumerate([("HH", "HV", "VH", "VV"), ("B1", "B2", "B3", "B4"), ("HH", "", "cross", "VV")]):
        assert first_pixel(write(tmp_path / f"{number}.tif", 4, names), SAR) == [10, 20, 30, 40]


def test_a_described_photograph_is_refused_by_a_radar_network(tmp_path):
    path = write(tmp_path / "a.tif", 4, ("Blue", "Green", "Red", "NIR"))
    with user_error("wrong_data", key=path, value="B"):
        raster_image(str(path), "a", SAR, ReadOptions())
    assert first_pixel(path, Source(PRODUCTS["PS-RGBNIR"], (1, 4), orient=False, min_area=0.0)) == [10, 40]


def test_complex_values_are_refused_when_the_header_is_read(tmp_path):
    path = tmp_path / "slc.tif"
    profile = {"driver": "GTiff", "count": 4, "height": 64, "width": 64, "dtype": "complex64", "crs": "EPSG:32631"}
    with rasterio.open(path, "w", transform=rasterio.Affine(0.5, 0, 592000, 0, -0.5, 5747000), **profile) as file:
        file.write(speckle().astype(np.complex64))
    with user_error("wrong_data", key=path):
        raster_image(str(path), "a", SAR, ReadOptions())
