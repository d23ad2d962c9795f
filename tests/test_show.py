"""`python -m sn6.show`: which tiles are shown, what the pictures hold, and what is said of wrong input."""

import csv
import re
import subprocess
import sys
from collections import Counter

import matplotlib.image
import numpy as np
import pytest
from helpers.handmade import OTHER_STRIP, SAR_STRIP, speckle, write_labels, write_orientations, write_tif, write_tile

import sn6.plots.tiles
from sn6.cli import parse_overrides
from sn6.errors import UserError
from sn6.show import show

HEADER = "ImageId,BuildingId,PolygonWKT_Pix,Confidence\n"
IDS = [f"{SAR_STRIP}_tile_{number}" for number in (1, 2, 3, 40)]
UNKNOWN = f"{OTHER_STRIP}_tile_7"  # of the test set, without truth


def box(x, y, side=12):
    return f'"POLYGON (({x} {y}, {x + side} {y}, {x + side} {y + side}, {x} {y + side}, {x} {y}))"'


@pytest.fixture
def root(tmp_path):
    """Four training tiles of 64 px from the south, with 3, 1, 2 and no buildings, and a test tile from the north."""
    root = tmp_path / "archive"
    for place, number in enumerate((1, 2, 3, 40)):
        write_tile(root, "SAR-Intensity", speckle(seed=number), number, west=600000 + 50 * place)
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
    """Tile 1 with two of three hit, tile 2 with all, tile 3 with none but an invented one, tile 40 with none."""
    path = tmp_path / "proposals.csv"
    rows = [(0, 10, 10), (0, 30, 10), (1, 20, 21), (2, 30, 20)]
    text = "".join(f"{IDS[tile]},{i},{box(x, y)},0.9\n" for i, (tile, x, y) in enumerate(rows))
    path.write_text(HEADER + text + f'{IDS[3]},-1,"POLYGON EMPTY",0\n')
    return path


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, with the file of each."""
    saved = []
    save = sn6.plots.tiles.save
    monkeypatch.setattr(
        sn6.plots.tiles, "save", lambda figure, path: (saved.append((figure, path)), save(figure, path))
    )
    return saved


def titles(figure):
    return [axis.get_title() for axis in figure.axes if axis.get_title()]


def panel(figure, path, place):
    pixels = matplotlib.image.imread(path)[..., :3]
    box = figure.axes[place].get_window_extent()
    return pixels[round(len(pixels) - box.y1) : round(len(pixels) - box.y0), round(box.x0) : round(box.x1)]


def test_a_simulated_archive_is_listed_and_a_few_tiles_shown_from_many_buildings_to_few(archive_root, tmp_path, capsys):
    show(archive_root, tiles=5, out=tmp_path / "a" / "b")
    said = capsys.readouterr().out
    for words in ("train", "24", "test_public", "SAR-Intensity 24", "PS-RGBNIR 24", "imaged from the north"):
        assert words in said
    files = [line for line in said.splitlines() if line.endswith(".png")]
    assert sorted(files) == sorted(str(path) for path in (tmp_path / "a" / "b").iterdir())
    with next((archive_root / "train").rglob("*Buildings.csv")).open(newline="") as file:
        buildings = Counter(row["ImageId"] for row in csv.DictReader(file) if row["PolygonWKT_Pix"] != "POLYGON EMPTY")
    counts = [buildings[re.search(r"\d{14}_\d{14}_tile_\d+", file)[0]] for file in files]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == max(buildings.values())
    assert counts[-1] == min(buildings.values())
    assert len(set(files)) == 5
    for file in files:
        assert matplotlib.image.imread(file).shape == (1120, 2030, 4)


def test_a_tile_is_shown_with_all_that_there_is_of_it(root, tmp_path, figures, capsys):
    show(root, tile=1, out=tmp_path / "one.PNG")
    ((figure, path),) = figures
    assert path == tmp_path / "one.PNG"
    assert capsys.readouterr().out == f"{path}\n"
    band = speckle(seed=1)[1]
    limits = "HV, {:.0f} to {:.0f} dB".format(*np.percentile(band, [1, 99.5]))
    shown = titles(figure)
    assert [title.split(",")[0] for title in shown] == ["HH", "HV", "VH", "VV", "span", "HH", "PS-RGB", "footprints: 3"]
    assert shown[1] == limits
    assert shown[5] == "HH, VV, VH as red, green, blue, 10 to 60 dB"
    heading = figure._suptitle.get_text()
    for words in (IDS[0], "2019-08-22 07:06:10 to 07:08:46 UTC", "from the south", "600000.0 E, 5747555.5 N"):
        assert words in heading


def test_tiles_stand_north_up_in_whichever_direction_the_radar_looked(root, tmp_path, figures):
    """Bright in the north-west; the strip's flag is 1, for which the networks see the tile turned."""
    image = np.full((4, 64, 64), 20, np.float32)
    image[:, 5:30, 5:30] = 40
    write_tile(root, "SAR-Intensity", image, 5)
    show(root, tile=5, out=tmp_path / "t.png")
    pixels = panel(*figures[0], 0).mean(axis=-1)
    middle = len(pixels) // 2
    bright = [half.mean() for rows in np.split(pixels[: 2 * middle], 2) for half in np.array_split(rows, 2, axis=1)]
    assert bright[0] > 0.5 > 0.2 > max(bright[1:])


@pytest.mark.parametrize("name", [IDS[3], "40", "tile_40"])
def test_a_tile_has_several_names(root, tmp_path, capsys, name):
    words = parse_overrides(show, "sn6.show", [f"root={root}", f"tile={name}", f"out={tmp_path / 'out'}"])
    show(**words)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{IDS[3]}.png"]


def test_several_tiles_are_shown_and_found_in_both_splits(root, tmp_path, figures):
    words = parse_overrides(show, "sn6.show", [f"root={root}", f"tile=[3, {IDS[1]}, 7]", f"out={tmp_path / 'out'}"])
    show(**words)
    assert [path.name for _, path in figures] == [f"{image_id}.png" for image_id in (IDS[2], IDS[1], UNKNOWN)]
    assert "footprints" not in " ".join(titles(figures[2][0]))


def test_a_tile_without_a_radar_image_is_shown(root, tmp_path, figures):
    write_tile(root, "PAN", speckle(1), 6)
    show(root, tile=6, out=tmp_path / "t.png")
    ((figure, _),) = figures
    assert titles(figure) == ["PAN"]
    assert "radar" not in [text.get_text() for text in figure.axes[0].texts]


def test_the_optical_image_can_be_chosen(root, tmp_path, figures):
    write_tile(root, "PAN", speckle(1), 1)
    for product in (None, "PAN"):
        show(root, tile=1, product=product, out=tmp_path / "t.png")
    assert [titles(figure)[6] for figure, _ in figures] == ["PS-RGB", "PAN"]


@pytest.mark.parametrize(
    ("choice", "tiles", "chosen"),
    [("worst", 2, [2, 0]), ("best", 1, [1]), ("even", 3, [1, 0, 2]), ("even", 2, [1, 2]), ("best", 9, [1, 0, 2])],
)
def test_tiles_are_chosen_by_f1(root, tmp_path, figures, proposals, choice, tiles, chosen):
    """Tile 2 is at 1, tile 1 at 0.8, tile 3 at 0; tile 40 has nothing to count."""
    show(root, tile=choice, tiles=tiles, proposals=proposals, out=tmp_path / "out")
    assert [path.name for _, path in figures] == [f"{IDS[place]}_proposals.png" for place in chosen]


def test_proposals_stand_beside_the_truth(root, tmp_path, figures, proposals):
    show(root, tile=1, proposals=proposals, out=tmp_path)
    ((figure, path),) = figures
    assert path == tmp_path / f"{IDS[0]}_proposals.png"
    assert titles(figure) == ["ground truth: 3 buildings", "proposals: 2", "F1 0.80"]
    assert [text.get_text() for text in figure.axes[2].get_legend().get_texts()] == ["hit 2", "missed 1", "invented 0"]


def test_proposals_are_drawn_on_the_optical_image_that_is_asked_for(root, tmp_path, figures, proposals):
    for product in (None, "PS-RGB"):
        show(root, tile=1, product=product, proposals=proposals, out=tmp_path / f"{product}.png")
    colours = [np.ptp(panel(*one, 2)[10:-60, 80:], axis=-1) for one in figures]
    assert (colours[0] > 0.1).mean() < 0.5 < (colours[1] > 0.1).mean()


def test_proposals_of_the_test_set_are_shown_without_truth(root, tmp_path, figures):
    path = tmp_path / "proposals.csv"
    path.write_text(HEADER + f"{UNKNOWN},0,{box(20, 20)},0.5\n")
    show(root, proposals=path, out=tmp_path / "out")
    ((figure, _),) = figures
    assert titles(figure) == ["the tile", "proposals: 1, truth not known"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("tile=38", f"has no tile 38 in train or test_public; near it: {IDS[3]}, {UNKNOWN}, {IDS[2]}"),
        (f"tile={SAR_STRIP}_tile_41", f"tile_41 in train or test_public; near it: {SAR_STRIP}_tile_"),
        ("tile=7 split=train", "tile=7 is not in train but in test_public; leave split= out"),
        ("tile=[1,2] product=PS-RGB", f"the tile {IDS[1]} has no PS-RGB, but no optical image; leave product= out"),
        ("tile=1 product=PAN", f"the tile {IDS[0]} has no PAN, but PS-RGB; leave product= out"),
        ("product=PAN", "has no PAN tile; products there: PS-RGB, SAR-Intensity"),
        (
            "product=RGB",
            "product='RGB' does not do; input should be 'PS-RGB', 'PS-RGBNIR', 'RGBNIR' or 'PAN'",
        ),
        ("tile=1 out=x.jpg", "out=x.jpg is neither a PNG nor a folder; let it end in .png"),
        ("tile=[1,2] out=x.png", "out=x.png is one picture for 2 tiles; give a folder"),
        ("tile=[]", "tile=[] names no tile; leave it out for a few"),
        ("tiles=0", "tiles=0 does not do; give 1 or more"),
        ("tile=worst", "tile=worst is by F1; give proposals= too, or tile=even"),
        ("tile=40 proposals=some.csv", f"the proposals do not name the tile {IDS[3]} but {IDS[0]} and 1 more"),
        ("proposals=other.csv", "archive but x_tile_1 alone; give those of this archive"),
        ("proposals=empty.csv", "archive but none at all; give those of this archive"),
        ("proposals=unknown.csv tile=best", "no truth is known of the tiles that are named; give tile=even"),
        ("proposals=footprints.shp", "footprints.shp has the suffix '.shp'; give a .csv, .geojson or .parquet"),
        ("proposals=missing.csv", "missing.csv cannot be read"),
        ("root=nowhere", "nowhere is not an archive"),
    ],
)
def test_wrong_input_is_told_in_one_line_and_nothing_is_written(root, tmp_path, monkeypatch, words, says):
    for name, named in (("some", IDS[:2]), ("other", ["x_tile_1"]), ("unknown", [UNKNOWN]), ("empty", [])):
        (tmp_path / f"{name}.csv").write_text(HEADER + "".join(f"{one},0,{box(20, 20)},0.5\n" for one in named))
    monkeypatch.chdir(tmp_path)
    given = words.split() if "root=" in words else [f"root={root}", *words.split()]
    with pytest.raises(UserError) as error:
        show(**parse_overrides(show, "sn6.show", given))
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("*.png"))


def test_a_number_of_two_tiles_is_asked_for_by_its_image_id(root, tmp_path):
    write_tile(root, "SAR-Intensity", speckle(), 1, strip=OTHER_STRIP)
    with pytest.raises(
        UserError, match=rf"tile=1 is 2 tiles: {OTHER_STRIP}_tile_1 \(train\), {IDS[0]} \(train\); give"
    ):
        show(root, tile=1, out=tmp_path / "t.png")


def test_an_out_that_is_in_the_way_is_told(root, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match="is neither a PNG nor a folder"):
        show(root, tile=1, out=tmp_path / "file")
    with pytest.raises(UserError, match="is a folder with the name of a picture"):
        show(root, tile=1, out=tmp_path / "folder.png")


def test_the_command_needs_neither_torch_nor_a_display(root, tmp_path):
    words = ["sn6.show", f"root={root}", "tile=1", f"out={tmp_path / 't.png'}"]
    code = (
        f"import sys; sys.argv = {words}; from sn6.show import show; from sn6.cli import enter;"
        "enter(show, 'sn6.show'); assert not {'torch', 'lightning', 'hydra', 'tkinter'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PATH": "", "MPLBACKEND": ""}
    )
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 't.png'}\n")
    assert matplotlib.image.imread(tmp_path / "t.png").ndim == 3


def test_help_names_the_keys():
    done = subprocess.run([sys.executable, "-m", "sn6.show", "--help"], capture_output=True, text=True, check=True)
    for key in ("root=", "tile=", "tiles=4", "split=", "product=", "proposals=", "out=outputs/show"):
        assert f"  {key}" in done.stdout
