"""Networks of a user and of other packages: a yaml of their own is enough, in runs, stages, sweeps and predictions."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from helpers.commands import ANY, assert_fails, assert_one_line, read_metrics, start, wait_for_end
from helpers.forked import python_m
from torch import nn

from sn6.errors import UserError
from sn6.models.logits import compute_outputs

OWN = '''\
import torch
from torch import nn


class Tiny(nn.Module):
    """Halves the image and doubles it: fails for odd sides."""

    head_parts = ("head",)

    def __init__(self, bands: int, outputs: int, hidden: int = 4, note: str = "unset"):
        super().__init__()
        assert note is None
        self.encoder = nn.Sequential(nn.Conv2d(bands, hidden, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Sequential(nn.Conv2d(hidden, outputs, 1), nn.Upsample(scale_factor=2))

    def forward(self, image):
        assert image.shape[-1] % 64 == 0, image.shape
        return self.head(self.encoder(image))


class Broken(nn.Module):
    def __init__(self, part: str = "forward"):
        if part != "constructor":
            super().__init__()
        self.layer = nn.Conv2d(3, 1, 1)

    def forward(self, image):
        return self.layer(image)


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(4, 1, 1)

    def forward(self, image):
        return self.layer(image)[:, 0]
'''
TINY = "_target_: own_networks.Tiny\nbands: ${model.in_channels}\noutputs: ${model.classes}\nnote: null\nmultiple: 64\n"
SMP = "_target_: segmentation_models_pytorch.Unet\nencoder_name: resnet18\nencoder_weights: null\n"
SHORT = (
    "data.crop=80",
    "data.batch_size=2",
    "data.num_workers=0",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=2",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "callbacks.image_logging.tiles=0",
    "name=it",
)


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """The user's folder: networks in a file of Python, and a folder of config files."""
    (tmp_path / "own_networks.py").write_text(OWN)
    files = {"tiny": TINY, "smp": SMP, "flat": "_target_: own_networks.Flat\n", "open": "outputs: 1\n"}
    files |= {"broken": "_target_: own_networks.Broken\n", "indented": "_target_: own_networks.Tiny\n  outputs: 1\n"}
    (tmp_path / "my_conf/model").mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / f"my_conf/model/{name}.yaml").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("own_networks", None)
    return tmp_path


@pytest.fixture
def run(sn6_run, archive_root, own_folder):
    """A short run with the user's folder of config files."""
    return lambda *overrides: sn6_run("--config-dir", "my_conf", f"data.root={archive_root}", *SHORT, *overrides)


@pytest.mark.parametrize(
    ("model", "target"), [("tiny", "own_networks.Tiny"), ("smp", "segmentation_models_pytorch.Unet")]
)
def test_a_network_by_a_yaml_trains_and_predicts(run, sn6_command, archive_root, own_folder, model, target):
    done = run(f"model={model}", "polygons.min_area=0", "callbacks.calibration=null")
    assert done.status == 0, done.err
    assert f" allow={target}\n" in done.err  # in the command to go on with
    predict = (f"checkpoint={own_folder}/outputs/it", f"root={archive_root}", f"out={own_folder}/out", "device=cpu")
    assert_fails(sn6_command("predict", *predict), "missing_value", "allow", [target])
    assert not (own_folder / "out").exists()
    assert sn6_command("predict", *predict, f"allow={target}").status == 0
    assert (own_folder / "out/proposals.csv").read_text() == (own_folder / "outputs/it/proposals.csv").read_text()


def test_nothing_foreign_is_imported_without_allow(run, sn6_command, archive_root, own_folder):
    assert run("model=tiny").status == 0
    sys.modules.pop("own_networks")
    (own_folder / "own_networks.py").write_text("raise AssertionError('imported')")
    predict = (f"checkpoint={own_folder}/outputs/it", f"root={archive_root}", f"out={own_folder}/out", "device=cpu")
    assert_fails(sn6_command("predict", *predict), "missing_value", "allow")
    assert_fails(sn6_command("predict", *predict, "allow=[other.Net]"), "missing_value", "allow", ["own_networks.Tiny"])
    assert "own_networks" not in sys.modules
    assert_fails(sn6_command("predict", *predict, "allow=own_networks.Tiny"), "unavailable", "allow")


def test_stages_and_weights_of_an_own_network(run, own_folder):
    done = run(
        "model=tiny", "stages={eo:['data=eo','+model.hidden=6'],sar:['callbacks.sar_handoff.weights=${run_folder}/eo']}"
    )
    assert_fails(done, "mismatch")  # 6 filters of the optical stage, 4 of the other
    done = run(
        "model=tiny", "name=both", "stages={eo:['data=eo'],sar:['callbacks.sar_handoff.weights=${run_folder}/eo']}"
    )
    assert done.status == 0, done.err
    with (own_folder / "outputs/both/sar/handoff.csv").open() as file:
        assert {row["action"] for row in csv.DictReader(file)} == {"loaded"}


@pytest.mark.slow
def test_an_own_network_in_a_sweep_and_resumed(run, own_folder, archive_root):
    """The jobs are processes of their own, which find the folder and the file."""
    overrides = ["--config-dir", "my_conf", *SHORT, f"data.root={archive_root}", "-m", "model=tiny,smp"]
    path = f"{own_folder}:{Path(__file__).parents[1]}"
    status, err = wait_for_end(start(own_folder, overrides, PYTHONPATH=path))
    assert status == 0, err
    jobs = [json.loads((own_folder / f"outputs/it/model-{name}/job.json").read_text()) for name in ("tiny", "smp")]
    assert [job["status"] for job in jobs] == ["finished", "finished"]
    config = yaml.safe_load((own_folder / "outputs/it/model-smp/config.yaml").read_text())
    assert config["model"]["encoder_weights"] is None


@pytest.mark.slow
def test_an_own_network_resumes(run, own_folder, archive_root):
    stop = "+callbacks.stop._target_=helpers.stopping.StopAt"
    overrides = ["--config-dir", "my_conf", *SHORT, "model=tiny", f"data.root={archive_root}", stop]
    overrides += ["trainer.max_epochs=2", "callbacks.resume_point.every_n_steps=1"]
    run = ["sn6.run", *overrides]
    assert python_m(run, own_folder, SN6_TEST_STOP="SIGTERM it 1 0").status == 128 + 15
    assert python_m(run, own_folder).status == 0
    assert python_m([*run, "name=whole"], own_folder).status == 0
    resumed, whole = (
        torch.load(own_folder / f"outputs/{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("it", "whole")
    )
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
    assert "epoch" in json.dumps(read_metrics(own_folder / "outputs/it"))


# --- mistakes


@pytest.mark.parametrize(
    ("overrides", "kind", "key"),
    [
        (["model=tinny"], "unknown_value", "model"),
        (["model=tiny", "model.bands=null"], "invalid_value", "model.bands"),
        (["model=tiny", "~model.outputs"], "missing_value", "model.outputs"),
        (["model=tiny", "model._target_=own_networks.Tinny"], "not_found", "model._target_"),
        (["model=tiny", "model._target_=own_network.Tiny"], "not_found", "model._target_"),
        (["model=tiny", "model.classes=${model.classes}"], "invalid_value", ANY),
        (["model=open"], "missing_value", "model._target_"),
        (["model=broken"], "failed", "model._target_"),  # in its forward
        (["model=broken", "+model.part=constructor"], "failed", "model._target_"),
        (["model=smp", "model.encoder_name=resnet19"], "failed", "model._target_"),
        (["model=tiny", "model.bands=${model.inchannels}"], "invalid_value", ANY),
        (["model=tiny", "+callbacks.own.every=2"], "missing_value", "callbacks.own._target_"),
        (["model=tiny", "+callbacks.own._target_=own_networks.Flat"], "invalid_value", "callbacks.own._target_"),
        (["model=tiny", "loss._target_=torch.nn.functional.mse_loss"], "invalid_value", "loss._target_"),
        (["model=tiny", "model.hidden=6"], "unknown_key", "model.hidden"),
        (["model=flat", "model._target_=pathlib.Path"], "invalid_value", "model._target_"),
    ],
)
def test_the_likeliest_mistakes_get_one_line(run, own_folder, overrides, kind, key):
    assert_fails(run(*overrides), kind, key)


def test_a_broken_yaml_is_named_with_its_line(run, own_folder):
    assert_fails(run("model=indented"), "unreadable", f"{own_folder}/my_conf/model/indented.yaml line 2")


def test_a_misspelled_class_is_answered_with_the_nearest(run):
    assert "own_networks has no Tinny; did you mean Tiny?" in run("model=tiny", "model._target_=own_networks.Tinny").err


def test_a_recipe_takes_an_own_network_without_its_width(run, own_folder, archive_root):
    done = run("experiment=quickstart", "simulation=null", f"data.root={archive_root}", "model=tiny")
    assert done.status == 0, done.err
    assert (own_folder / "outputs/it/sar/metrics.json").exists()


def test_the_code_of_the_network_changed_before_a_resume(run, own_folder, monkeypatch):
    assert run("model=tiny").status == 0
    (own_folder / "outputs/it/metrics.json").unlink()  # as if it was stopped before its end
    import own_networks

    monkeypatch.setattr(own_networks.nn, "Upsample", lambda scale_factor: nn.ConvTranspose2d(1, 1, 2, stride=2))
    assert_fails(run("model=tiny", "trainer.max_epochs=2"), "mismatch", "name")


def test_a_callback_that_monitors_what_nobody_logs(run):
    stopping = (
        "+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping",
        "+callbacks.stop.monitor=val/dice",
    )
    done = run("model=tiny", *stopping)
    assert_fails(done, "unknown_value", "callbacks")
    assert "val/f1" in str(done.error)


def test_a_network_that_returns_another_shape(run):
    assert_fails(run("model=flat"), "mismatch", "model._target_")


def test_all_unknown_keys_are_named_at_once(run):
    done = run("model=tiny", "data.crp=3", "trainer.max_epoks=2", "models.width=3")
    assert_fails(done, "unknown_key", "data.crp")
    assert all(key in str(done.error) for key in ("data.crop", "trainer.max_epochs", "models.width"))


def test_a_folder_of_config_files_that_does_not_exist(sn6_run):
    assert_fails(sn6_run("--config-dir", "nowhere", "model=tiny"), "not_found", "--config-dir", "nowhere")
    assert_fails(sn6_run("hydra.searchpath=[nowhere]", "model=tiny"), "not_found", "--config-dir", "nowhere")


def test_the_search_path_of_hydra_and_the_help(own_folder, sn6_run, archive_root):
    done = sn6_run("hydra.searchpath=[my_conf]", "model=tiny", "--help")
    assert done.status == 0
    assert "own_networks.Tiny" in done.out
    done = sn6_run("hydra.searchpath=[file://my_conf]", f"data.root={archive_root}", *SHORT, "model=tiny")
    assert done.status == 0, done.err


def test_callbacks_may_be_left_out_but_not_those_that_others_need(run, own_folder):
    for name in ("polygon_f1", "checkpoint"):
        assert_fails(run(f"callbacks.{name}=null", "model=tiny"), "missing_value", f"callbacks.{name}")
        assert not (own_folder / "outputs/it").exists()
    others = ("calibration", "image_logging", "throughput", "learning_rate", "sar_handoff", "resume_point")
    done = run("model=tiny", *(f"callbacks.{name}=null" for name in others))
    assert done.status == 0, done.err


def test_a_console_script_finds_modules_in_the_folder(own_folder, archive_root):
    overrides = ["--config-dir", "my_conf", *SHORT, "model=tiny", f"data.root={archive_root}", "model.bands=x"]
    command = [sys.executable, "-P", "-c", "from sn6.__main__ import main; main()", "run", *overrides]
    done = subprocess.run(command, cwd=own_folder, capture_output=True, text=True)
    assert_one_line(done.returncode, done.stderr, "model.bands")  # the class was imported, and its types checked


# --- any size


@pytest.mark.parametrize(("height", "width"), [(64, 96), (70, 33), (1, 5)])
def test_sides_are_padded_to_a_multiple_and_cropped(height, width):
    seen = []

    class Identity(nn.Module):
        def forward(self, image):
            seen.append(image)
            return image

    image = torch.randn(2, 1, height, width)
    assert torch.equal(compute_outputs(Identity(), image, 32), image)
    padded = seen[0]
    assert (padded.shape[2] % 32, padded.shape[3] % 32) == (0, 0)
    assert padded.shape[2] - height < 32
    assert padded.shape[3] - width < 32
    assert padded.sum() == pytest.approx(image.sum().item(), abs=1e-4)  # zeros around it


def test_a_dictionary_as_torchvision_returns_it():
    class Dictionary(nn.Module):
        def forward(self, image):
            return {"out": image.sum(dim=1, keepdim=True), "aux": image}

    image = torch.randn(1, 3, 8, 8)
    assert torch.equal(compute_outputs(Dictionary(), image, 1), image.sum(dim=1, keepdim=True))


def test_more_channels_than_classes_are_refused():
    with pytest.raises(UserError) as caught:
        compute_outputs(nn.Identity(), torch.zeros(1, 3, 8, 8), 1)
    assert (caught.value.kind, caught.value.key) == ("mismatch", "model._target_")
