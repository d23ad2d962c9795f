"""Runs that are given weights: what becomes of them, and how far they know the ground that is scored."""

import csv
import json
from pathlib import Path

import helpers.published_nets as nets
import pytest
import torch
from helpers.commands import small_run
from helpers.rectangles import overlaps
from test_predict import sn6_predict

from sn6.checkpoints.initial_weights import InitialWeights, provenance
from sn6.checkpoints.weights_file import read_weights
from sn6.data.folds import Fold, make_fold
from sn6.datasets.archive import Archive, Tile

REAL = Path(__file__).parents[2] / "shared" / "real" / "train_tiles.csv"
__all__ = ["sn6_predict"]  # the fixture
UNSAID = [word for word in small_run() if not word.startswith(("model.width", "model.pretrained"))]
FEW = (
    "trainer.limit_train_batches=1",
    "optimizer.lr=0.0",
    "optimizer.weight_decay=0.0",
    "callbacks.calibration.tiles=0",
    "callbacks.image_logging.tiles=0",
)


def given(tmp_path, weights, *more, model="ternausnet"):
    """The words of a run with a file of weights that learns nothing."""
    path = tmp_path / "given.pth"
    torch.save(weights, path)
    return [
        *(word for word in UNSAID if not word.startswith(("model=", "trainer.limit_train"))),
        f"model={model}",
        *FEW,
        *more,
        f"model.weights={path}",
    ]


def ended_with(tmp_path):
    """The network's tensors at the end of the run."""
    last = torch.load(tmp_path / "outputs/it/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return {name.removeprefix("network."): tensor for name, tensor in last.items()}


def test_a_run_takes_over_what_the_file_fixes(sn6_run, archive_root, tmp_path):
    weights = nets.unet16_file(bands=4)
    done = sn6_run(*given(tmp_path, weights), f"data.root={archive_root}")
    assert done.status == 0, done.err
    assert "(TernausNet's UNet16): 50 tensors loaded" in done.err
    config = (tmp_path / "outputs/it/config.yaml").read_text()
    assert "encoder: vgg16" in config
    assert "width: 4" in config
    ended = ended_with(tmp_path)
    assert torch.equal(ended["encoder.28.weight"], weights["conv5.4.weight"])
    assert torch.equal(ended["decoder.1.3.bias"], weights["dec4.block.2.conv.bias"])
    metrics = json.loads((tmp_path / "outputs/it/metrics.json").read_text())
    assert metrics["weights"]["scored_tiles_seen"] is None
    assert "is not known" in metrics["weights"]["note"]


def test_other_bands_are_adapted_by_the_words_of_the_handoff(sn6_run, archive_root, tmp_path):
    weights = nets.unet_file(bands=3, classes=1)
    run = given(tmp_path, weights, f"data.root={archive_root}", model="unet")
    fails(sn6_run(*run), "first layer for 3 bands, the network for 4; choose a rule by model.adapt=mean|repeat|names")
    fails(sn6_run(*run, "model.adapt=names"), "finds no band of the same name: none that are known before")
    done = sn6_run(*run, "model.adapt=mean")
    assert done.status == 0, done.err
    assert "encoder.0.0.weight adapted (mean: 3 bands to 4)" in done.err
    first = ended_with(tmp_path)["encoder.0.0.weight"]
    old = weights["inc.double_conv.0.weight"]
    torch.testing.assert_close(first, old.mean(dim=1, keepdim=True).repeat(1, 4, 1, 1) * 3 / 4)


def test_a_head_of_other_classes_starts_anew_only_where_that_is_asked_for(sn6_run, archive_root, tmp_path):
    weights = nets.fcn_file(8, bands=4, classes=3)
    run = given(tmp_path, weights, f"data.root={archive_root}", model="fcn8s")
    fails(sn6_run(*run, "model.classes=1"), "model.classes=1, and", "classes=3", "model.reset_head=true")
    fails(sn6_run(*run), "model.classes=3 with model.building_class=None", "model.building_class=0 to 2")
    done = sn6_run(*run, "model.reset_head=true")
    assert done.status == 0, done.err
    assert "9 left as they start" in done.err  # scores of fc7, pool4 and pool3, and three upsamplings
    ended = ended_with(tmp_path)
    assert torch.equal(ended["fc6.weight"], weights["fc6.weight"])
    assert ended["score.weight"].shape[0] == 1


def test_several_classes_are_scored_by_their_argmax(sn6_run, sn6_predict, archive_root, tmp_path):
    weights = nets.fcn_file(16, bands=4, classes=3)
    run = given(tmp_path, weights, f"data.root={archive_root}", "model.building_class=1", model="fcn16s")
    run = [word for word in run if not word.startswith("trainer.limit_test")]
    done = sn6_run(*run)
    assert done.status == 0, done.err
    folder = tmp_path / "outputs/it"
    assert sn6_predict(f"checkpoint={folder}", f"root={archive_root}", f"out={tmp_path}/out")[0] == 0
    assert (tmp_path / "out/proposals.csv").read_text() == (folder / "proposals.csv").read_text()


def test_the_handoff_reads_published_weights_too(sn6_run, archive_root, tmp_path):
    weights = nets.unet11_file(bands=4)
    torch.save({f"module.{name}": tensor for name, tensor in weights.items()}, tmp_path / "baseline.pth")
    handoff = f"callbacks.sar_handoff.weights={tmp_path}/baseline.pth"
    done = sn6_run(*small_run(), *FEW, f"data.root={archive_root}", handoff)
    assert done.status == 0, done.err
    with (tmp_path / "outputs/it/handoff.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["action"] for row in rows} == {"loaded"}
    assert torch.equal(ended_with(tmp_path)["decoder.3.2.weight"], weights["dec2.block.1.weight"])


def test_a_run_starts_from_the_folder_of_another(sn6_run, archive_root, tmp_path):
    run = [*small_run(), *FEW, f"data.root={archive_root}"]
    assert sn6_run(*run, "data=eo").status == 0
    weights, _ = read_weights(tmp_path / "outputs/it/weights.safetensors")
    again = [word for word in run if not word.startswith("model.width")]
    done = sn6_run(*again, "name=again", f"model.weights={tmp_path}/outputs/it")
    assert done.status == 0, done.err
    ended = torch.load(tmp_path / "outputs/again/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(ended[f"network.{name}"], tensor) for name, tensor in weights.items())
    told = json.loads((tmp_path / "outputs/again/metrics.json").read_text())["weights"]
    assert told["scored_tiles_seen"] == 0


# --- the published baseline, scored as it is


def baseline(tmp_path, archive_root, *more):
    path = tmp_path / "baseline.pth"
    if not path.exists():
        torch.save({f"module.{name}": tensor for name, tensor in nets.unet11_file(bands=4).items()}, path)
    kept = (
        "data.num_workers",
        "trainer.accelerator",
        "trainer.precision",
        "callbacks.image_logging",
        "+trainer.enable",
        "~",
    )
    said = [word for word in UNSAID if word.startswith(kept)]
    return [
        "experiment=baseline_weights",
        *said,
        f"data.root={archive_root}",
        "name=it",
        f"model.weights={path}",
        *more,
    ]


def test_the_published_baseline_is_scored_as_it_is(sn6_run, sn6_predict, archive_root, tmp_path):
    done = sn6_run(*baseline(tmp_path, archive_root))
    assert done.status == 0, done.err
    folder = tmp_path / "outputs/it"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["epoch"] is None
    assert metrics["chosen_by"] is None
    assert metrics["footprints"]["threshold"] == 0
    assert metrics["tiles"] == metrics["tiles_by_use"]["test"]
    assert metrics["val_tiles"] == metrics["tiles_by_use"]["validation"]
    best = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
    weights = torch.load(tmp_path / "baseline.pth", weights_only=True)
    assert torch.equal(best["state_dict"]["network.head.weight"], weights["module.final.weight"])
    assert best["TileDataModule"]["mean"] == [127.5] * 4
    assert best["TileDataModule"]["nodata"] == "as_is"
    assert best["global_step"] == 0
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt"}
    assert not (folder / "figures/curves.png").exists()  # nothing was learned
    assert metrics["weights"]["note"] in done.err.replace("\n", " ")
    # the folder is that of a run
    assert sn6_predict(f"checkpoint={folder}", f"root={archive_root}", f"out={tmp_path}/out")[0] == 0
    assert (tmp_path / "out/proposals.csv").read_text() == (folder / "proposals.csv").read_text()


@pytest.mark.parametrize("fold", [4, 1])
def test_how_much_of_the_ground_the_baseline_knows(sn6_run, archive_root, tmp_path, fold):
    column = (fold + 1) % 5
    done = sn6_run(*baseline(tmp_path, archive_root, f"data.fold={fold}", f"data.test_column={column}", *FEW[3:]))
    assert done.status == 0, done.err
    told = json.loads((tmp_path / "outputs/it/metrics.json").read_text())["weights"]
    tiles = Archive(archive_root).tiles("train", "SAR-Intensity")
    west = [tile.bounds[0] for tile in tiles]
    edge = min(west) + 0.8 * (max(west) - min(west))  # of the last of five columns
    trained_on = [tile for tile in tiles if tile.bounds[0] < edge]
    scored = make_fold(tiles, fold, column).test
    seen = int(overlaps(scored, trained_on).any(axis=1).sum())
    assert seen > 0
    assert told["scored_tiles_seen"] == seen
    assert f"{seen} of the {len(scored)} scored tiles, so the score is too good" in told["note"]
    assert "data.fold=4" in told["note"]


def test_nothing_to_score_is_told(sn6_run, archive_root, tmp_path):
    without = [word for word in baseline(tmp_path, archive_root) if not word.startswith("model.weights")]
    fails(sn6_run(*without), "trainer.max_epochs=0 scores weights as they are; name them by model.weights=PATH")
    handoff = f"callbacks.sar_handoff.weights={tmp_path}/baseline.pth"
    fails(sn6_run(*without, handoff), "name them by model.weights=PATH, and only there")


def test_predict_tells_the_way_of_published_weights(sn6_predict, archive_root, tmp_path):
    baseline(tmp_path, archive_root)
    status, _, err = sn6_predict(f"checkpoint={tmp_path}/baseline.pth", f"root={archive_root}", f"out={tmp_path}/out")
    assert status == 1
    assert "weights of TernausNet's UNet11 and does not tell bands, normalisation and threshold" in err
    assert f"experiment=baseline_weights model.weights={tmp_path}/baseline.pth" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not REAL.exists(), reason="the places of the real tiles are not here")
def test_how_much_of_the_real_column_4_the_baseline_knows():
    """46.8%, as was found for the published split."""
    with REAL.open() as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0])
    tiles = []
    for row in rows:
        image_id, x, y = row[names[0]], float(row[names[1]]), float(row[names[2]])
        tiles.append(Tile(image_id, "train", "strip", 0, (x, y - 450, x + 450, y), ()))
    fold: Fold = make_fold(tiles, 4, None)
    told = provenance(InitialWeights("model.weights", Path("w.pth"), {}, {}), fold, 4)
    assert len(fold.test) == 705
    assert told["scored_tiles_seen"] == round(0.468 * 705)
