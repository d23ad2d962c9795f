"""Runs that start from given weights: what is loaded, and how much of the scored ground they were trained on."""

import csv
from pathlib import Path

import helpers.published_nets as nets
import pytest
import torch
from helpers.commands import assert_fails, read_metrics, small_run
from helpers.rectangles import overlaps

from sn6.checkpoints.initial_weights import InitialWeights, provenance
from sn6.checkpoints.metadata import ForeignMetadata
from sn6.checkpoints.weights_file import read_weights
from sn6.data.folds import Fold, make_fold
from sn6.datasets.declaration import Tile
from sn6.datasets.spacenet6 import CRS, SpaceNet6

REAL = Path(__file__).parents[2] / "shared" / "real" / "train_tiles.csv"
OPEN = [line for line in small_run() if not line.startswith(("model.width", "model.pretrained"))]
FEW = (
    "trainer.limit_train_batches=1",
    "optimizer.lr=0.0",
    "optimizer.weight_decay=0.0",
    "callbacks.calibration=null",
    "callbacks.image_logging.tiles=0",
)


def given(tmp_path, weights, *more, model="ternausnet"):
    """The overrides of a run that starts from a file of weights and learns nothing."""
    path = tmp_path / "given.pth"
    torch.save(weights, path)
    return [
        *(line for line in OPEN if not line.startswith(("model=", "trainer.limit_train"))),
        f"model={model}",
        *FEW,
        *more,
        f"model.weights={path}",
    ]


def final_weights(tmp_path):
    """The network's tensors at the end of the run."""
    last = torch.load(tmp_path / "outputs/it/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return {name.removeprefix("network."): tensor for name, tensor in last.items()}


def predict(sn6_command, checkpoint, root, tmp_path):
    """Footprints of the archive's test tiles into the folder `out`."""
    return sn6_command("predict", f"checkpoint={checkpoint}", f"root={root}", f"out={tmp_path}/out", "device=cpu")


def test_the_file_fixes_the_architecture(sn6_run, archive_root, tmp_path):
    weights = nets.unet16_file(bands=4)
    done = sn6_run(*given(tmp_path, weights), f"data.root={archive_root}")
    assert done.status == 0, done.err
    assert "TernausNet's UNet16" in done.err
    config = (tmp_path / "outputs/it/config.yaml").read_text()
    assert "encoder: vgg16" in config
    assert "width: 4" in config
    ended = final_weights(tmp_path)
    assert torch.equal(ended["encoder.28.weight"], weights["conv5.4.weight"])
    assert torch.equal(ended["decoder.1.3.bias"], weights["dec4.block.2.conv.bias"])
    assert read_metrics(tmp_path / "outputs/it")["weights"]["scored_tiles_in_training_area"] is None


def test_other_bands_are_adapted_by_the_rules_of_the_transfer(sn6_run, archive_root, tmp_path):
    weights = nets.unet_file(bands=3, classes=1)
    run = given(tmp_path, weights, f"data.root={archive_root}", model="unet")
    assert_fails(sn6_run(*run), "missing_value", "model.adapt")
    assert_fails(sn6_run(*run, "model.adapt=names"), "conflict", "model.adapt", "names")
    done = sn6_run(*run, "model.adapt=mean")
    assert done.status == 0, done.err
    first = final_weights(tmp_path)["encoder.0.0.weight"]
    old = weights["inc.double_conv.0.weight"]
    torch.testing.assert_close(first, old.mean(dim=1, keepdim=True).repeat(1, 4, 1, 1) * 3 / 4)


def test_a_head_of_other_classes_is_initialised_only_with_reset_head(sn6_run, archive_root, tmp_path):
    weights = nets.fcn_file(8, bands=4, classes=3)
    run = given(tmp_path, weights, f"data.root={archive_root}", model="fcn8s")
    assert_fails(sn6_run(*run), "mismatch", "model.classes", 1)
    assert_fails(sn6_run(*run, "model.classes=3"), "conflict", "model.building_class")
    done = sn6_run(*run, "model.reset_head=true")
    assert done.status == 0, done.err
    ended = final_weights(tmp_path)
    assert torch.equal(ended["fc6.weight"], weights["fc6.weight"])
    assert ended["score.weight"].shape[0] == 1


def test_several_classes_are_scored_by_their_argmax(sn6_run, sn6_command, archive_root, tmp_path):
    weights = nets.fcn_file(16, bands=4, classes=3)
    run = given(
        tmp_path, weights, f"data.root={archive_root}", "model.classes=3", "model.building_class=1", model="fcn16s"
    )
    run = [line for line in run if not line.startswith("trainer.limit_test")]
    done = sn6_run(*run)
    assert done.status == 0, done.err
    folder = tmp_path / "outputs/it"
    assert predict(sn6_command, folder, archive_root, tmp_path).status == 0
    assert (tmp_path / "out/proposals.csv").read_text() == (folder / "proposals.csv").read_text()


def test_the_callback_reads_published_weights_too(sn6_run, archive_root, tmp_path):
    weights = nets.unet11_file(bands=4)
    torch.save({f"module.{name}": tensor for name, tensor in weights.items()}, tmp_path / "baseline.pth")
    handoff = f"callbacks.sar_handoff.weights={tmp_path}/baseline.pth"
    done = sn6_run(*small_run(), *FEW, f"data.root={archive_root}", handoff)
    assert done.status == 0, done.err
    with (tmp_path / "outputs/it/handoff.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["action"] for row in rows} == {"loaded"}
    assert torch.equal(final_weights(tmp_path)["decoder.3.2.weight"], weights["dec2.block.1.weight"])


def test_a_run_starts_from_the_folder_of_another(sn6_run, archive_root, tmp_path):
    run = [*small_run(), *FEW, f"data.root={archive_root}"]
    assert sn6_run(*run, "data=eo").status == 0
    weights, _ = read_weights(tmp_path / "outputs/it/weights.safetensors")
    again = [line for line in run if not line.startswith("model.width")]
    done = sn6_run(*again, "name=again", f"model.weights={tmp_path}/outputs/it", "model.adapt=mean")
    assert done.status == 0, done.err
    ended = torch.load(tmp_path / "outputs/again/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(ended[f"network.{name}"], tensor) for name, tensor in weights.items())
    assert read_metrics(tmp_path / "outputs/again")["weights"]["scored_tiles_in_training_area"] == 0


# --- the published baseline, scored without training


def baseline(tmp_path, archive_root, *more):
    path = tmp_path / "baseline.pth"
    if not path.exists():
        torch.save({f"module.{name}": tensor for name, tensor in nets.unet11_file(bands=4).items()}, path)
    parts = (
        "data.num_workers",
        "trainer.accelerator",
        "trainer.precision",
        "callbacks.image_logging",
        "+trainer.enable",
        "~",
    )
    general = [line for line in OPEN if line.startswith(parts)]
    return [
        "experiment=baseline_weights",
        *general,
        f"data.root={archive_root}",
        "name=it",
        f"model.weights={path}",
        *more,
    ]


def test_the_published_baseline_is_scored_without_training(sn6_run, sn6_command, archive_root, tmp_path):
    done = sn6_run(*baseline(tmp_path, archive_root))
    assert done.status == 0, done.err
    folder = tmp_path / "outputs/it"
    metrics = read_metrics(folder)
    assert metrics["validation"]["epoch"] is None
    assert metrics["validation"]["selected_by"] is None
    assert metrics["operating_point"]["threshold"] == 0.5
    assert metrics["test"]["tiles"] == metrics["data"]["tiles"]["test"]
    assert metrics["validation"]["tiles"] == metrics["data"]["tiles"]["validation"]
    best = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
    weights = torch.load(tmp_path / "baseline.pth", weights_only=True)
    assert torch.equal(best["state_dict"]["network.head.weight"], weights["module.final.weight"])
    assert best["TileDataModule"]["mean"] == [127.5] * 4
    assert best["TileDataModule"]["nodata"] == "as_is"
    assert best["global_step"] == 0
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt"}
    assert not (folder / "figures/curves.png").exists()  # nothing was learned
    assert metrics["weights"]["note"] in done.err.replace("\n", " ")
    # the folder is a run's
    assert predict(sn6_command, folder, archive_root, tmp_path).status == 0
    assert (tmp_path / "out/proposals.csv").read_text() == (folder / "proposals.csv").read_text()


@pytest.mark.parametrize("fold", [4, 1])
def test_scored_tiles_in_the_training_area_of_the_baseline(sn6_run, archive_root, tmp_path, fold):
    column = (fold + 1) % 5
    done = sn6_run(*baseline(tmp_path, archive_root, f"data.fold={fold}", f"data.test_column={column}", *FEW[3:]))
    assert done.status == 0, done.err
    weights = read_metrics(tmp_path / "outputs/it")["weights"]
    tiles = SpaceNet6(archive_root).tiles("train", "SAR-Intensity")
    west = [tile.bounds[0] for tile in tiles]
    edge = min(west) + 0.8 * (max(west) - min(west))  # of the last of five columns
    trained_on = [tile for tile in tiles if tile.bounds[0] < edge]
    scored = make_fold(tiles, fold, column).test
    overlapping = int(overlaps(scored, trained_on).any(axis=1).sum())
    assert overlapping > 0
    assert weights["scored_tiles_in_training_area"] == overlapping
    assert "data.fold=4" in weights["note"]


def test_nothing_to_score(sn6_run, archive_root, tmp_path):
    without = [line for line in baseline(tmp_path, archive_root) if not line.startswith("model.weights")]
    assert_fails(sn6_run(*without), "missing_value", "model.weights")
    handoff = f"callbacks.sar_handoff.weights={tmp_path}/baseline.pth"
    assert_fails(sn6_run(*without, handoff), "missing_value", "model.weights")
    assert_fails(sn6_run(*baseline(tmp_path, archive_root), handoff), "conflict", "callbacks.sar_handoff.weights")


def test_predict_needs_a_run_of_published_weights(sn6_command, archive_root, tmp_path):
    baseline(tmp_path, archive_root)
    done = predict(sn6_command, tmp_path / "baseline.pth", archive_root, tmp_path)
    assert_fails(done, "wrong_data")
    assert f"experiment=baseline_weights model.weights={tmp_path}/baseline.pth" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not REAL.exists(), reason="the positions of the real tiles are missing")
def test_real_tiles_of_column_4_in_the_training_area_of_the_baseline():
    """46.8%, as was found for the published split."""
    with REAL.open() as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0])
    tiles = []
    for row in rows:
        image_id, x, y = row[names[0]], float(row[names[1]]), float(row[names[2]])
        tiles.append(Tile(image_id, "train", "strip", 0, (x, y - 450, x + 450, y), ()))
    fold: Fold = make_fold(tiles, 4, None)
    weights = provenance(InitialWeights("model.weights", Path("w.pth"), {}, ForeignMetadata()), fold, CRS, 4)
    assert len(fold.test) == 705
    assert weights["scored_tiles_in_training_area"] == round(0.468 * 705)
