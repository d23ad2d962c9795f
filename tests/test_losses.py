"""Compare the losses with values by hand and with their formulas in double precision."""

import math

import numpy as np
import pytest
import torch
from helpers.errors import user_error
from helpers.labels import labels_of

from sn6.cli import validate_arguments
from sn6.heads import targets_of
from sn6.losses import BCE, BCEDice, FocalDice, Lovasz, WeightedBoundary

LOSSES = [
    *(BCE(), BCE(positive_weight=3.0), WeightedBoundary(), FocalDice(), FocalDice(gamma=0.5)),
    *(BCEDice(), BCEDice(bce=0.3, dice=2.0), Lovasz()),
]


def random_sample(shape=(3, 1, 11, 7), seed=0, valid_fraction=0.7):
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(shape, generator=generator)
    sample = {
        "mask": (torch.rand(shape, generator=generator) < 0.3).float(),
        "valid": torch.rand(shape, generator=generator) < valid_fraction,
        "weight": 1 + 5 * torch.rand(shape, generator=generator),
    }
    return logits, sample


def all_valid(mask, **others):
    """Return a batch of one sample whose pixels are all valid."""
    mask = torch.tensor(mask).float()[None, None]
    return {"mask": mask, "valid": torch.ones_like(mask, dtype=torch.bool), **others}


def losses_of(loss, logits, sample):
    """Return the loss of each sample."""
    maps = {name: sample[name] for name in targets_of(loss)}
    return loss(logits, sample["mask"], sample["valid"], **maps)


def value(loss, logits, sample):
    return losses_of(loss, torch.tensor(logits)[None, None], sample).item()


def test_bce_by_hand():
    sample = all_valid([[1, 0]])
    assert value(BCE(), [[0.0, 0.0]], sample) == pytest.approx(math.log(2))
    assert value(BCE(positive_weight=3.0), [[0.0, 0.0]], sample) == pytest.approx(2 * math.log(2))
    assert value(BCE(), [[math.log(3), 0.0]], sample) == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)


def test_boundary_weights_multiply_and_the_number_of_pixels_divides():
    sample = all_valid([[1, 0, 0]], weight=torch.tensor([[[[11.0, 1.0, 0.5]]]]))
    assert value(WeightedBoundary(), [[0.0, 0.0, 0.0]], sample) == pytest.approx(12.5 / 3 * math.log(2))


def test_focal_dice_by_hand():
    sample = all_valid([[1, 0]])
    dice, focal = 1 - 2 * 0.5 / (1 + 1), 0.25 * math.log(2)
    assert value(FocalDice(), [[0.0, 0.0]], sample) == pytest.approx(dice + 10 * focal, rel=1e-4)
    assert value(FocalDice(dice=0.0, focal=1.0), [[0.0, 0.0]], sample) == pytest.approx(focal)
    assert value(FocalDice(dice=1.0, focal=0.0), [[0.0, 0.0]], sample) == pytest.approx(dice, rel=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal_dice_and_its_gradient_are_equal_to_the_formulas(gamma):
    logits, sample = random_sample()
    ours, plain = logits.clone().requires_grad_(), logits.double().requires_grad_()
    losses_of(FocalDice(dice=0.7, focal=2.0, gamma=gamma, smooth=0.1), ours, sample).sum().backward()
    total = 0
    for z, y, valid in zip(plain, sample["mask"], sample["valid"], strict=True):
        p, y = torch.sigmoid(z[valid]), y[valid].double()
        p_t = p * y + (1 - p) * (1 - y)
        focal = (-((1 - p_t) ** gamma) * p_t.log()).mean()
        dice = 1 - (2 * (p * y).sum() + 0.1) / (p.sum() + y.sum() + 0.1)
        total = total + 0.7 * dice + 2.0 * focal
    total.backward()
    loss = losses_of(FocalDice(dice=0.7, focal=2.0, gamma=gamma, smooth=0.1), logits, sample).sum()
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)
    torch.testing.assert_close(ours.grad.double(), plain.grad, rtol=1e-4, atol=1e-6)


def test_bce_dice_by_hand():
    sample = all_valid([[1, 0]])
    dice = 1 - 2 * 0.5 / (1 + 1)
    assert value(BCEDice(), [[0.0, 0.0]], sample) == pytest.approx(math.log(2) + dice, rel=1e-4)
    assert value(BCEDice(bce=2.0, dice=0.0), [[0.0, 0.0]], sample) == pytest.approx(2 * math.log(2))
    assert value(BCEDice(smooth=1.0), [[0.0, 0.0]], sample) == pytest.approx(math.log(2) + 1 - 2 / 3)


# --- the Lovász hinge


def jaccard_loss(wrong, mask):
    """1 - |A ∩ B| / |A ∪ B| of a mask and the prediction that is wrong at these pixels; 0 for two empty ones."""
    predicted = {pixel for pixel in range(len(mask)) if (mask[pixel] == 1) != (pixel in wrong)}
    truth = {pixel for pixel in range(len(mask)) if mask[pixel] == 1}
    return 1 - len(predicted & truth) / len(predicted | truth) if predicted | truth else 0.0


def lovasz_by_definition(logits, mask):
    """Definition 1: Σ m_π(i) · (Δ({π_1..π_i}) - Δ({π_1..π_(i-1)})), the errors m sorted from the largest."""
    errors = [max(0.0, 1 - logit * (1 if y == 1 else -1)) for logit, y in zip(logits, mask, strict=True)]
    order = sorted(range(len(mask)), key=lambda pixel: -errors[pixel])
    return sum(
        errors[pixel] * (jaccard_loss(set(order[: i + 1]), mask) - jaccard_loss(set(order[:i]), mask))
        for i, pixel in enumerate(order)
    )


def test_lovasz_by_hand():
    sample = all_valid([[1, 1, 0]])
    assert value(Lovasz(), [[2.0, 1.0, -1.0]], sample) == 0  # every margin is at least 1
    # errors 1.5, 0.5, 0 of a building, the background, a building: 1 - 1/2, then 1 - 1/3
    assert value(Lovasz(), [[-0.5, 1.0, -0.5]], sample) == pytest.approx(1.5 * 1 / 2 + 0.5 * (2 / 3 - 1 / 2))
    assert value(Lovasz(), [[-3.0, 0.5, -4.0]], all_valid([[0, 0, 0]])) == pytest.approx(1.5)  # its largest error


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 1.0])
def test_lovasz_is_equal_to_its_definition_on_valid_pixels(fraction):
    logits, sample = random_sample()
    sample["mask"] = (torch.rand(logits.shape) < fraction).float()
    values = losses_of(Lovasz(), logits, sample)
    for i, valid in enumerate(sample["valid"]):
        expected = lovasz_by_definition(logits[i][valid].tolist(), sample["mask"][i][valid].tolist())
        assert values[i].item() == pytest.approx(expected, rel=1e-5)


def test_lovasz_of_binary_predictions_is_twice_the_jaccard_loss():
    """Where the margin of a wrong pixel is 2 and that of a right one 0, the surface is 2·(1 - Jaccard)."""
    for seed in range(5):
        logits, sample = random_sample(seed=seed)
        binary = torch.where(logits > 0, 1.0, -1.0)
        values = losses_of(Lovasz(), binary, sample)
        for i, valid in enumerate(sample["valid"]):
            predicted, truth = binary[i][valid] > 0, sample["mask"][i][valid] > 0
            jaccard = (predicted & truth).sum() / (predicted | truth).sum()
            torch.testing.assert_close(values[i], 2 * (1 - jaccard))


def test_lovasz_is_convex_and_its_gradient_that_of_its_values():
    logits, sample = random_sample()
    others = 4 * torch.randn(logits.shape)
    middle = losses_of(Lovasz(), (logits + others) / 2, sample)
    assert (middle <= (losses_of(Lovasz(), logits, sample) + losses_of(Lovasz(), others, sample)) / 2 + 1e-6).all()
    logits.requires_grad_()
    losses_of(Lovasz(), logits, sample).sum().backward()
    direction, step = torch.randn(logits.shape), 1e-3
    ends = [losses_of(Lovasz(), logits.detach() + sign * step * direction, sample).sum() for sign in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step)
    assert slope.item() == pytest.approx((logits.grad * direction).sum().item(), rel=2e-2)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_large_logits_stay_finite(loss):
    logits = torch.tensor([[[[1e4, -1e4, 1e4, -1e4, 90.0, -90.0]]]], requires_grad=True)
    sample = all_valid([[1, 0, 0, 1, 1, 0]], weight=torch.ones(1, 1, 1, 6))
    losses_of(loss, logits, sample).sum().backward()
    assert torch.isfinite(losses_of(loss, logits, sample)).all()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[..., [2, 3]].sign() == torch.tensor([1, -1])).all()  # the gradient points to the right class


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_nodata_affects_neither_value_nor_gradient(loss):
    logits, sample = random_sample()
    corrupted = {"mask": sample["mask"].clone(), "weight": sample["weight"].clone(), "valid": sample["valid"]}
    bad = logits.clone()
    for tensor in (bad, corrupted["mask"], corrupted["weight"]):
        holes = torch.where(~sample["valid"])
        tensor[holes] = torch.tensor([math.nan, math.inf, -math.inf]).repeat(len(holes[0]))[: len(holes[0])]
    bad.requires_grad_()
    values = losses_of(loss, bad, corrupted)
    values.sum().backward()
    for i, valid in enumerate(sample["valid"]):
        row = {key: tensor[i][valid][None, None, None] for key, tensor in sample.items()}
        only_valid = losses_of(loss, logits[i][valid][None, None, None], row)
        torch.testing.assert_close(values[i : i + 1], only_valid)
    assert (bad.grad[~sample["valid"]] == 0).all()
    assert torch.isfinite(bad.grad).all()
    assert (bad.grad[sample["valid"]] != 0).any()


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_a_sample_without_a_valid_pixel_has_loss_and_gradient_0(loss):
    logits, sample = random_sample()
    sample["valid"][1] = False
    logits[1] = math.nan
    logits.requires_grad_()
    values = losses_of(loss, logits, sample)
    values.sum().backward()
    assert values[1] == 0
    assert (logits.grad[1] == 0).all()
    assert (values[[0, 2]] > 0).all()


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_a_samples_loss_does_not_depend_on_its_batch(loss):
    """Therefore the mean over samples is the same on one rank and on two."""
    logits, sample = random_sample()
    single = [losses_of(loss, logits[i : i + 1], {k: v[i : i + 1] for k, v in sample.items()}) for i in range(3)]
    torch.testing.assert_close(losses_of(loss, logits, sample), torch.cat(single))


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_half_precision_logits_are_summed_in_float32(loss):
    """The sum of 300×300 ones overflows float16; bfloat16 cannot count past 256."""
    logits, sample = random_sample((1, 1, 300, 300))
    with torch.autocast("cpu", torch.bfloat16):
        half = losses_of(loss, logits.bfloat16(), sample)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, losses_of(loss, logits.bfloat16().float(), sample))


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_several_classes_are_refused(loss):
    _, sample = random_sample()
    with user_error("invalid_value", "model.classes", 2):
        losses_of(loss, torch.zeros(3, 2, 11, 7), sample)


def test_only_the_boundary_loss_uses_weights():
    assert not targets_of(BCE())
    assert not targets_of(FocalDice())
    instances = np.zeros((1, 5), np.int32)
    instances[0, [0, 4]] = [1, 2]  # d1 + d2 is 4 at every pixel
    mask = (instances > 0).astype(np.float32)
    (target,) = WeightedBoundary(w0=8.0, sigma=1.0).targets.values()
    weights = target.crop(target.tile(labels_of(instances)), mask[None], building_fraction=0.25)
    background, building = 0.5 / 0.75, 0.5 / 0.25
    expected = 8 * math.exp(-(4**2) / (2 * 2**2)) + np.array([building, background, background, background, building])
    np.testing.assert_allclose(weights[0, 0], expected, rtol=1e-6)


def test_a_loss_has_no_tensors_in_a_checkpoint():
    assert not any(loss.state_dict() for loss in LOSSES)


def test_options_are_checked_by_their_types():
    assert validate_arguments(WeightedBoundary, {"w0": 10, "sigma": "2"}, "loss") == {"w0": 10.0, "sigma": 2.0}
    with user_error("invalid_value", "sigma", 0):
        validate_arguments(WeightedBoundary, {"sigma": 0}, "loss")
