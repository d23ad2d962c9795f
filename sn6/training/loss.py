"""Make the loss of a run: one of ours, a user's own of the same form, or any module that takes logits and target."""

import copy
import inspect
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32
from omegaconf import DictConfig
from torch import Tensor, nn

from sn6.config.targets import make_object
from sn6.datasets.layout import PIXEL
from sn6.errors import UserError, locate_error
from sn6.segmenter import targets_of
from sn6.targets.target import Target, TileLabels, tile_layers

SIZE = 64  # pixels, edge length of the samples on which a loss is tried
LOGIT = 2.0
ADVICE = "choose one that takes the logits of one class, such as torch.nn.BCEWithLogitsLoss"


class PixelLoss(nn.Module):
    """Call a module on each sample's valid pixels, as `module(logits (1, k, n), target (1, 1, n))` in float32.

    The loss of a sample is the mean of what the module returns, and 0, with gradient 0, where no pixel is valid.

    Args:
        module: such as torch.nn.BCEWithLogitsLoss()
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(
        self, logits: Float[Tensor, "b k h w"], target: Float[Tensor, "b 1 h w"], valid: Bool[Tensor, "b 1 h w"]
    ) -> Float[Tensor, " b"]:
        with torch.autocast(logits.device.type, enabled=False):
            return torch.stack([self.of_sample(*sample) for sample in zip(logits, target, valid, strict=True)])

    def of_sample(
        self, logits: Float[Tensor, "k h w"], target: Float[Tensor, "1 h w"], valid: Bool[Tensor, "1 h w"]
    ) -> Float[Tensor, ""]:
        """Return the loss of one sample."""
        logits, target = (pixels[:, valid[0]].float()[None] for pixels in (logits, target))
        if not target.numel():
            return logits.sum()  # of no pixel: 0, and every parameter still has a gradient, which DDP waits for
        return self.module(logits, target).mean()


def make_loss(node: DictConfig) -> nn.Module:
    """Make the loss of a config, see `as_loss`."""
    return as_loss(make_object(node, "loss"), str(node["_target_"]))


def as_loss(module: object, name: str) -> nn.Module:
    """Return a loss that gives one value per sample: `loss(logits, target, valid, **maps) → (b,)`.

    A module whose `forward` has a parameter `valid` has this form; any other one is adapted.

    Args:
        module: the loss
        name: of its class, for messages

    Raises:
        UserError: it is no module, or not a loss of the logits of one class
    """
    if not isinstance(module, nn.Module):
        raise wrong_loss(name, f"is a {type(module).__name__}, but a loss must be a torch.nn.Module")
    loss = module if "valid" in inspect.signature(module.forward).parameters else PixelLoss(module)
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            problem = problem_of(copy.deepcopy(loss))
    except UserError:
        raise
    except Exception as error:
        problem = f"fails for the logits and the mask of a small example ({locate_error(error)}); "
        problem += ADVICE if loss is not module else "correct the class or its arguments"
    if problem:
        raise wrong_loss(name, problem)
    return loss


def wrong_loss(name: str, problem: str) -> UserError:
    """Return the error of a loss that cannot be trained."""
    return UserError(f"loss._target_={name} {problem}", kind="invalid_value", key="loss._target_", value=name)


def problem_of(loss: nn.Module) -> str | None:
    """Try a loss on two samples with buildings and one without a valid pixel; return what is wrong with it."""
    instances = np.zeros((SIZE, SIZE), np.int32)
    instances[8:30, 8:30], instances[12:40, 34:60] = 1, 2
    maps = {name: batch_of(pixels) for name, pixels in example_maps(targets_of(loss), instances).items()}
    target = batch_of(torch.from_numpy((instances > 0).astype(np.float32))[None])
    valid = torch.ones_like(target, dtype=torch.bool)
    valid[2] = False
    right = LOGIT * (2 * target - 1)
    of_right = loss(right, target, valid, **maps)
    if not isinstance(of_right, Tensor) or of_right.shape != (len(target),):
        returned = tuple(of_right.shape) if isinstance(of_right, Tensor) else type(of_right).__name__
        return f"returned {returned} for {len(target)} samples; it must return one value per sample, of shape (b,)"
    for number, name in enumerate(("background", "buildings")):
        logits = torch.where(target == number, -right, right).requires_grad_()
        of_wrong = loss(logits, target, valid, **maps)
        values = [float(losses[0]) for losses in (of_wrong.detach(), of_right.detach())]
        if not math.isfinite(sum(values)) or values[1] >= values[0]:
            return (
                f"gives {values[0]:.4g} for wrong logits of {name} and {values[1]:.4g} for right ones, which must be "
                f"lower; {ADVICE}"
            )
        gradient = torch.autograd.grad(of_wrong.sum(), logits)[0] if of_wrong.requires_grad else torch.zeros(3)
        if not torch.isfinite(of_wrong[2]) or not torch.isfinite(gradient[2]).all():
            return "is not finite for a sample without a valid pixel; divide by valid.sum(...).clamp(min=1)"
        if not torch.isfinite(gradient).all() or not gradient[:2].any():
            return f"has no gradient, or one that is not finite; {ADVICE}"
    return None


def batch_of(pixels: Float[Tensor, "1 h w"]) -> Float[Tensor, "3 1 h w"]:
    """Return three samples: the pixels, transposed, and as they are."""
    return torch.stack([pixels, pixels.mT, pixels])


def example_maps(targets: Any, instances: Int32[np.ndarray, "h w"]) -> dict[str, Float[Tensor, "1 h w"]]:
    """Compute the maps of a loss's targets from instances, with NumPy as from GeoTIFFs and with torch as from a store.

    Raises:
        UserError: `targets` is no dict of targets, or they do not give the same map in both ways
    """
    if not isinstance(targets, Mapping) or not all(isinstance(target, Target) for target in targets.values()):
        message = "loss: targets must be a dict of names and objects of sn6.targets.target.Target"
        raise UserError(message, kind="invalid_value", key="loss._target_")
    mask = (instances > 0).astype(np.float32)[None]
    labels = TileLabels(instances, np.ones(instances.shape, dtype=bool), np.full(instances.max() + 1, 10.0), PIXEL)
    layers, maps = tile_layers(targets, labels), {}
    for name, target in targets.items():
        array = target.crop(layers[name], mask, float(mask.mean()))
        pixels = target.crop(torch.from_numpy(layers[name]), torch.from_numpy(mask), float(mask.mean()))
        is_same = isinstance(pixels, Tensor) and np.shape(array) == pixels.shape == mask.shape
        if not is_same or not np.allclose(array, pixels, rtol=1e-5, equal_nan=True):
            raise UserError(
                f"target {name}: {type(target).__name__}.crop must return the layer's shape (1, h, w), an array for "
                "arrays and a tensor for tensors, with the same values",
                kind="mismatch",
                key=name,
            )
        maps[name] = pixels.float()
    return maps
