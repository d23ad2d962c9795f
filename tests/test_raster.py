"""Where a raster file has data, and its values: small files with valid pixels that are written out by hand."""

import socket
import warnings

import numpy as np
import pytest
import rasterio
from helpers.errors import user_error
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.transform import from_origin
from rasterio.windows import Window

from sn6.datasets.raster import TILE_DRIVER, data_bands, open_raster, read_window

GRID = {"crs": "EPSG:32631", "transform": from_origin(5e5, 5.7e6, 0.5, 0.5)}
SIZE = 6
FLOAT32_MIN = -3.4028234663852886e38


def write(path, pixels, mask=None, internal=True, **profile):
    """Bands (c, 6, 6) as a GeoTIFF, with a mask in the file or in a .msk file."""
    bands, height, width = pixels.shape
    profile = GRID | {"count": bands, "height": height, "width": width, "dtype": pixels.dtype} | profile
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some have no georeference
        with rasterio.open(path, "w", driver="GTiff", **profile) as file:
            file.write(pixels)
            if mask is not None:
                file.write_mask(mask)
    return path


def decibels(bands=4, dtype="float32"):
    """Values from 1, each once: band k has 100 k + 1 to 100 k + 36."""
    numbers = np.arange(1, SIZE * SIZE + 1).reshape(1, SIZE, SIZE) + 100 * np.arange(bands)[:, None, None]
    return numbers.astype(dtype)


def all_but(*pixels):
    """True but at these rows and columns."""
    valid = np.ones((SIZE, SIZE), bool)
    for row, column in pixels:
        valid[row, column] = False
    return valid


def read(path, bands=None, window=None):
    with open_raster(path) as source:
        return read_window(source, data_bands(source) if bands is None else bands, window)


def assert_read(path, pixels, valid, bands=None):
    """Valid pixels have the values of `pixels`, and the others are 0 in all bands."""
    values, detected = read(path, bands)
    np.testing.assert_array_equal(detected, valid)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, np.where(valid, pixels, 0).astype(np.float32))


def vrt(path, source, bands):
    """A VRT of the first bands of a GeoTIFF: data type, nodata as text (None for none), more of its XML."""
    text = "".join(
        f'<VRTRasterBand dataType="{dtype}" band="{number}">'
        + ("" if nodata is None else f"<NoDataValue>{nodata}</NoDataValue>")
        + f"{more}<SimpleSource><SourceFilename>{source}</SourceFilename><SourceBand>{number}</SourceBand>"
        "</SimpleSource></VRTRasterBand>"
        for number, (dtype, nodata, more) in enumerate(bands, start=1)
    )
    path.write_text(f'<VRTDataset rasterXSize="{SIZE}" rasterYSize="{SIZE}">{text}</VRTDataset>')
    return path


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("float32", -9999),
        ("float32", FLOAT32_MIN),
        ("float64", FLOAT32_MIN),
        ("float64", 1e39),  # infinity in float32
        ("float64", -1e308),
        ("float32", 0.1),  # not the same number in float32
        ("int16", -32768),
        ("uint16", 65535),
        ("int32", -9999),
        ("float32", np.nan),
        ("float32", np.inf),
    ],
)
def test_a_declared_nodata_value_in_any_band_is_nodata(tmp_path, dtype, nodata):
    pixels = decibels(dtype=dtype)
    pixels[:, 1, 2] = pixels[0, 3, 3] = pixels[3, 5, 0] = nodata
    path = write(tmp_path / "a.tif", pixels, nodata=nodata)
    assert_read(path, pixels.astype(np.float64).clip(-1e9, 1e9), all_but((1, 2), (3, 3), (5, 0)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_only_the_bands_that_are_used_decide(tmp_path, value):
    pixels = decibels()
    pixels[0, 0, 0] = pixels[2, 4, 4] = value
    path = write(tmp_path / "a.tif", pixels)
    assert_read(path, pixels, all_but((0, 0), (4, 4)))
    assert_read(path, pixels[[3, 0, 0]], all_but((0, 0)), bands=[4, 1, 1])
    assert_read(path, pixels[[1, 3]], all_but(), bands=[2, 4])


def test_zero_is_nodata_where_no_band_has_a_value(tmp_path):
    """A 0 beside other bands is dark, not nodata: in integers, and in float32 that does not declare 0."""
    pixels = decibels()
    pixels[:, 0, 0] = 0
    pixels[1, 2, 2] = 0
    pixels[:, 3, 3] = 0, -9999, np.nan, 0
    finite = np.where(pixels == -9999, np.nan, pixels)
    assert_read(write(tmp_path / "none.tif", finite), pixels, all_but((0, 0), (3, 3)))
    assert_read(write(tmp_path / "zero.tif", finite, nodata=0), pixels, all_but((0, 0), (2, 2), (3, 3)))
    counts = np.nan_to_num(np.abs(pixels)).astype(np.uint16)
    assert_read(write(tmp_path / "counts.tif", counts, nodata=0), counts, all_but((0, 0)))
    path = write(tmp_path / "other.tif", pixels, nodata=-9999)
    assert_read(path, pixels[[0, 3]], all_but((0, 0), (3, 3)), bands=[1, 4])


def test_each_band_of_a_vrt_has_a_nodata_value_of_its_own(tmp_path):
    pixels = decibels()
    pixels[0, 0, 0], pixels[1, 0, 1], pixels[2, 0, 2] = 7.5, -9999, FLOAT32_MIN
    pixels[1, 5, 5] = 7.5  # a value in this band
    source = write(tmp_path / "a.tif", pixels)
    path = vrt(
        tmp_path / "a.vrt",
        source,
        [("Float32", "7.5", ""), ("Float32", "-9999", ""), ("Float32", "-3.40282347e+38", ""), ("Float32", None, "")],
    )
    assert_read(path, pixels, all_but((0, 0), (0, 1), (0, 2)))


def test_a_nodata_value_that_no_pixel_can_hold_is_none(tmp_path):
    pixels = decibels(dtype="uint16")
    source = write(tmp_path / "a.tif", pixels)
    bands = [("Float32", "1e39", ""), ("UInt16", "-9999", ""), ("UInt16", "0.5", ""), ("Byte", "nan", "")]
    assert_read(vrt(tmp_path / "a.vrt", source, bands), np.minimum(pixels, [[[999]]] * 3 + [[[255]]]), all_but())


@pytest.mark.parametrize("internal", [True, False])
@pytest.mark.parametrize("nodata", [None, -9999])
def test_a_mask_in_the_file_or_beside_it(tmp_path, internal, nodata):
    pixels, mask = decibels(), all_but((0, 0), (0, 1), (5, 5))
    pixels[2, 4, 4] = -9999 if nodata else np.nan
    path = write(tmp_path / "a.tif", pixels, mask, internal, nodata=nodata)
    assert path.with_name("a.tif.msk").exists() == (not internal)
    assert_read(path, pixels, mask & all_but((4, 4)))


@pytest.mark.parametrize(("bands", "dtype"), [(1, "uint8"), (1, "uint16"), (3, "uint8"), (4, "float32"), (4, "int16")])
def test_an_alpha_band_is_a_mask_and_no_data(tmp_path, bands, dtype):
    pixels = np.concatenate([decibels(bands, dtype) % 97 + 1, np.full((1, SIZE, SIZE), 100, dtype)])
    pixels[-1, :2, 3] = 0
    pixels[-1, 4, 4] = 1  # partly transparent
    path = write(tmp_path / "a.tif", pixels)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.gray, *[ColorInterp.undefined] * (bands - 1), ColorInterp.alpha]
    with open_raster(path) as source:
        assert data_bands(source) == list(range(1, bands + 1))
    assert_read(path, pixels[:-1], all_but((0, 3), (1, 3)))


def test_scale_and_offset_are_applied_and_nodata_is_compared_before(tmp_path):
    stored = decibels(2, "int16")
    stored[:, 0, 0] = 0  # the data set's rule
    stored[1, 2, 3] = -9999
    stored[0, 4, 4] = -2500  # the value −9999 by chance: data
    path = write(tmp_path / "a.tif", stored, nodata=-9999)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (4.0, 0.01), (1.0, -30.0)
    values = np.stack([stored[0] * 4.0 + 1.0, stored[1] * 0.01 - 30.0])
    assert values[0, 4, 4] == -9999
    assert_read(path, values, all_but((0, 0), (2, 3)))
    assert_read(path, values[[1]], all_but((0, 0), (2, 3)), bands=[2])


def test_values_beyond_float32_are_nodata(tmp_path):
    stored = decibels(2, "float64")
    stored[0, 1, 1] = 1e300
    stored[1, 2, 2] = 1e38
    path = write(tmp_path / "a.tif", stored)
    with rasterio.open(path, "r+") as file:
        file.scales = (1.0, 100.0)
    assert_read(path, (stored * [[[1]], [[100]]]).clip(0, 1e9), all_but((1, 1), (2, 2)))


def test_bands_of_several_types_with_nodata_and_scale(tmp_path):
    pixels = decibels(3, "float32") % 90 + 1
    pixels[0, 0, 0], pixels[1, 1, 1] = 0.1, 13
    source = write(tmp_path / "a.tif", pixels)
    bands = [("Float32", "0.1", ""), ("Int16", "13", "<Scale>0.5</Scale>"), ("Float64", None, "<Offset>2</Offset>")]
    is_13 = pixels[1].astype(int) == 13
    values = np.stack([pixels[0], pixels[1] * 0.5, pixels[2] + 2])
    assert_read(vrt(tmp_path / "a.vrt", source, bands), values, all_but((0, 0)) & ~is_13)


def test_a_window_is_that_part_of_the_whole(tmp_path):
    pixels, mask = decibels(), all_but((2, 2), (3, 1))
    pixels[1, 4, 3] = -9999
    path = write(tmp_path / "a.tif", pixels, mask, nodata=-9999)
    values, valid = read(path)
    part, part_valid = read(path, [4, 2], Window(1, 2, 4, 3))
    np.testing.assert_array_equal(part, values[[3, 1], 2:5, 1:5])
    np.testing.assert_array_equal(part_valid, valid[2:5, 1:5])
    assert (~part_valid).sum() == 3


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "complex_int16"])
def test_complex_values_are_refused(tmp_path, dtype):
    path = tmp_path / "a.tif"
    profile = GRID | {"driver": "GTiff", "count": 2, "height": SIZE, "width": SIZE, "dtype": dtype}
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.full((2, SIZE, SIZE), 3 + 4j, "complex64"))
    with user_error("wrong_data", path):
        read(path)


def test_sidecar_files_are_found(tmp_path):
    """CRS and nodata in an .aux.xml, position in a .tfw, the mask in a .msk: none of them in the GeoTIFF."""
    pixels, mask = decibels(), all_but((5, 1))
    pixels[3, 2, 2] = -9999
    path = write(tmp_path / "a.tif", pixels, mask, internal=False, crs=None, transform=None)
    nodata = "".join(f'<PAMRasterBand band="{i}"><NoDataValue>-9999</NoDataValue></PAMRasterBand>' for i in range(1, 5))
    path.with_name("a.tif.aux.xml").write_text(f"<PAMDataset><SRS>EPSG:32631</SRS>{nodata}</PAMDataset>")
    path.with_name("a.tfw").write_text("0.5\n0\n0\n-0.5\n500000.25\n5699999.75\n")
    with open_raster(path, TILE_DRIVER) as source:
        assert source.crs.to_epsg() == 32631
        assert source.transform == GRID["transform"]
    assert_read(path, pixels, mask & all_but((2, 2)))


@pytest.fixture
def server():
    """The address of a server that never answers, and whether somebody has called."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)

        def was_asked():
            try:
                listener.accept()[0].close()
            except BlockingIOError:
                return False
            return True

        yield f"http://127.0.0.1:{listener.getsockname()[1]}", was_asked


@pytest.mark.parametrize("suffix", ["", ".msk"])
def test_a_tile_opens_no_other_file_and_asks_no_server(tmp_path, server, suffix):
    address, was_asked = server
    path = tmp_path / "a.tif"
    if suffix:
        write(path, decibels())
    vrt(tmp_path / f"a.tif{suffix}", f"/vsicurl/{address}/other.tif", [("Byte", None, "")])
    refused = user_error("wrong_data", tmp_path / "a.tif.msk") if suffix else pytest.raises(RasterioError)
    with refused, open_raster(path, TILE_DRIVER) as source:
        read_window(source, source.indexes)
    assert not was_asked()


def test_an_image_that_a_user_names_may_be_a_vrt(tmp_path):
    source = write(tmp_path / "a.tif", decibels())
    path = vrt(tmp_path / "b.tif", source, [("Float32", None, "")] * 4)
    assert_read(path, decibels(), all_but())


@pytest.mark.parametrize("options", [{"BIGTIFF": "YES"}, {"ENDIANNESS": "BIG"}, {"driver": "COG"}])
def test_tiles_may_be_of_any_kind_of_geotiff(tmp_path, options):
    profile = GRID | {"count": 4, "height": SIZE, "width": SIZE, "dtype": "float32", "driver": "GTiff"} | options
    with rasterio.open(tmp_path / "a.tif", "w", **profile) as file:
        file.write(decibels())
    with open_raster(tmp_path / "a.tif", TILE_DRIVER) as source:
        values, valid = read_window(source, source.indexes)
    np.testing.assert_array_equal(values, decibels())
    assert valid.all()
