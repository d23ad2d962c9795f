"""Test `python -m sn6.show`: the selected tiles, the contents of the pictures, the errors for invalid input."""

import csv
import re
import subprocess
import sys
from collections import Counter

import matplotlib.image
import numpy as np
import pytest
from helpers.commands import assert_fails
from helpers.handmade import OTHER_STRIP, SAR_STRIP, speckle, write_labels, write_orientations, write_tif, write_tile

import sn6.plots.archive_tiles
from sn6.plots.tiles import save_figure

HEADER = "ImageId,BuildingId,PolygonWKT_Pix,Confidence\n"
IDS = [f"{SAR_STRIP}_tile_{number}" for number in (1, 2, 3, 40)]
UNKNOWN = f"{OTHER_STRIP}_tile_7"  # in the test set, without ground truth


def box(x, y, side=12):
    return f'"POLYGON (({x} {y}, {x + side} {y}, {x + side} {y + side}, {x} {y + side}, {x} {y}))"'


@pytest.fixture
def root(tmp_path):
    """Four training tiles of 64 px from the south, with 3, 1, 2 and no buildings, and a test tile from the north."""
    root = tmp_path / "archive"
    for index, number in enumerate((1, 2, 3, 40)):
        write_tile(root, "SAR-Intensity", speckle(seed=number), number, west=600000 + 50 * index)
    write_tile(root, "PS-RGB", speckle(3), 1, west=600000)
    write_orientations(root)
    rows = [(0, 10, 10), (0, 30, 10), (0, 10, 40), (1, 20, 20), (2, 10, 10), (2, 40, 40)]
    text = "".join(f"{IDS[tile]},{i},{box(x, y)},{5 + i},,\n" for i, (tile, x, y) in enumerate(rows))
    write_labels(root, text + f"{IDS[3]},-1,POLYGON EMPTY,,,\n")
    name = f"SN6_Test_Public_AOI_11_Rotterdam_SAR-Intensity_{UNKNOWN}.tif"
    write_tif(root / "test_public" / "AOI_11_Rotterdam" / "SAR-Intensity" / name, speckle())
    return root


@pytest.fixture
def proposals(tmp_path):
    """Proposals that match two of three buildings of tile 1, all of tile 2 and none of tile 3; none for tile 40."""
    path = tmp_path / "proposals.csv"
    rows = [(0, 10, 10), (0, 30, 10), (1, 20, 21), (2, 30, 20)]
    text = "".join(f"{IDS[tile]},{i},{box(x, y)},0.9\n" for i, (tile, x, y) in enumerate(rows))
    path.write_text(HEADER + text + f'{IDS[3]},-1,"POLYGON EMPTY",0\n')
    return path


@pytest.fixture
def figures(monkeypatch):
    """The saved figures and their files."""
    saved = []

    def save(figure, path):
        saved.append((figure, path))
        save_figure(figure, path)

    monkeypatch.setattr(sn6.plots.archive_tiles, "save_figure", save)
    return saved


@pytest.fixture
def show(sn6_command, root):
    """Run `sn6.show` on the archive, successfully."""

    def run(*overrides):
        done = sn6_command("show", f"root={root}", *overrides)
        assert (done.status, done.error) == (0, None), done.err
        return done

    return run


def titles(figure):
    return [axis.get_title() for axis in figure.axes if axis.get_title()]


def panel(figure, path, index):
    pixels = matplotlib.image.imread(path)[..., :3]
    box = figure.axes[index].get_window_extent()
    return pixels[round(len(pixels) - box.y1) : round(len(pixels) - box.y0), round(box.x0) : round(box.x1)]


def test_a_simulated_archive_is_listed_and_a_few_tiles_drawn_from_many_buildings_to_few(
    archive_root, tmp_path, sn6_command
):
    out = tmp_path / "a" / "b"
    done = sn6_command("show", f"root={archive_root}", "tiles=3", f"out={out}")
    for text in ("train", "24", "test_public", "SAR-Intensity 24", "PS-RGBNIR 24"):
        assert text in done.out
    files = [line for line in done.out.splitlines() if line.endswith(".png")]
    assert sorted(files) == sorted(str(path) for path in out.iterdir())
    with next((archive_root / "train").rglob("*Buildings.csv")).open(newline="") as file:
        buildings = Counter(row["ImageId"] for row in csv.DictReader(file) if row["PolygonWKT_Pix"] != "POLYGON EMPTY")
    counts = [buildings[re.search(r"\d{14}_\d{14}_tile_\d+", file)[0]] for file in files]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == max(buildings.values())
    assert counts[-1] == min(buildings.values())
    assert len(set(files)) == 3
    for file in files:
        assert matplotlib.image.imread(file).shape == (1120, 2030, 4)


def test_an_overview_shows_all_images_and_footprints_of_a_tile(show, tmp_path, figures):
    done = show("tile=1", f"out={tmp_path / 'one.PNG'}")
    ((figure, path),) = figures
    assert path == tmp_path / "one.PNG"
    assert done.out == f"{path}\n"
    shown = titles(figure)
    assert [title.split(",")[0] for title in shown] == ["HH", "HV", "VH", "VV", "span", "HH", "PS-RGB", "footprints: 3"]
    assert shown[1] == "HV, {:.0f} to {:.0f} dB".format(*np.percentile(speckle(seed=1)[1], [1, 99.5]))
    assert shown[5] == "HH, VV, VH as red, green, blue, 10 to 60 dB"
    heading = figure.get_suptitle()
    for text in (IDS[0], "2019-08-22 07:06:10 to 07:08:46 UTC", "from the south", "600000.0 E, 5747555.5 N"):
        assert text in heading


def test_tiles_are_drawn_north_up_for_either_look_direction(root, show, tmp_path, figures):
    """The tile is bright in the north-west; its strip has orientation 1, for which training rotates it by 180°."""
    image = np.full((4, 64, 64), 20, np.float32)
    image[:, 5:30, 5:30] = 40
    write_tile(root, "SAR-Intensity", image, 5)
    show("tile=5", f"out={tmp_path / 't.png'}")
    pixels = panel(*figures[0], 0).mean(axis=-1)
    middle = len(pixels) // 2
    bright = [half.mean() for rows in np.split(pixels[: 2 * middle], 2) for half in np.array_split(rows, 2, axis=1)]
    assert bright[0] > 0.5 > 0.2 > max(bright[1:])


@pytest.mark.parametrize("name", [IDS[3], "40", "tile_40", "0040"])
def test_a_tile_is_named_by_image_id_or_number(show, tmp_path, name):
    show(f"tile={name}", f"out={tmp_path / 'out'}")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{IDS[3]}.png"]


@pytest.mark.parametrize(("name", "number"), [("0040", "0040"), ("40", "40"), ("040", None)])
def test_a_number_is_compared_as_written_before_its_value(root, sn6_command, tmp_path, name, number):
    write_tile(root, "SAR-Intensity", speckle(), "0040")
    done = sn6_command("show", f"root={root}", f"tile={name}", f"out={tmp_path / 'out'}")
    if number is None:
        assert_fails(done, "invalid_value", "tile", name)
    else:
        assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{SAR_STRIP}_tile_{number}.png"]


def test_a_list_of_tiles_is_found_in_both_splits(show, tmp_path, figures):
    show(f"tile=[3, {IDS[1]}, 7]", f"out={tmp_path / 'out'}")
    assert [path.name for _, path in figures] == [f"{image_id}.png" for image_id in (IDS[2], IDS[1], UNKNOWN)]
    assert "footprints" not in " ".join(titles(figures[2][0]))


def test_a_tile_without_a_radar_image_is_drawn(root, show, tmp_path, figures):
    write_tile(root, "PAN", speckle(1), 6)
    show("tile=6", f"out={tmp_path / 't.png'}")
    ((figure, _),) = figures
    assert titles(figure) == ["PAN"]
    assert "radar" not in [text.get_text() for text in figure.axes[0].texts]


def test_the_optical_image_can_be_selected(root, show, tmp_path, figures):
    write_tile(root, "PAN", speckle(1), 1)
    for product in ("null", "PAN"):
        show("tile=1", f"product={product}", f"out={tmp_path / 't.png'}")
    assert [titles(figure)[6] for figure, _ in figures] == ["PS-RGB", "PAN"]


@pytest.mark.parametrize(
    ("criterion", "tiles", "selected"),
    [("worst", 2, [2, 0]), ("best", 1, [1]), ("even", 3, [1, 0, 2]), ("even", 2, [1, 2]), ("best", 9, [1, 0, 2])],
)
def test_tiles_are_selected_by_f1(show, tmp_path, figures, proposals, criterion, tiles, selected):
    """The F1 of tile 2 is 1, of tile 1 0.8, of tile 3 0; tile 40 has no counts."""
    show(f"tile={criterion}", f"tiles={tiles}", f"proposals={proposals}", f"out={tmp_path / 'out'}")
    assert [path.name for _, path in figures] == [f"{IDS[index]}_proposals.png" for index in selected]


def test_proposals_are_drawn_beside_the_ground_truth(show, tmp_path, figures, proposals):
    show("tile=1", f"proposals={proposals}", f"out={tmp_path}")
    ((figure, path),) = figures
    assert path == tmp_path / f"{IDS[0]}_proposals.png"
    assert titles(figure)[:3] == ["ground truth: 3", "proposals: 2", "F1 0.80"]
    assert len(titles(figure)) == 5
    entries = [text.get_text() for text in figure.axes[2].get_legend().get_texts()]
    assert entries == ["true positive: 2", "false negative: 1", "false positive: 0"]


def test_proposals_are_drawn_on_the_selected_optical_image(show, tmp_path, figures, proposals):
    for product in ("null", "PS-RGB"):
        show("tile=1", f"product={product}", f"proposals={proposals}", f"out={tmp_path / product}.png")
    colours = [np.ptp(panel(*one, 2)[10:-60, 80:], axis=-1) for one in figures]
    assert (colours[0] > 0.1).mean() < 0.5 < (colours[1] > 0.1).mean()


def test_proposals_for_the_test_set_are_drawn_without_ground_truth(show, tmp_path, figures):
    path = tmp_path / "proposals.csv"
    path.write_text(HEADER + f"{UNKNOWN},0,{box(20, 20)},0.5\n")
    show(f"proposals={path}", f"out={tmp_path / 'out'}")
    ((figure, _),) = figures
    assert titles(figure) == ["image", "proposals: 1; ground truth unknown", "one by one"]


@pytest.mark.parametrize(
    ("overrides", "kind", "key", "value"),
    [
        ("tile=38", "not_found", "tile", "38"),
        (f"tile={SAR_STRIP}_tile_41", "not_found", "tile", f"{SAR_STRIP}_tile_41"),
        ("tile=7 split=train", "not_found", "tile", "7"),
        ("tile=[1,2] product=PS-RGB", "not_found", "product", "PS-RGB"),
        ("tile=1 product=PAN", "not_found", "product", "PAN"),
        ("product=RGB", "unknown_value", "product", "RGB"),
        ("tile=[]", "invalid_value", "tile", []),
        ("tiles=0", "invalid_value", "tiles", "0"),
        ("tile=worst", "missing_value", "proposals", None),
        ("tile=40 proposals=some.csv", "not_found", "tile", IDS[3]),
        ("proposals=other.csv", "wrong_data", "proposals", None),
        ("proposals=empty.csv", "wrong_data", "proposals", None),
        ("proposals=unknown.csv tile=best", "conflict", "tile", "best"),
    ],
)
def test_invalid_input_is_reported_in_one_line_and_nothing_is_written(
    root, tmp_path, monkeypatch, sn6_command, overrides, kind, key, value
):
    for name, image_ids in (("some", IDS[:2]), ("other", ["x_tile_1"]), ("unknown", [UNKNOWN]), ("empty", [])):
        (tmp_path / f"{name}.csv").write_text(HEADER + "".join(f"{one},0,{box(20, 20)},0.5\n" for one in image_ids))
    monkeypatch.chdir(tmp_path)
    assert_fails(sn6_command("show", f"root={root}", *overrides.split()), kind, key, value)
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize(
    ("override", "kind"),
    [
        ("root=nowhere", "not_found"),
        ("product=PAN", "not_found"),  # no tile has it
        ("proposals=footprints.shp", "unknown_value"),
        ("proposals=missing.csv", "not_found"),
    ],
)
def test_a_missing_file_is_reported_in_one_line(root, tmp_path, monkeypatch, sn6_command, override, kind):
    monkeypatch.chdir(tmp_path)
    assert_fails(sn6_command("show", *[override] if "root=" in override else [f"root={root}", override]), kind)
    assert not list(tmp_path.rglob("*.png"))


def test_the_nearest_tiles_are_named(root, tmp_path, sn6_command):
    done = sn6_command("show", f"root={root}", "tile=38", f"out={tmp_path / 'out'}")
    assert f"{IDS[3]}, {UNKNOWN}, {IDS[2]}" in done.err


def test_a_number_of_two_tiles_is_rejected(root, tmp_path, sn6_command):
    write_tile(root, "SAR-Intensity", speckle(), 1, strip=OTHER_STRIP)
    done = sn6_command("show", f"root={root}", "tile=1", f"out={tmp_path / 't.png'}")
    assert_fails(done, "invalid_value", "tile", "1")
    assert f"{OTHER_STRIP}_tile_1 (train), {IDS[0]} (train)" in done.err


@pytest.mark.parametrize(("tile", "out"), [("1", "file"), ("1", "folder.png"), ("1", "x.jpg"), ("[1,2]", "x.png")])
def test_out_is_a_folder_or_one_png(root, tmp_path, sn6_command, tile, out):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    done = sn6_command("show", f"root={root}", f"tile={tile}", f"out={tmp_path / out}")
    assert_fails(done, "invalid_value", "out", tmp_path / out)


def test_the_command_needs_neither_torch_nor_a_display(root, tmp_path):
    overrides = ["sn6.show", f"root={root}", "tile=1", f"out={tmp_path / 't.png'}"]
    code = (
        f"import sys; sys.argv = {overrides}; from sn6.show import show; from sn6.cli import run_command;"
        "run_command(show, 'sn6.show');"
        "assert not {'torch', 'lightning', 'hydra', 'tkinter'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PATH": "", "MPLBACKEND": ""}
    )
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 't.png'}\n"), done.stderr
    assert matplotlib.image.imread(tmp_path / "t.png").ndim == 3


def test_help_lists_the_keys(sn6_command):
    done = sn6_command("show", "--help")
    for key in ("root=", "tile=", "tiles=4", "split=", "product=", "proposals=", "out=outputs/show"):
        assert f"  {key}" in done.out
