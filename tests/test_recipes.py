"""conf/experiment: the published recipes against their numbers, at full size and, with scale=small, in a run."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.errors import user_error
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn

import benchmarks.heads
from benchmarks import ablation, optical
from benchmarks.recipes import known_rows
from sn6.checkpoints.architecture import build_network
from sn6.checkpoints.init_options import network_arguments
from sn6.checkpoints.loading import build_on_meta
from sn6.config.composition import CONF, TRUST_NODE, VERSION_BASE, to_plain
from sn6.config.help import group_lines
from sn6.training.config_check import check_types
from sn6.training.stages import stage_configs

PIXEL_AREA, PIXEL = 0.25, 0.5  # m², m

# What the authors published, from their code and write-ups: lengths and areas in pixels of 0.5 m; `rate` is epoch →
# factor of the learning rate just after it has begun.
PUBLISHED: dict[str, dict[str, Any]] = {
    "zbigniewwojna": {
        "encoder": "tf_efficientnet_b5.ns_jft_in1k",
        "optimizer": ("AdamW", 2e-4, 1e-2),
        "epochs": 140,
        "rate": {0: 1.0, 81: 0.5, 101: 0.25, 121: 0.125},
        "crop": 512,
        "batch": 9,
        "clip": 1.2,
        "weights": {"mask": 1.0, "edge": 0.25, "contact": 0.1},
        "edge": 1,
        "scale": [0.5, 2.0],
        "rotation": 5.0,
        "flips": (True, False),
        "partition": "ten_columns",
        "orient": True,
        "threshold": 0.5,
        "seed": 0.75,
        "min_seed": 110,
        "min_area": 80,
    },
    "maksimovka": {
        "encoder": "legacy_senet154.in1k",
        "optimizer": ("Adam", 1e-4, 0.0),
        "epochs": 75,
        "crop": 320,
        "batch": 14,
        "clip": None,
        "weights": {"mask": 1.0, "edge": 0.1, "contact": 0.5},
        "scale": [0.9, 1.1],
        "rotation": 5.0,
        "flips": (True, True),
        "partition": "columns",
        "orient": False,
        "threshold": 0.3,
        "seed": 0.7,
        "min_area": 200,
    },
    "motokimura": {
        "encoder": "tf_efficientnet_b7.ns_jft_in1k",
        "optimizer": ("Adam", 1e-4, 0.0),
        "epochs": 260,
        "rate": {0: 1.0, 229: 1.0, 231: 0.1},
        "crop": 256,
        "batch": 16,
        "clip": None,
        "weights": {"mask": 1.0, "contact": 1.0},
        "partition": "columns",
        "orient": True,
        "threshold": 0.3,
        "seed": 0.7,
        "min_seed": 20,
        "min_area": 80,
    },
    "selim_sef": {
        "encoder": "tf_efficientnet_b5.ns_jft_in1k",
        "optimizer": ("Adam", 1e-4, 0.0),
        "epochs": 50,
        "rate": {0: 1.0, 21: 0.5, 31: 0.25, 41: 0.125},
        "crop": 544,  # √(704 · 416) = 541, in multiples of 32
        "batch": 8,
        "clip": 1.0,
        "weights": {"mask": 1.0, "edge": 0.2, "contact": 0.3},
        "edge": 4,
        "flips": (False, False),
        "partition": "columns",
        "orient": True,
        "threshold": 0.32,
        "seed": 0.65,
        "min_seed": 70,
        "min_area": 150,
    },
}
RECIPES = ("sn6", *PUBLISHED)
SCORES = {"zbigniewwojna": "0.424", "maksimovka": "0.400", "motokimura": "0.396", "selim_sef": "0.396"}
STEP = (
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=1",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
    "trainer.accelerator=cpu",
    "data.crop=64",
    "data.crops_per_tile=1",
    "data.batch_size=2",
    "data.num_workers=0",
    "callbacks.image_logging=null",
    "~callbacks.progress_bar",
    "name=it",
)


def compose_config(*overrides):
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        return to_plain(compose("config", ["name=a", "folder=f", "run_folder=f", *overrides]))


def network_options(values):
    """What the network's class is called with; a run leaves nulls to the defaults of the class."""
    return {key: value for key, value in network_arguments(values["model"]).items() if value is not None}


def rates(values, epochs, per_epoch=10):
    """The factor of the learning rate at the beginning of each epoch, and once after the last one."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = instantiate(values["schedule"], _convert_="all", **TRUST_NODE)(optimizer, epochs * per_epoch)
    factors = []
    for step in range(epochs * per_epoch):
        if step % per_epoch == 0:
            factors.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return factors


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_has_the_published_numbers(name):
    values, published = compose_config(f"experiment={name}"), PUBLISHED[name]
    check_types(values)
    assert values["model"]["_target_"].endswith(".TimmUNet")
    assert f"{values['model']['encoder']}.{values['model']['pretrained']}" == published["encoder"]
    assert published["encoder"] in timm.list_pretrained()
    optimizer = values["optimizer"]
    found = (optimizer["_target_"].rpartition(".")[2], optimizer["lr"], optimizer.get("weight_decay", 0.0))
    assert found == published["optimizer"]
    trainer, data, polygons = values["trainer"], values["data"], values["polygons"]
    assert (trainer["max_epochs"], trainer["gradient_clip_val"]) == (published["epochs"], published["clip"])
    assert (data["crop"], data["batch_size"]) == (published["crop"], published["batch"])
    assert (data["partition"], data["orient"]) == (published["partition"], published["orient"])
    assert {head: node["weight"] for head, node in values["heads"].items()} == published["weights"]
    assert (polygons["threshold"], polygons["seed"]) == (published["threshold"], published["seed"])
    assert polygons["min_area"] / PIXEL_AREA == published["min_area"]
    assert polygons["min_seed"] / PIXEL_AREA == published.get("min_seed", 0)
    assert values["callbacks"]["calibration"] is None
    for key in published.keys() & {"scale", "rotation"}:
        assert values["augmentation"][key] == published[key]
    if "flips" in published:
        assert (values["augmentation"]["flip"], values["augmentation"]["flip_vertical"]) == published["flips"]
    if "edge" in published:
        assert values["heads"]["edge"]["target"]["width"] / PIXEL == published["edge"]
    if "rate" in published:
        factors = rates(values, published["epochs"])
        assert {epoch: pytest.approx(factors[epoch]) for epoch in published["rate"]} == published["rate"]


def test_the_losses_of_the_heads_sum_to_the_published_ones():
    """selim_sef: 2 · the mean cross entropy of three maps, and dice with the weights of the heads."""
    heads = compose_config("experiment=selim_sef")["heads"]
    for name, weight in PUBLISHED["selim_sef"]["weights"].items():
        loss = heads[name]["loss"]
        assert heads[name]["weight"] * loss["bce"] == pytest.approx(2 / 3, abs=1e-4)
        assert heads[name]["weight"] * loss["dice"] == weight
    for name in ("zbigniewwojna", "maksimovka"):  # focal + dice for every map
        for head in compose_config(f"experiment={name}")["heads"].values():
            loss = head["loss"].get("loss", head["loss"])
            assert (loss["dice"], loss["focal"], loss["gamma"]) == (1, 1, 2)
    weight = compose_config("experiment=zbigniewwojna")["loss"]["weight"]
    assert weight["base"] + 8 * weight["per_building"] == 1  # 0.5 + 0.5·n/8


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_the_network_of_full_size_can_be_built(name):
    """The decoder's widths fit the levels of the encoder; without memory, so without weights."""
    network = build_on_meta(network_options(compose_config(f"experiment={name}")))
    assert sum(parameter.numel() for parameter in network.parameters()) > 30e6


def test_the_help_and_the_files_say_what_was_published():
    lines = "\n".join(group_lines([]))
    for name in RECIPES:
        assert f"{name:<20}" in lines
    for name, score in SCORES.items():
        text = (CONF / f"experiment/{name}.yaml").read_text()
        assert f"F1 {score}" in " ".join(text.replace("#", "").split())
        assert "# What differs: " in text
        assert f"python -m sn6.run experiment={name}" in text


# --- scale=small


@pytest.mark.parametrize("name", ["unet", "ternausnet", "resunet", "timm_unet"])
def test_a_recipe_of_a_small_scale_takes_any_network_and_downloads_nothing(name):
    values = compose_config("experiment=sn6", "scale=small", f"model={name}")
    check_types(values)
    network = build_network(network_options(values), fetch_pretrained=True)
    assert sum(parameter.numel() for parameter in network.parameters()) < 6e6
    assert values["augmentation"]["_target_"].endswith(".Radar")
    assert compose_config("scale=small", f"model={name}")["model"]["_target_"] == values["model"]["_target_"]


def test_a_small_scale_limits_every_stage_and_the_command_line_wins():
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        overrides = ["experiment=baseline", "scale=small", "trainer.max_steps=7"]
        values = to_plain(compose("config", ["name=a", "folder=f", "run_folder=f", *overrides]))
        stages = stage_configs(values, overrides)
    assert [stages[name]["trainer"]["max_epochs"] for name in ("eo", "sar")] == [150, 50]
    assert all(stage["trainer"]["max_steps"] == 7 and stage["data"]["crop"] == 256 for stage in stages.values())
    assert compose_config("experiment=baseline", "scale=small")["trainer"]["max_steps"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_at_a_small_scale(sn6_run, archive_root, tmp_path, name):
    done = sn6_run(f"experiment={name}", "scale=small", f"data.root={archive_root}", *STEP)
    assert done.status == 0, done.err
    assert (tmp_path / "outputs/it/metrics.json").exists()
    assert (tmp_path / "outputs/it/footprints.geojson").exists()


def benchmark_rows() -> dict[str, tuple[str, ...]]:
    ours = {f"ablation: {name}": row for name, row in ablation.recipes_of(Path("weights.pth")).items()}
    heads = {f"heads: {name}": (*benchmarks.heads.SHARED, *row) for name, row in benchmarks.heads.RECIPES.items()}
    after_optical = optical.recipes_of(0.1, 960, optical.CHANGES, Path("optical"))
    return ours | heads | {f"optical: {name}": row for name, row in after_optical.items()}


@pytest.mark.parametrize("row", benchmark_rows())
def test_the_rows_of_the_benchmarks_are_configs(row):
    overrides = benchmark_rows()[row]
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        values = to_plain(compose("config", ["name=a", "folder=f", "run_folder=f", "data.root=r", *overrides]))
        stages = stage_configs(values, overrides) if values["stages"] else {"": values}
    for config in stages.values():
        check_types(config)
        assert config["data"]["fold"] == 0 or not row.startswith("heads")


def test_an_unknown_row_of_a_benchmark_is_an_error():
    with user_error("unknown_value", "rows", "b"):
        known_rows({"a": (), "c": ()}, ["a", "b"], "rows")
    assert known_rows({"a": (), "c": ()}, None, "rows") == ["a", "c"]
