"""The LightningModule: a network, its heads with their losses, its optimizer and its schedule."""

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from sn6.errors import UserError, first_line
from sn6.heads import Head, HeadLosses
from sn6.models.logits import compute_outputs, fastest_format
from sn6.models.sliding_window import predict_windows
from sn6.schedules import Plateau
from sn6.targets.target import FLIP

CHECK_EVERY = 50  # steps between two looks at whether the loss is finite, on a GPU
NEVER = 2**62  # the first step with a loss that is not finite, while there is none


class Segmenter(LightningModule):
    """Train a network that gives the outputs of its heads for every pixel.

    Args:
        network: see `sn6.models.logits.compute_outputs`
        heads: by name
        optimizer: parameters → optimizer
        schedule: (optimizer, steps of the whole run) → learning rate schedule, see `sn6.schedules`
        seed: of the run; dropout is a function of (seed, epoch, batch, rank) alone
        window: pixels; whole tiles are predicted in windows of this size, None predicts them at once
        window_overlap: pixels; overlap of neighbouring windows
        flips: whole tiles are predicted as the mean of the outputs for a tile and its left-right flip
        multiple: pixels; images are padded to multiples of it
        building_class: channel of building where the network gives several
        config: of the run, plain values, saved in the checkpoint
    """

    broken_step: Tensor

    def __init__(
        self,
        network: nn.Module,
        heads: Mapping[str, Head],
        optimizer: Callable[..., Optimizer],
        schedule: Callable[[Optimizer, int], LambdaLR],
        seed: int = 0,
        window: int | None = None,
        window_overlap: int = 128,
        multiple: int = 1,
        building_class: int | None = None,
        flips: bool = False,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.losses = HeadLosses(heads)
        self.optimizer = optimizer
        self.schedule = schedule
        self.seed = seed
        self.encoder_lr = 1.0  # factor on the encoder's learning rate, which SARHandoff may lower
        self.window = window
        self.window_overlap = window_overlap
        self.flips = flips
        self.multiple = multiple
        self.building_class = building_class
        # plain values: read back without unpickling
        self.save_hyperparameters({"config": config or {}}, logger=False)
        self.register_buffer("broken_step", torch.tensor(NEVER), persistent=False)

    def setup(self, stage: str) -> None:
        """Order the weights in memory as the device computes fastest with them, before DDP looks at their order."""
        device = self.trainer.strategy.root_device
        self.network.to(memory_format=fastest_format(device, trains=stage == "fit"))

    def forward(self, image: Float[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b _ h w"]]:
        """Return the outputs of each head before its activation, at the size of `image`."""
        return self.losses.heads.split(self.outputs(image))

    def outputs(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b _ h w"]:
        """Return the outputs of all heads in one tensor."""
        channels = self.losses.heads.channels
        return compute_outputs(self.network, image, self.multiple, channels, self.building_class)

    def averaged_outputs(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b _ h w"]:
        """Return the outputs of all heads in float32, with `flips` the mean with those of the flipped image."""
        outputs = self.outputs(image).float()
        if not self.flips:
            return outputs
        of_flipped = self.outputs(image.flip(-1)).float().flip(-1)
        return (outputs + self.losses.heads.transform(of_flipped, FLIP)) / 2

    def on_train_batch_start(self, batch: dict[str, Any], batch_index: int) -> None:
        """Seed each step by itself, so that a resumed run draws what one that never stopped would draw."""
        state = np.random.SeedSequence([self.seed, self.current_epoch, batch_index, self.global_rank])
        (seed,) = state.generate_state(1).tolist()
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        """Return the mean of the samples' losses, each the weighted sum of the heads' losses."""
        by_head = self.losses(self(batch["image"]), batch)
        loss = self.losses.weighted_sum(by_head).mean()
        broken = torch.where(torch.isfinite(loss), NEVER, self.global_step)
        self.broken_step = torch.minimum(self.broken_step, broken)
        # reading a value waits for the device, so it is not done at every step
        if loss.device.type == "cpu" or batch_index % CHECK_EVERY == 0:
            self.stop_if_broken()
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch["image"]), sync_dist=True)
        if len(by_head) > 1:
            means = {f"train/loss_{name}": losses.detach().mean() for name, losses in by_head.items()}
            self.log_dict(means, batch_size=len(batch["image"]), sync_dist=True)
        return loss

    def on_validation_start(self) -> None:
        """Check the loss, so that no broken network is scored or saved."""
        self.stop_if_broken()

    def stop_if_broken(self) -> None:
        """Raise a UserError if the loss was NaN or infinite, with the first such step."""
        step = int(self.broken_step)
        if step < NEVER:
            raise UserError(
                f"the loss became NaN or infinite at step {step} (epoch {self.current_epoch}); lower optimizer.lr, "
                "set trainer.gradient_clip_val=1, or use trainer.precision=32-true",
                kind="failed",
                key="optimizer.lr",
            )

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> dict[str, Any]:
        """Return `maps`, head → (b, k, h, w) in float32, and the samples' `losses (b,)`, in sum and by head.

        Whole tiles have other sizes than the training crops: to compile the network again takes longer than it saves.
        """
        with torch.compiler.set_stance("force_eager"):
            if self.window is None:
                outputs = self.averaged_outputs(batch["image"])
            else:
                outputs = predict_windows(self.averaged_outputs, batch["image"], self.window, self.window_overlap)
        heads = self.losses.heads
        by_head = heads.split(outputs)
        losses = self.losses(by_head, batch)
        return {"maps": heads.activate(by_head), "losses": self.losses.weighted_sum(losses), "losses_by_head": losses}

    def on_validation_epoch_end(self) -> None:
        """Let a schedule observe the score, which the callbacks have logged, before a checkpoint keeps its state."""
        is_of_training = self.trainer.state.fn is TrainerFn.FITTING and not self.trainer.sanity_checking
        if is_of_training and isinstance(schedule := self.lr_schedulers(), Plateau):
            schedule.observe(self.trainer.callback_metrics)

    def test_step(self, batch: dict[str, Any], batch_index: int) -> dict[str, Any]:
        """Return the same as in validation."""
        return self.validation_step(batch, batch_index)

    def predict_step(self, batch: dict[str, Any], batch_index: int) -> dict[str, Any]:
        """Return the same as in validation."""
        return self.validation_step(batch, batch_index)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimizer, with its schedule stepped after every step."""
        try:
            optimizer = self.optimizer(self.parameter_groups())
        except ValueError as error:  # such as a negative learning rate
            raise UserError(f"optimizer: {first_line(error)}", kind="invalid_value", key="optimizer") from None
        trainer: Any = self.trainer  # Lightning sets its datamodule without declaring it
        if trainer.gradient_clip_val:  # a fused optimizer would unscale 16-bit gradients after they are clipped
            optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
        schedule = self.schedule(optimizer, steps_of(trainer, trainer.datamodule.batches_per_epoch))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return all parameters, or the rest and the encoder where it has its own learning rate."""
        if self.encoder_lr == 1.0:
            return [{"params": list(self.parameters())}]
        encoder = list(self.network.get_submodule("encoder").parameters())
        of_encoder = {id(parameter) for parameter in encoder}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in of_encoder]
        lr = self.optimizer([nn.Parameter(torch.empty(1))]).defaults["lr"]  # of the config
        return [{"params": rest}, {"params": encoder, "lr": lr * self.encoder_lr}]


def steps_of(trainer: Any, batches: int) -> int:
    """Return the optimizer steps of the whole run, without making the loaders before a checkpoint is loaded.

    Args:
        trainer: with its limits
        batches: of an epoch without a limit
    """
    limit = trainer.limit_train_batches
    batches = min(limit, batches) if isinstance(limit, int) else int(limit * batches)
    steps = -(-batches // trainer.accumulate_grad_batches) * (trainer.max_epochs or 1)
    if trainer.max_steps < 0:
        return steps
    return trainer.max_steps if trainer.max_epochs in (None, -1) else min(steps, trainer.max_steps)
