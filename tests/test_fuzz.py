"""Random configs and broken files end in a result or in one line: no traceback, no crash, nothing half-written."""

import json
import os
import warnings
from pathlib import Path

import pytest
from helpers.broken_files import Files, make_files
from helpers.commands import assert_one_line
from helpers.config_fuzz import TINY, Recipe, group_overrides, refusal
from helpers.file_fuzz import OK, REFUSED, STARTED, edits, try_files
from helpers.forked import python_m
from helpers.stopping import SERVER
from helpers.worlds import power_world
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisWarning

from sn6.config.composition import composing

BATCH = 25  # files of a process
COUNTS = {"default": 700, "sn6": 650, "folder": 650}  # inputs of each recipe
GROUPS, BATCHES = 100, 20
REPRODUCIBLE = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # a finding names its input; shrinking would build hundreds of networks
    suppress_health_check=list(HealthCheck),
)
RUNS = (  # values at the edge of their range, of which making everything says little
    ("data.crop=1",),
    ("data.batch_size=1", "data.crop=32"),
    ("data.min_area=0", "polygons.min_area=0"),
    ("window=96", "window_overlap=95"),
    ("trainer.limit_val_batches=1.0", "trainer.limit_train_batches=1.0"),
    ("callbacks.polygon_f1.curve=[0.5]", "callbacks.calibration=null"),
    ("optimizer.lr=0", "optimizer.weight_decay=0"),
    ("data.prefer_buildings=1.0", "data.train_fraction=1e-9"),
    ("logger=null",),
    ("trainer.max_epochs=-1", "trainer.max_steps=1"),
)


@pytest.fixture(scope="module")
def recipes(archive_root, tmp_path_factory):
    """Configs of an archive and of images of one's own."""
    world = power_world(tmp_path_factory.mktemp("world"))
    archive = f"data.root={archive_root}"
    of_world = [f"data.{key}={value}" for key, value in world.keys.items()]
    return {
        "default": Recipe([archive, "model=unet", *TINY]),
        "sn6": Recipe([archive, "experiment=sn6", "scale=small", "model=resunet", *TINY]),
        "folder": Recipe(["data=folder", *of_world, "model=unet", *TINY]),
    }


@pytest.fixture
def working_folder(tmp_path, monkeypatch):
    """An empty folder that this process is in, in which Hydra composes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # as sn6.run does
    with composing(), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*instantiate.. resolved .* with no"
        )  # whitelist, which hydra.main sets
        warnings.simplefilter("ignore", HypothesisWarning)  # of inputs that are long to print
        yield tmp_path


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", COUNTS)
def test_values_of_any_key(recipes, working_folder, name):
    """Each is accepted, or refused in one line before anything is written."""
    refused = []

    @settings(REPRODUCIBLE, max_examples=COUNTS[name])
    @given(recipes[name].draws())
    def compose_and_make(overrides):
        refused.append(refusal(recipes[name], overrides, working_folder) is not None)

    compose_and_make()
    assert len(refused) == COUNTS[name]
    assert 0.5 < sum(refused) / len(refused) < 1  # the values are near the valid ones and not only nonsense


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_choices_of_any_group(recipes, working_folder):
    @settings(REPRODUCIBLE, max_examples=GROUPS)
    @given(group_overrides())
    def compose_and_make(overrides):
        refusal(recipes["default"], overrides, working_folder)

    compose_and_make()


@pytest.mark.slow
@pytest.mark.parametrize("overrides", RUNS, ids=" ".join)
def test_values_at_the_edge_of_their_range_run(archive_root, tmp_path, overrides):
    done = python_m(["sn6.run", f"data.root={archive_root}", "model=unet", "name=it", *TINY, *overrides], tmp_path)
    metrics = tmp_path / "outputs/it/metrics.json"
    if done.status == 0:
        assert json.loads(metrics.read_text())["test"]
    else:
        assert_one_line(done.status, done.err)
        assert not metrics.exists()
    assert not list(tmp_path.rglob(".*.part*"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file of each kind."""
    return make_files(tmp_path_factory.mktemp("files"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_broken_files_of_each_kind(files, tmp_path):
    kinds = files.kinds()
    broken = st.sampled_from(sorted(kinds)).flatmap(
        lambda path: st.tuples(st.just(path), edits(), st.sampled_from(kinds[path]))
    )
    outcomes: list[str] = []

    @settings(REPRODUCIBLE, max_examples=BATCHES)
    @given(st.lists(broken, min_size=BATCH, max_size=BATCH))
    def try_batch(batch):
        outcomes.extend(outcomes_of(files, batch, tmp_path / "log"))

    try_batch()
    assert len(outcomes) == BATCHES * BATCH
    assert 0.3 < outcomes.count(REFUSED) / len(outcomes) < 0.9  # changes that commands notice, and others


def outcomes_of(files: Files, batch: list, log: Path) -> list[str]:
    """Assert that commands end well on broken files, and leave nothing unfinished; return how they ended."""
    process = SERVER.Process(target=try_files, args=(batch, files.command, log, str(files.folder)))
    process.start()
    process.join()
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    for number, fault in rows:
        assert fault in (OK, REFUSED, STARTED), (batch[number], fault)
    assert process.exitcode == 0, (batch[rows[-1][0]], process.exitcode)  # -14 is the time limit, -11 a crash
    assert not [name for _, _, names in os.walk(files.out) for name in names if ".part" in name]
    return [outcome for _, outcome in rows if outcome != STARTED]
