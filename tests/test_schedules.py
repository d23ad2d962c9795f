"""Learning rates at named steps by hand, against the schedules of torch, and what is refused."""

import math

import pytest
import torch
from helpers.commands import assert_fails, small_run
from helpers.errors import user_error
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch.optim import lr_scheduler

from sn6 import schedules
from sn6.cli import validate_arguments
from sn6.config.composition import CONF, TRUST_NODE, VERSION_BASE

LR = 0.5  # exact in binary


def optimizer_of(lr=LR):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def factors(make, steps, **arguments):
    """Return the factor of the learning rate at each step, and after the last one."""
    optimizer = optimizer_of()
    return stepped(optimizer, make(optimizer, steps, **arguments), steps)


def stepped(optimizer, schedule, steps):
    values = []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"] / LR)
        optimizer.step()
        schedule.step()
    return [*values, optimizer.param_groups[0]["lr"] / LR]


@pytest.mark.parametrize(
    ("make", "arguments", "expected"),
    [
        (schedules.constant, {}, {0: 1, 50: 1, 100: 1}),
        (schedules.constant, {"warmup": 0.1}, {0: 1 / 11, 4: 5 / 11, 9: 10 / 11, 10: 1, 99: 1}),
        (schedules.cosine, {"warmup": 0.0}, {0: 1, 25: (1 + math.sqrt(0.5)) / 2, 50: 0.5, 100: 0}),
        (schedules.cosine, {"warmup": 0.2}, {0: 1 / 21, 10: 11 / 21, 20: 1, 60: 0.5, 100: 0}),
        (schedules.polynomial, {"power": 2.0, "warmup": 0.0}, {0: 1, 50: 0.25, 90: 0.01, 100: 0}),
        (schedules.polynomial, {"power": 2.0, "warmup": 0.2}, {0: 1 / 21, 19: 20 / 21, 20: 1, 60: 0.25, 100: 0}),
        (
            schedules.flat_then_linear,
            {"flat_until": 0.6, "warmup": 0.0},
            {0: 1, 60: 1, 70: 0.75, 80: 0.5, 99: 0.025, 100: 0},
        ),
        (schedules.flat_then_linear, {"flat_until": 0.6, "warmup": 0.1}, {0: 1 / 11, 10: 1, 60: 1, 80: 0.5}),
        (schedules.flat_then_linear, {"flat_until": 0.0, "warmup": 0.0}, {0: 1, 25: 0.75, 100: 0}),
        (schedules.multistep, {"at": [0.5, 0.8]}, {0: 1, 49: 1, 50: 0.5, 79: 0.5, 80: 0.25, 100: 0.25}),
        (schedules.multistep, {"at": [0.5], "factor": 0.1, "warmup": 0.1}, {0: 1 / 11, 10: 1, 50: 0.1}),
        (schedules.one_cycle, {"warmup": 0.31, "start": 0.2, "end": 0.1}, {0: 0.2, 15: 0.6, 30: 1, 99: 0.1, 100: 0.1}),
    ],
)
def test_factors_by_hand(make, arguments, expected):
    values = factors(make, 100, **arguments)
    assert {step: values[step] for step in expected} == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("make", "arguments", "of_torch"),
    [
        (
            schedules.one_cycle,
            {},
            lambda one, steps: lr_scheduler.OneCycleLR(one, max_lr=LR, total_steps=steps + 1, cycle_momentum=False),
        ),
        (schedules.polynomial, {"warmup": 0.0}, lambda one, steps: lr_scheduler.PolynomialLR(one, steps, power=0.9)),
        (
            schedules.multistep,
            {"at": [80 / 140, 100 / 140, 120 / 140]},
            lambda one, steps: lr_scheduler.MultiStepLR(one, [80, 100, 120], gamma=0.5),
        ),
        (schedules.cosine, {"warmup": 0.0}, lr_scheduler.CosineAnnealingLR),
    ],
)
def test_schedules_are_those_of_torch(make, arguments, of_torch):
    optimizer, steps = optimizer_of(), 140
    # that of one cycle fails beyond its last step
    number = steps + (make is schedules.one_cycle)
    values = factors(make, number, **arguments)[:steps]
    assert values == pytest.approx(stepped(optimizer, of_torch(optimizer, steps), steps - 1), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "schedule").glob("*.yaml")))
def test_every_schedule_of_the_config_stays_in_its_range(name):
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        node = compose("config", [f"schedule={name}"]).schedule
    for steps in (1, 2, 3, 1000):
        values = factors(instantiate(node, _convert_="all", **TRUST_NODE), steps)
        assert all(0 < value <= 1 + 1e-9 for value in values[:-1])
        assert 0 <= values[-1] <= 1
    assert max(values) == pytest.approx(1)


# --- a learning rate that follows the validations


@pytest.mark.parametrize(("mode", "patience", "factor"), [("max", 0, 0.5), ("max", 3, 0.1), ("min", 2, 0.5)])
def test_plateau_is_that_of_torch_also_after_resuming(mode, patience, factor):
    generator = torch.Generator().manual_seed(patience)
    scores = (torch.rand(60, generator=generator) * 10).round().tolist()  # with equal ones
    options = {"monitor": "val/iou", "mode": mode, "patience": patience, "factor": factor}
    optimizer, plain = optimizer_of(), optimizer_of()
    schedule = schedules.Plateau(optimizer, 600, **options)
    reference = lr_scheduler.ReduceLROnPlateau(
        plain, mode=mode, factor=factor, patience=patience, threshold=0.0, eps=0.0
    )
    for number, score in enumerate(scores):
        for _ in range(3):
            optimizer.step()
            schedule.step()
        schedule.observe({"val/iou": torch.tensor(score), "val/f1": torch.tensor(0.0)})
        reference.step(score)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(plain.param_groups[0]["lr"])
        if number == 31:
            saved = schedule.state_dict(), optimizer.state_dict()
            optimizer = optimizer_of()
            schedule = schedules.Plateau(optimizer, 600, **options)
            schedule.load_state_dict(saved[0])
            optimizer.load_state_dict(saved[1])
    assert schedule.reductions > 2


# --- ranges


@pytest.mark.parametrize(
    ("make", "key", "value"),
    [
        *((make, "warmup", 5) for make in (schedules.constant, schedules.cosine, schedules.Plateau)),
        (schedules.polynomial, "power", 0.0),
        (schedules.flat_then_linear, "flat_until", 1.0),
        (schedules.one_cycle, "start", 25.0),
        (schedules.multistep, "at", [80, 100, 120]),
        (schedules.multistep, "at", []),
        (schedules.multistep, "factor", 2.0),
        (schedules.Plateau, "patience", -1),
        (schedules.Plateau, "mode", "higher"),
    ],
)
def test_arguments_outside_their_range(make, key, value):
    with user_error("invalid_value", key, value):
        validate_arguments(make, {key: value}, "schedule", strict=True)


def test_a_schedule_that_is_refused_leaves_nothing(sn6_run, tmp_path):
    assert_fails(sn6_run(*small_run(), "schedule=cosine", "schedule.warmup=5"), "invalid_value", "schedule.warmup", 5)
    wrong = sn6_run(*small_run(), "data.root=x", "schedule=plateau", "schedule.monitor=val/f2")
    assert_fails(wrong, "unknown_value", "schedule.monitor", "val/f2")
    assert list(tmp_path.iterdir()) == []
