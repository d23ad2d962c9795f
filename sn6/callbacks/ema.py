"""Average the weights over the steps of a training."""

from typing import Annotated, Any, ClassVar

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from pydantic import Field
from torch import Tensor


class EMA(WeightAveraging):
    """Keep an exponential moving average of the weights, and use it wherever a network is used.

    The average is what validations score, `best.ckpt` and `weights.safetensors` hold, and later stages and predictions
    start from; the weights that are trained are beside it in the checkpoints, so that a run resumes exactly. After the
    first step the average is the weights; after step n + 1 it is d·average + (1 - d)·weights, with
    d = min(decay, (1 + n) / (10 + n)), so that it forgets the first steps of a short run too. Buffers are averaged like
    weights (the running statistics of a batch norm), those of whole numbers are copied.

    This is Lightning's callback with another average, which is on the GPU of the weights from the start, and which is
    left alone after the training: Lightning would exchange it with the weights of any checkpoint that is validated.

    Args:
        decay: d after many steps; about 1 / (1 - decay) steps are averaged. None leaves the callback out
    """

    switch: ClassVar = "decay"  # whose None leaves the callback out

    def __init__(self, decay: Annotated[float, Field(gt=0, lt=1)] | None = None) -> None:
        super().__init__(multi_avg_fn=self.average)
        self.decay = decay

    def average(self, averages: list[Tensor], weights: list[Tensor], number: Tensor) -> None:
        """Move the averages towards the weights; all are of one type.

        Args:
            averages: changed in place
            weights: after the step
            number: of steps that are averaged, on the device of the weights
        """
        if not averages[0].is_floating_point():
            torch._foreach_copy_(averages, weights)
            return
        assert self._average_model is not None
        assert self.decay is not None
        steps = int(self._average_model.n_averaged)  # on the CPU: to read `number` would wait for a GPU
        decay = min(self.decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(averages, weights, 1 - decay)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the average to the device of the weights, and start it from those that other callbacks have loaded."""
        assert self._average_model is not None
        self._average_model.module.to(pl_module.device)
        if self._average_model.n_averaged == 0:
            self._average_model.module.load_state_dict(pl_module.state_dict())

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Load weights and average of a training; elsewhere a checkpoint's weights are the average already."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the network, also where a resumed training had no step left."""
        self._copy_average_to_current(pl_module)
        self._average_model = None
