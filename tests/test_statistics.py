"""`sn6.statistics` against statistics computed here, and the simulated archive against the published one."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.handmade import speckle, write_labels, write_orientations, write_tile

from sn6.errors import UserError
from sn6.inspection.histograms import Histogram
from sn6.simulate import simulate
from sn6.statistics import statistics

BANDS = ("HH", "HV", "VH", "VV")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny") / "archive"
    simulate(root, scale="tiny")
    return root


def table(text: str) -> dict[str, list[str]]:
    """Name of a row → its cells."""
    rows = {}
    for line in text.splitlines():
        cells = 4 if line.rstrip().endswith(("yes", "no")) else 3
        parts = line.strip().rsplit(maxsplit=cells)
        if len(parts) == cells + 1:
            rows[parts[0]] = parts[1:]
    return rows


def test_a_tiny_archive_agrees_with_the_published_one(tiny, tmp_path, capsys):
    statistics(tiny, out=tmp_path / "picture.png")
    out = capsys.readouterr().out
    rows = table(out)
    for band in BANDS:
        for percent in (1, 50, 99):
            here, published, difference, agrees = rows[f"{band} percentile {percent}, dB"]
            assert abs(float(here) - float(published)) < 2.55
            assert (agrees, difference[0] in "+-") == ("yes", True)
    assert 0.10 <= float(rows["nodata, share of pixels"][0]) <= 0.18
    assert "13 of 13 agree, over 12 of 12 training tiles" in out
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"


def by_hand(root):
    """Two tiles: without nodata, and one half nodata, each with a strong pixel."""
    images = [speckle(size=64, seed=seed) for seed in (1, 2)]
    images[1][:, :32] = 0
    images[0][2, 5, 5] = 90
    for number, image in enumerate(images, start=1):
        write_tile(root, "SAR-Intensity", image, number=number)
    name = "20190822070610_20190822070846_tile_1"
    polygon = '"POLYGON ((1 1, 20 1, 20 20, 1 20, 1 1))"'
    write_labels(root, "".join(f"{name},{i},{polygon},1,1,1\n" for i in range(4)))
    write_orientations(root)
    return np.concatenate([images[0].reshape(4, -1), images[1][:, 32:].reshape(4, -1)], axis=1)


def test_the_table_tells_what_an_archive_by_hand_holds(tmp_path, capsys):
    values = by_hand(tmp_path)
    statistics(tmp_path, out=tmp_path / "picture.png")
    rows = table(capsys.readouterr().out)
    for band, row in zip(BANDS, values, strict=True):
        for percent in (1, 50, 99):
            assert float(rows[f"{band} percentile {percent}, dB"][0]) == pytest.approx(
                np.percentile(row, percent), abs=0.1
            )
        assert float(rows[f"{band} mean, dB"][0]) == pytest.approx(row.mean(), abs=0.06)
        assert float(rows[f"{band} deviation, dB"][0]) == pytest.approx(row.std(), abs=0.06)
    assert rows["HV percentile 1, dB"][3] == "no"  # evenly from 5 to 50 dB, so far from the published 20
    assert float(rows["largest value, dB"][0]) == 90.0
    assert rows["nodata, share of pixels"][0] == "0.250"
    assert rows["nodata, share of pixels"][3] == "no"
    assert float(rows["label rows a tile"][0]) == 2.0  # four, and none known
    assert not [name for name in rows if "PS-RGBNIR" in name]


def test_levels_of_several_tiles_are_those_of_all_their_pixels():
    rng = np.random.default_rng(0)
    levels = Histogram(("a", "b"), top=100.0)
    parts = [rng.gamma(3.0, 6.0, (2, 50, 40)).clip(0.1, 99.9) for _ in range(3)]
    masks = [rng.random((50, 40)) < 0.7 for _ in parts]
    for part, mask in zip(parts, masks, strict=True):
        levels.add(part, mask)
    values = np.concatenate([part[:, mask] for part, mask in zip(parts, masks, strict=True)], axis=1)
    for percent in (1, 25, 99):
        np.testing.assert_allclose(levels.percentile(percent), np.percentile(values, percent, axis=1), rtol=0.02)
    np.testing.assert_allclose(levels.mean, values.mean(axis=1), rtol=1e-3)
    np.testing.assert_allclose(levels.deviation, values.std(axis=1), rtol=1e-3)
    assert levels.nodata_share == pytest.approx(1 - np.mean(masks))
    assert levels.largest == pytest.approx(values.max(), abs=0.01)


@pytest.mark.parametrize(("words", "message"), [({"tiles": 0}, "tiles=0"), ({"out": Path("a.pdf")}, "out=a.pdf")])
def test_wrong_words_are_told_before_anything_is_read(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        statistics(tmp_path, **words)
    assert not list(tmp_path.iterdir())


def test_tiles_of_nodata_alone_are_told(tmp_path):
    write_tile(tmp_path, "SAR-Intensity", np.zeros((4, 64, 64)))
    with pytest.raises(UserError, match="nodata alone"):
        statistics(tmp_path, out=tmp_path / "picture.png")


def test_the_door_opens_without_torch_or_matplotlib():
    code = "import sys, sn6.statistics; sys.exit(bool({'torch', 'matplotlib', 'rasterio'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
