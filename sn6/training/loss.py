"""Make the loss of a head: one of ours, a user's own of the same form, or any module that takes logits and target."""

import copy
import inspect
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int32
from torch import Tensor, nn

from sn6.config.targets import make_object
from sn6.errors import UserError, locate_error
from sn6.heads import targets_of
from sn6.targets.mask import Mask
from sn6.targets.target import Target, TileLabels, tile_layers

SIZE = 64  # pixels, edge length of the samples on which a loss is tried
LOGIT = 2.0
MASK = Mask()
ADVICE = "choose one that takes the logits of one class, such as torch.nn.BCEWithLogitsLoss"


class PixelLoss(nn.Module):
    """Call a module on each sample's valid pixels, as `module(logits (1, k, n), target (1, k, n))` in float32.

    The loss of a sample is the mean of what the module returns, and 0, with gradient 0, where no pixel is valid.

    Args:
        module: such as torch.nn.BCEWithLogitsLoss()
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(
        self, logits: Float[Tensor, "b k h w"], target: Float[Tensor, "b _ h w"], valid: Bool[Tensor, "b 1 h w"]
    ) -> Float[Tensor, " b"]:
        with torch.autocast(logits.device.type, enabled=False):
            return torch.stack([self.of_sample(*sample) for sample in zip(logits, target, valid, strict=True)])

    def of_sample(
        self, logits: Float[Tensor, "k h w"], target: Float[Tensor, "_ h w"], valid: Bool[Tensor, "1 h w"]
    ) -> Float[Tensor, ""]:
        """Return the loss of one sample."""
        logits, target = (pixels[:, valid[0]].float()[None] for pixels in (logits, target))
        if not target.numel():
            return logits.sum()  # of no pixel: 0, and every parameter still has a gradient, which DDP waits for
        return self.module(logits, target).mean()


def make_loss(node: Any, target: Target, where: str) -> nn.Module:
    """Make the loss of a node of the config, see `as_loss`."""
    return as_loss(make_object(node, where), str(node["_target_"]), target, where)


def as_loss(module: object, name: str, target: Target = MASK, where: str = "loss") -> nn.Module:
    """Return a loss that gives one value per sample: `loss(logits, target, valid, **maps) → (b,)`.

    A module whose `forward` has a parameter `valid` has this form; any other one is adapted.

    Args:
        module: the loss
        name: of its class, for messages
        target: what the head learns with it
        where: node of the config, for messages

    Raises:
        UserError: it is no module, or not a loss of such a head
    """
    if not isinstance(module, nn.Module):
        raise wrong_loss(name, where, f"is a {type(module).__name__}, but a loss must be a torch.nn.Module")
    loss = module if "valid" in inspect.signature(module.forward).parameters else PixelLoss(module)
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            problem = problem_of(copy.deepcopy(loss), target)
    except UserError:
        raise
    except Exception as error:
        problem = f"fails for the logits and the target of a small example ({locate_error(error)}); "
        problem += ADVICE if loss is not module else "correct the class or its arguments"
    if problem:
        raise wrong_loss(name, where, problem)
    return loss


def wrong_loss(name: str, where: str, problem: str) -> UserError:
    """Return the error of a loss that cannot be trained."""
    key = f"{where}._target_"
    return UserError(f"{key}={name} {problem}", kind="invalid_value", key=key, value=name)


def problem_of(loss: nn.Module, target: Target) -> str | None:
    """Try a loss on two samples with buildings and one without a valid pixel; return what is wrong with it."""
    instances = np.zeros((SIZE, SIZE), np.int32)
    instances[8:30, 8:30], instances[12:40, 34:60] = 1, 2
    maps = {name: batch_of(pixels) for name, pixels in example_maps(targets_of(loss), instances).items()}
    target_maps = batch_of(example_maps({"of the head": target}, instances)["of the head"])
    unknown = torch.isnan(target_maps)
    valid = ~unknown.any(dim=1, keepdim=True)
    valid[2] = False
    target_maps = target_maps.masked_fill(unknown, 0)
    right, wrong = example_outputs(target, target_maps)
    of_right = loss(right, target_maps, valid, **maps)
    if not isinstance(of_right, Tensor) or of_right.shape != (len(right),):
        returned = tuple(of_right.shape) if isinstance(of_right, Tensor) else type(of_right).__name__
        return f"returned {returned} for {len(right)} samples; it must return one value per sample, of shape (b,)"
    for name, logits in wrong.items():
        logits = logits.requires_grad_()
        of_wrong = loss(logits, target_maps, valid, **maps)
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


def example_outputs(target: Target, maps: Float[Tensor, "b k h w"]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the right outputs of a head for these maps, and wrong ones: name of the wrong pixels → outputs."""
    if target.activation == "linear":
        return maps, {"all pixels, too high": maps + 1, "all pixels, too low": maps - 1}
    if target.activation == "softmax":
        right = LOGIT * F.one_hot(maps[:, 0].long(), target.outputs).movedim(-1, 1).float()
        opposite = right.roll(1, dims=1)  # those of the next class
    else:
        right = torch.logit(maps, eps=float(torch.sigmoid(torch.tensor(-LOGIT))))
        opposite = -right
    high = maps > 0.5
    wrong = {"background": torch.where(high, right, opposite), "buildings": torch.where(high, opposite, right)}
    return right, {name: outputs for name, outputs in wrong.items() if not torch.equal(outputs[0], right[0])}


def batch_of(pixels: Float[Tensor, "k h w"]) -> Float[Tensor, "3 k h w"]:
    """Return three samples: the pixels, transposed, and as they are."""
    return torch.stack([pixels, pixels.mT, pixels])


def example_maps(targets: Any, instances: Int32[np.ndarray, "h w"]) -> dict[str, Float[Tensor, "_ h w"]]:
    """Compute the maps of targets from instances.

    Raises:
        UserError: `targets` is no dict of targets, or they do not give a map of the layer's shape
    """
    if not isinstance(targets, Mapping) or not all(isinstance(target, Target) for target in targets.values()):
        message = "loss: targets must be a dict of names and objects of sn6.targets.target.Target"
        raise UserError(message, kind="invalid_value", key="loss._target_")
    mask = (instances > 0).astype(np.float32)[None]
    numbers, valid = instances.max() + 1, np.ones(instances.shape, dtype=bool)
    labels = TileLabels(instances, valid, np.full(numbers, 10.0), 0.5, np.ones(numbers, dtype=np.int64))
    layers, maps = tile_layers(targets, labels), {}
    for name, target in targets.items():
        layer = target.decode(torch.from_numpy(layers[name]))
        pixels = target.crop(layer.clone(), torch.from_numpy(mask), float(mask.mean()))
        if not isinstance(pixels, Tensor) or pixels.shape != layer.shape:
            raise UserError(
                f"target {name}: {type(target).__name__}.crop must return a tensor of the layer's shape (k, h, w)",
                kind="mismatch",
                key=name,
            )
        maps[name] = pixels.float()
    return maps
