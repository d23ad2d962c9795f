"""Learning rate schedules: functions of (optimizer, steps of the whole run), stepped after every optimizer step.

Each returns a factor of the optimizer's learning rate for every step. Lengths are fractions of all steps, so that a
schedule keeps its form when a run is made longer. A new schedule is one function here, or in a file of your own, and
one file in conf/schedule.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Fraction = Annotated[float, Field(ge=0, lt=1)]  # of all steps
Factor = Annotated[float, Field(gt=0, lt=1)]  # of the learning rate


def constant(optimizer: Optimizer, steps: int, warmup: Fraction = 0.0) -> LambdaLR:
    """Keep the learning rate constant, after a linear rise over the first `warmup` fraction of `steps`."""
    return LambdaLR(optimizer, lambda step: rise(step, steps, warmup))


def cosine(optimizer: Optimizer, steps: int, warmup: Fraction = 0.05) -> LambdaLR:
    """Follow half a cosine from 1 to 0 after the rise (Loshchilov, Hutter 2017, equation 5, without restarts)."""

    def factor(step: int) -> float:
        return rise(step, steps, warmup) * half_cosine(passed(step, steps, warmup))

    return LambdaLR(optimizer, factor)


def polynomial(optimizer: Optimizer, steps: int, warmup: Fraction = 0.05, power: PositiveFloat = 0.9) -> LambdaLR:
    """Fall as (1 - t)^power to 0 after the rise (Chen et al. 2018, DeepLab, section 4.1.2, `poly`)."""

    def factor(step: int) -> float:
        return rise(step, steps, warmup) * (1 - passed(step, steps, warmup)) ** power

    return LambdaLR(optimizer, factor)


def flat_then_linear(optimizer: Optimizer, steps: int, warmup: Fraction = 0.05, flat_until: Fraction = 0.7) -> LambdaLR:
    """Keep the learning rate constant after the rise, and let it fall linearly to 0 from `flat_until` on.

    Source: Zhai et al. 2022 (Scaling Vision Transformers), section 3.5: a warm-up, a constant part that can be made
    longer, and a cooldown.
    """

    def factor(step: int) -> float:
        return rise(step, steps, warmup) * (1 - passed(step, steps, flat_until))

    return LambdaLR(optimizer, factor)


def one_cycle(
    optimizer: Optimizer, steps: int, warmup: Fraction = 0.3, start: Factor = 0.04, end: Factor = 4e-6
) -> LambdaLR:
    """Rise from `start` to 1 over the first `warmup` fraction, then fall to `end`, both as half a cosine.

    Source: Smith, Topin 2018 (Super-Convergence), in the form of fastai and of `torch.optim.lr_scheduler.OneCycleLR`;
    the momentum stays as it is.
    """
    top, last = max(warmup * steps - 1, 0), max(steps - 1, 1)

    def factor(step: int) -> float:
        if step < top:
            return 1 + (start - 1) * half_cosine(step / top)
        return end + (1 - end) * half_cosine(min((step - top) / (last - top), 1))

    return LambdaLR(optimizer, factor)


def multistep(
    optimizer: Optimizer,
    steps: int,
    at: Annotated[list[Fraction], Field(min_length=1)],
    factor: Factor = 0.5,
    warmup: Fraction = 0.0,
) -> LambdaLR:
    """Multiply the learning rate by `factor` at each of the fractions `at`, after the rise."""
    milestones = [round(fraction * steps) for fraction in at]

    def at_step(step: int) -> float:
        return rise(step, steps, warmup) * factor ** sum(step >= milestone for milestone in milestones)

    return LambdaLR(optimizer, at_step)


class Plateau(LambdaLR):
    """Multiply the learning rate by `factor` when more than `patience` validations in a row bring no better score.

    Other than torch's ReduceLROnPlateau it has a warm-up, is stepped after every optimizer step like all schedules, and
    any better score counts. The segmenter calls `observe` after each validation of the training. What it has seen is
    part of its state, so that a resumed run gives the same values.

    Args:
        optimizer: whose learning rate is set
        steps: of the whole run, for the warm-up
        monitor: logged score that is observed
        mode: whether a higher score is better (max) or a lower one
        factor: of each reduction
        patience: validations without a better score before a reduction
        warmup: fraction of all steps
    """

    def __init__(
        self,
        optimizer: Optimizer,
        steps: int,
        monitor: str = "val/f1",
        mode: Literal["max", "min"] = "max",
        factor: Factor = 0.5,
        patience: NonNegativeInt = 3,
        warmup: Fraction = 0.0,
    ) -> None:
        self.monitor, self.mode, self.patience = monitor, mode, patience
        self.best: float | None = None
        self.waited = self.reductions = 0
        super().__init__(optimizer, lambda step: rise(step, steps, warmup) * factor**self.reductions)

    def observe(self, scores: Mapping[str, Any]) -> None:
        """Compare the score of a validation with the best one, and set the learning rate.

        Args:
            scores: what was logged, by name
        """
        score = float(scores[self.monitor])
        sign = 1 if self.mode == "max" else -1
        if self.best is None or sign * score > sign * self.best:
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.waited, self.reductions = 0, self.reductions + 1
            factors = [factor(self.last_epoch) for factor in self.lr_lambdas]
            self._last_lr = [lr * factor for lr, factor in zip(self.base_lrs, factors, strict=True)]
            for group, lr in zip(self.optimizer.param_groups, self._last_lr, strict=True):
                group["lr"] = lr


def rise(step: int, steps: int, warmup: float) -> float:
    """Return the factor of the warm-up, from nearly 0 to 1 over the first `warmup` fraction of `steps`."""
    return min(1.0, (step + 1) / (warmup * steps + 1))


def passed(step: int, steps: int, since: float) -> float:
    """Return which fraction, 0 to 1, has passed of the steps after the first `since` fraction of `steps`."""
    return min(1.0, max(0.0, (step - since * steps) / max(1.0, steps * (1 - since))))


def half_cosine(t: float) -> float:
    """Return half a cosine that falls from 1 at t = 0 to 0 at t = 1."""
    return 0.5 * (1 + math.cos(math.pi * t))
