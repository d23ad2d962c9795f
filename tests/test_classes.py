"""Buildings of several classes: from the attribute of the labels to the class of each footprint and its score."""

import math
from dataclasses import replace

import geopandas
import numpy as np
import pytest
import shapely
import torch
from helpers.labels import labels_of
from helpers.two_classes import NAMES, NORTH, PIXEL, WEST, data_of, folder_of, make_world, write_labels
from shapely import box

from sn6.checkpoints.heads import build_heads
from sn6.data.augment import Dihedral
from sn6.data.store import Store
from sn6.datasets.packed_labels import pack
from sn6.datasets.vector_labels import LabelColumns, read_buildings
from sn6.errors import UserError
from sn6.footprints import Footprints, Labels
from sn6.footprints.blocks import footprints_by_blocks
from sn6.footprints.polygonizer import Polygonizer
from sn6.footprints.threshold import Threshold
from sn6.footprints.watershed import SeededWatershed
from sn6.formats.challenge_csv import ChallengeCSVWriter, read_proposals
from sn6.formats.geojson import GeoJSONWriter
from sn6.formats.geoparquet import GeoParquetWriter
from sn6.heads import Heads
from sn6.losses import BCE, CrossEntropy
from sn6.metrics.class_counts import count_class
from sn6.metrics.matching import Counts
from sn6.prediction.partial_results import read_part, write_part
from sn6.targets.classes import Classes
from sn6.targets.contact import Contact
from sn6.targets.mask import Mask
from sn6.targets.target import tile_layers
from sn6.training.heads import head_errors
from sn6.training.loss import as_loss

NODES = {"classes": {"_target_": "sn6.targets.classes.Classes", "names": list(NAMES)}}


# --- labels


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path)


def test_the_labels_of_a_tile_have_the_numbers_of_their_classes(world):
    data_set = folder_of(world)
    assert data_set.classes == NAMES
    left, right = data_set.tiles("train", "images")
    labels = data_set.labels(left)
    areas = shapely.area(labels.polygons) * PIXEL**2  # 80 m² are houses, 36 m² sheds
    assert sorted(labels.classes.tolist()) == [1, 1, 1, 1, 2, 2]  # neither garage nor the building without a class
    np.testing.assert_array_equal(np.where(areas > 60, 1, 2), labels.classes)
    swapped = folder_of(world, classes=["shed", "house"]).labels(left)
    np.testing.assert_array_equal(swapped.classes, 3 - labels.classes)
    assert folder_of(world, category=None, classes=None).labels(right).classes is None


def test_buildings_of_other_classes_are_counted_in_a_note(world):
    buildings = read_buildings(world / "b.gpkg", LabelColumns(category="kind", classes=NAMES))
    (note,) = buildings.notes
    assert note.startswith(f"{world / 'b.gpkg'}: 2 buildings ")
    assert len(buildings) == 12
    assert set(buildings.categories) == set(NAMES)


def test_a_file_without_a_listed_class_has_no_building(tmp_path):
    """One of several label files may have none; the classes are checked over all files."""
    path = write_labels(tmp_path / "b.gpkg", [(box(0, 0, 9, 9), "garage")])
    buildings = read_buildings(path, LabelColumns(category="kind", classes=NAMES)).to_crs("EPSG:25833")
    labels = buildings.labels((WEST, NORTH - 50, WEST + 50, NORTH), PIXEL)
    assert len(buildings) == len(labels) == len(labels.classes) == 0


def test_a_class_that_no_label_has_is_refused_with_those_that_exist(world):
    data_set = folder_of(world, classes=["house", "church"])
    with pytest.raises(UserError, match=r"church.*garage, house, shed") as error:
        data_set.tiles("train", "images")
    assert (error.value.key, error.value.value) == ("data.classes", "church")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"category": None}, "data.category"),
        ({"classes": None}, "data.classes"),
        ({"classes": ["house", "house"]}, "data.classes"),
    ],
)
def test_classes_need_their_attribute(world, more, key):
    with pytest.raises(UserError) as error:
        folder_of(world, **more)
    assert error.value.key == key


def test_whole_numbers_are_classes(tmp_path):
    """A column of integers with a gap is read as one of floats."""
    polygons = [box(WEST + x, NORTH - 9, WEST + x + 9, NORTH) for x in (0, 20, 40)]
    frame = geopandas.GeoDataFrame({"kind": [1.0, 2.0, None]}, geometry=polygons, crs="EPSG:25833")
    frame.to_file(tmp_path / "b.gpkg")
    buildings = read_buildings(tmp_path / "b.gpkg", LabelColumns(category="kind", classes=("1", "2")))
    assert buildings.categories.tolist() == ["1", "2"]


def test_packed_labels_keep_classes():
    squares = np.array([box(0, 0, 9, 9), box(20, 0, 29, 9)], dtype=object)
    empty = Labels(squares[:0], np.empty(0), np.empty(0, dtype=np.int64))
    labels = {"a": Labels(squares, np.zeros(2), np.array([2, 1])), "b": empty}
    packed = pack(labels)
    assert packed["a"].classes.tolist() == [2, 1]
    assert packed["b"].classes.tolist() == []
    without = pack({name: replace(one, classes=None) for name, one in labels.items()})
    assert without["a"].classes is None
    assert without["b"].classes is None


# --- target and loss


def test_the_target_is_the_class_of_the_building_at_each_pixel():
    instances = [[0, 1, 1, 2], [3, 3, 0, 2]]
    valid = [[True, True, False, True], [True, True, True, True]]
    labels = replace(labels_of(instances, valid), classes=np.array([7, 2, 1, 3]))  # the first entry is not used
    target = Classes(["a", "b", "c"])
    layer = tile_layers({"classes": target}, labels)["classes"]
    assert layer.dtype == np.uint8
    decoded = target.decode(torch.from_numpy(layer))
    assert decoded.tolist() == [[[0, 2, 0, 1], [3, 3, 0, 1]]]
    assert (target.channels, target.outputs) == (1, 4)


def test_labels_without_classes_are_refused():
    with pytest.raises(UserError):
        Classes(NAMES).tile(labels_of([[0, 1]]))
    assert not Classes(NAMES).tile(labels_of([[0, 0]])).any()


@pytest.mark.parametrize("names", [[], ["a", "a"], [str(i) for i in range(256)]])
def test_names_that_are_no_classes_are_refused(names):
    with pytest.raises(UserError) as error:
        Classes(names)
    assert error.value.key == "data.classes"


def test_other_names_are_another_layer():
    assert Classes(["a", "b"]).fingerprint == Classes(("a", "b")).fingerprint != Classes(["b", "a"]).fingerprint


def plain_cross_entropy(logits, target, valid, weights):
    """Loop over the pixels."""
    losses = []
    for sample in range(len(logits)):
        values = []
        for row, column in zip(*np.nonzero(valid[sample, 0].numpy()), strict=True):
            outputs, number = logits[sample, :, row, column].tolist(), int(target[sample, 0, row, column])
            log_sum = math.log(sum(math.exp(one) for one in outputs))
            values.append(weights[number] * (log_sum - outputs[number]))
        losses.append(sum(values) / len(values) if values else 0.0)
    return losses


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0]])
def test_cross_entropy_by_hand(weights):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((3, 3, 4, 5), generator=generator)
    target = torch.randint(0, 3, (3, 1, 4, 5), generator=generator).float()
    valid = torch.rand((3, 1, 4, 5), generator=generator) < 0.6
    valid[2] = False
    expected = plain_cross_entropy(logits, target, valid, weights or [1, 1, 1])
    logits = torch.where(valid, logits, torch.nan).requires_grad_()
    losses = CrossEntropy(weights)(logits, target, valid)
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)
    losses.sum().backward()
    assert torch.equal((logits.grad != 0).any(dim=1, keepdim=True), valid)


def test_a_loss_of_classes_is_tried_before_the_training():
    target = Classes(NAMES)
    loss = CrossEntropy([1.0, 2.0, 2.0])
    assert as_loss(loss, "CrossEntropy", target, "heads.classes.loss") is loss
    for wrong in (BCE(), CrossEntropy([1.0, 1.0])):
        with pytest.raises(UserError):
            as_loss(wrong, "wrong", target, "heads.classes.loss")


# --- maps and footprints


def test_the_mask_is_the_probability_of_any_class():
    heads = Heads({"contact": Contact(), "classes": Classes(NAMES)})
    assert heads.channels == 4
    assert heads.class_names == NAMES
    outputs = torch.tensor([0.0, math.log(2), math.log(5), 0.0]).reshape(1, 4, 1, 1)  # background, house, shed; contact
    maps = heads.activate(heads.split(outputs))
    assert maps["classes"].flatten().tolist() == pytest.approx([1 / 8, 2 / 8, 5 / 8])
    assert maps["mask"].item() == pytest.approx(7 / 8)
    assert maps["contact"].item() == 0.5
    with_mask = Heads({"mask": Mask(), "classes": Classes(NAMES)})
    assert with_mask.activate(with_mask.split(outputs))["mask"].item() == 0.5


def test_a_checkpoint_has_the_names_of_the_classes():
    heads = build_heads(NODES)
    assert heads.class_names == NAMES
    assert heads == Heads({"classes": Classes(NAMES)}) != Heads({"classes": Classes(["shed", "house"])})


def test_the_head_of_the_classes_is_no_other_map():
    """Footprints have their classes from it."""
    head = {"weight": 1.0, "target": {"_target_": "sn6.targets.height.Height"}, "loss": {"_target_": "sn6.losses.BCE"}}
    (error,) = head_errors({"heads": {"classes": head}})
    assert error.key == "heads.classes.target._target_"
    assert not list(head_errors({"heads": {"classes": head | {"target": NODES["classes"]}}}))


def drawn_maps():
    """Draw three buildings: 6×10 px, 10×10 px and 12×4 px."""
    background = np.full((40, 50), 0.9, np.float32)
    house, shed = np.full_like(background, 0.06), np.full_like(background, 0.04)
    for rows, columns, p_house, p_shed in (
        (slice(2, 8), slice(3, 13), 0.5, 0.4),
        (slice(12, 22), slice(25, 35), 0.3, 0.6),
        (slice(30, 34), slice(8, 20), 0.7, 0.2),
    ):
        house[rows, columns], shed[rows, columns] = p_house, p_shed
        background[rows, columns] = 1 - p_house - p_shed
    house[12:14, 25:35], shed[12:14, 25:35] = 0.9, 0.05  # a fifth of the shed looks like a house: mean 0.42 to 0.49
    house[30:34, 8:13], shed[30:34, 8:13] = 0.1, 0.6  # 20 of 48 px of the house are rather a shed
    background = 1 - house - shed
    return {"mask": 1 - background[None], "classes": np.stack([background, house, shed])}


def plain_classes(maps, footprints):
    """Return the class with the highest mean over the pixels of each footprint."""
    classes = []
    for polygon in footprints.polygons:
        y, x = np.mgrid[: maps["mask"].shape[1], : maps["mask"].shape[2]] + 0.5
        inside = shapely.contains_xy(polygon, x, y)
        means = [float(maps["classes"][number][inside].astype(float).mean()) for number in (1, 2)]
        classes.append(1 + int(means[1] > means[0]))
    return classes


@pytest.mark.parametrize("polygonizer", [Threshold(min_area=0, simplify=0), SeededWatershed(min_area=0, simplify=0)])
def test_a_footprint_is_of_the_class_with_the_highest_mean(polygonizer: Polygonizer):
    maps, valid = drawn_maps(), np.ones((40, 50), dtype=bool)
    whole = polygonizer(maps, valid, PIXEL)
    by_place = dict(zip([polygon.bounds[:2] for polygon in whole.polygons], whole.classes.tolist(), strict=True))
    assert by_place == {(3, 2): 1, (25, 12): 2, (8, 30): 1}
    assert whole.classes.tolist() == plain_classes(maps, whole)
    one_class = polygonizer({"mask": maps["mask"]}, valid, PIXEL)
    assert one_class.classes is None
    assert (one_class.confidences == whole.confidences).all()

    def read(rows, columns):
        return {name: values[:, rows, columns] for name, values in maps.items()}, valid[rows, columns]

    for block in (7, 16, 64):  # cut buildings have the sums of all their parts
        chunks = list(footprints_by_blocks(read, 40, 50, polygonizer, PIXEL, block))
        polygons, classes = (np.concatenate([getattr(c, key) for c in chunks]) for key in ("polygons", "classes"))
        assert {
            polygon.bounds[:2]: number for polygon, number in zip(polygons, classes.tolist(), strict=True)
        } == by_place


def test_a_polygonizer_takes_classes_for_the_mask():
    Threshold().check_heads(["classes"], "polygons")
    SeededWatershed().check_heads(["classes", "contact"], "polygons")
    with pytest.raises(UserError):
        Threshold().check_heads(["contact"], "polygons")


# --- files


FOUND = Footprints(
    np.array([box(0, 0, 20, 20), box(30, 0, 50, 20)], dtype=object), np.array([0.75, 0.5]), np.array([2, 1])
)
NOTHING = Footprints(FOUND.polygons[:0], np.empty(0), np.empty(0, dtype=np.int64))


def test_files_have_the_names_of_the_classes(tmp_path):
    names = ('a "big", long house', "shed")
    grid = ("EPSG:32631", PIXEL)
    with (
        ChallengeCSVWriter(tmp_path / "p.csv", names) as csv,
        GeoJSONWriter(tmp_path / "p.geojson", *grid, names) as geojson,
        GeoParquetWriter(tmp_path / "p.parquet", *grid, names) as parquet,
    ):
        for writer in (csv, geojson, parquet):
            writer.write("t", (5e5, 5.7e6), FOUND)
            writer.write("u", (5e5, 5.7e6), NOTHING)
    back = read_proposals(tmp_path / "p.csv", names)
    assert back["t"].classes.tolist() == [2, 1]
    assert back["u"].classes.tolist() == []
    assert read_proposals(tmp_path / "p.csv")["t"].classes is None  # as for a file of one class
    for path in ("p.geojson", "p.parquet"):
        read = geopandas.read_parquet if path.endswith("parquet") else geopandas.read_file
        assert read(tmp_path / path)["category"].tolist() == ["shed", names[0]]
    with pytest.raises(UserError):
        read_proposals(tmp_path / "p.csv", ("house", "shed"))


def test_footprints_wait_with_their_classes(tmp_path):
    write_part(tmp_path / "a.parquet", [FOUND, NOTHING], "classes")
    (chunk,) = read_part(tmp_path / "a.parquet")
    assert chunk.classes.tolist() == [2, 1]
    write_part(tmp_path / "b.parquet", [NOTHING], "classes")
    assert next(read_part(tmp_path / "b.parquet")).classes.tolist() == []
    write_part(tmp_path / "c.parquet", [replace(FOUND, classes=None)])
    assert next(read_part(tmp_path / "c.parquet")).classes is None


# --- score


def test_a_class_is_scored_by_its_own_buildings_and_pixels():
    """Two houses and two sheds: a house found, a house taken for a shed, a shed found, a shed missed."""
    squares = [box(x, 0, x + 10, 10) for x in (0, 20, 40, 60)]
    labels = Labels(np.array(squares, dtype=object), np.full(4, np.nan), np.array([1, 1, 2, 2]))
    proposed = Footprints(np.array(squares[:3], dtype=object), np.array([0.9, 0.8, 0.7]), np.array([1, 2, 2]))
    truth, predicted, valid = np.zeros((10, 80), int), np.zeros((10, 80), int), np.ones((10, 80), dtype=bool)
    for x, ours, theirs in ((0, 1, 1), (20, 2, 1), (40, 2, 2), (60, 0, 2)):
        predicted[:, x : x + 10], truth[:, x : x + 10] = ours, theirs
    valid[:, 5:10] = False  # half of the first house
    house, shed = (count_class(number, predicted, truth, valid, proposed, labels, pixel_size=0.5) for number in (1, 2))
    assert house.counts == Counts(tp=1, fp=0, fn=1)
    assert shed.counts == Counts(tp=1, fp=1, fn=1)
    assert (house.intersection, house.union) == (50, 150)
    assert (shed.intersection, shed.union) == (100, 300)


@pytest.mark.parametrize("store", [None, "disk"])
def test_crops_have_the_classes_in_place(world, store):
    """Flipped and rotated, decoded or from the store: a house is where the image is bright, a shed where it is less."""
    data = data_of(world, augmentation=Dihedral(), crops_per_tile=8, batch_size=4, store=store)
    data.setup()
    seen = set()
    for batch in data.train_dataloader():
        image, valid, classes = batch["image"], batch["valid"], batch["classes"]
        bright = torch.where(image > 57, 1, torch.where(image > 40, 2, 0))
        seen |= set(classes[valid].tolist())
        # a garage is background, and dark: it is drawn into no image
        assert torch.equal(classes[valid], bright[valid].float())
        assert torch.equal(classes > 0, batch["mask"] > 0)
    assert seen == {0, 1, 2}


def test_the_store_of_other_classes_is_another(world):
    ours, others = (
        Store(folder_of(world, classes=list(names)), data_of(world).source, world / "store", {})
        for names in (NAMES, reversed(NAMES))
    )
    tile = folder_of(world).tiles("train", "images")[0]
    assert ours.files(tile)["instances"] != others.files(tile)["instances"]
    assert ours.files(tile)["image"] == others.files(tile)["image"]
