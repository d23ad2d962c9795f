"""One training step of sn6.run: against the challenge baseline's network in plain torch.

Forward, loss, backward and AdamW. On a GPU 16 crops of 512 pixels, with and without compile, and the memory.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from benchmarks.comparison import Implementation, NotRun, Row, medians, require
from benchmarks.process import own_process
from benchmarks.unet11 import UNet11, baseline_loss, with_weights_of, without_tf32
from sn6.heads import mask_head
from sn6.losses import FocalDice
from sn6.models.fcn import FCN8s
from sn6.models.logits import fastest_format
from sn6.models.ternausnet import TernausNet
from sn6.models.unet import UNet
from sn6.prediction.trained_network import HALF_DTYPES
from sn6.processes import keep_freed_memory
from sn6.schedules import constant
from sn6.segmenter import Segmenter
from sn6.training.devices import fastest_precision

LR, WEIGHT_DECAY = 1e-4, 0.01  # of the challenge's baseline
GPU_STEP = 16 / 640  # s: 640 crops per second are half of what an H200's arithmetic allows
LOGIT_TOLERANCE, LOSS_TOLERANCE = 1e-4, 0.02  # relative: in float32, and of the loss after a step in bfloat16
NETWORKS: dict[str, Callable[..., nn.Module]] = {"TernausNet": TernausNet, "U-Net": UNet, "FCN-8s": FCN8s}
UNET11, SMP = "UNet11 in float32", "smp's Unet in float32"
Batch = dict[str, Tensor]
BatchShape = tuple[int, int, str]  # crops, their edge length in pixels, device


def rows(crops: int = 2, size: int = 256, width: int = 64, repeats: int = 5) -> Iterator[Row | NotRun]:
    """Yield rows for the CPU, and for a GPU if there is one."""
    yield from on_device((crops, size, "cpu"), width, repeats, min_ratio=2.2)
    if torch.cuda.is_available():
        yield from on_device((16, 512, "cuda"), width, 4 * repeats, max_ours=GPU_STEP)
        yield from compiled_and_memory(batch_of(16, 512, "cuda"), width, 4 * repeats)
    else:
        yield NotRun("training step on a GPU", "no GPU is available")


def batch_of(crops: int, size: int, device: str) -> Batch:
    """Draw noise that is brighter on buildings."""
    torch.manual_seed(0)
    mask = (nn.functional.avg_pool2d(torch.randn(crops, 1, size, size), 15, stride=1, padding=7) > 0.07).float()
    image = torch.randn(crops, 4, size, size) + mask
    batch = {"image": image, "mask": mask, "valid": torch.ones_like(mask, dtype=torch.bool)}
    return {name: one.to(device) for name, one in batch.items()}


def on_device(
    shape: BatchShape, width: int, repeats: int, min_ratio: float | None = None, max_ours: float | None = None
) -> Iterator[Row | NotRun]:
    """Compare TernausNet with the baseline's network and smp's, and the other networks with themselves in float32."""
    crops, size, device = shape
    precision = fastest_precision(device)
    inputs = f"{crops} crops of {size}, {device}"
    agreement = check_agreement(width, batch_of(*shape), precision)
    pairs = [("TernausNet", UNET11)]
    if find_spec("segmentation_models_pytorch") is None:
        yield NotRun("training step, smp", "segmentation_models_pytorch is not installed")
    else:
        pairs.append(("TernausNet", SMP))
    pairs += [("U-Net", "U-Net"), ("FCN-8s", "FCN-8s")]
    with own_process(keep_freed_memory) as ours, own_process() as theirs:
        for name, peer in pairs:
            steps = {
                "ours": ours(make_sn6_step, name, width, *shape),
                "theirs": theirs(make_plain_step, peer, width, *shape),
            }
            seconds = medians(steps, repeats)
            path, title = f"training step, {name}, {precision}", "the same in float32" if name == peer else peer
            row = Row(path, inputs, seconds["ours"], title, seconds["theirs"], "not compared")
            if peer == UNET11:
                row = replace(row, agreement=agreement, min_ratio=min_ratio, max_ours=max_ours)
            yield row


def make_sn6_step(name: str, width: int, crops: int, size: int, device: str) -> Implementation:
    """Return a step of sn6.run."""
    batch = batch_of(crops, size, device)
    return sn6_step(NETWORKS[name](4, 1, width).to(device), batch, fastest_precision(device))


def make_plain_step(name: str, width: int, crops: int, size: int, device: str) -> Implementation:
    """Return a step of a plain loop."""
    batch = batch_of(crops, size, device)
    network = smp_unet() if name == SMP else UNet11(4, width) if name == UNET11 else NETWORKS[name](4, 1, width)
    return plain_step(network.to(device), batch)


def smp_unet() -> nn.Module:
    """Return smp's U-Net with the same encoder, whose decoder is smaller."""
    from segmentation_models_pytorch import Unet

    return Unet("vgg11", encoder_weights=None, in_channels=4)


def compiled_and_memory(batch: Batch, width: int, repeats: int) -> Iterator[Row]:
    """Measure compile=true on a GPU, and the peak memory of a step."""
    precision, inputs = fastest_precision("cuda"), f"{len(batch['image'])} crops of {batch['image'].shape[-1]}, cuda"
    network = TernausNet(4, 1, width).cuda()
    peer, compiled = with_weights_of(network, width), copy.deepcopy(network)
    compiled.compile()
    steps = {"ours": sn6_step(compiled, batch, precision), "plain": sn6_step(network, batch, precision)}
    seconds = medians(steps, repeats)
    speed = f"{len(batch['image']) / seconds['ours']:.0f} crops/s"
    yield Row("training step, compiled", inputs, seconds["ours"], "not compiled", seconds["plain"], speed)
    peaks = []
    for step in (steps["plain"], plain_step(peer, batch)):
        torch.cuda.reset_peak_memory_stats()
        step()
        peaks.append(torch.cuda.max_memory_allocated())
    yield Row("training step, memory", inputs, peaks[0], UNET11, peaks[1], "as for the step", unit="bytes")


def check_agreement(width: int, batch: Batch, precision: str) -> str:
    """Check that both networks give the same logits, and the same loss after a step each, and say how well.

    Raises:
        Mismatch: they differ
    """
    network = TernausNet(4, 1, width).to(batch["image"].device)
    peer = with_weights_of(network, width)
    with torch.no_grad(), without_tf32():
        ours, theirs = network(batch["image"]), peer(batch["image"])
    difference = float((ours - theirs).abs().max() / theirs.abs().max())
    require(
        difference < LOGIT_TOLERANCE,
        f"training step: the logits of TernausNet and UNet11 differ by {difference:.2g} of the largest",
    )
    sn6_step(network, batch, precision)()
    plain_step(peer, batch)()
    with torch.no_grad():
        losses = [float(baseline_loss(one(batch["image"]), batch["mask"])) for one in (network, peer)]
    difference = abs(losses[0] / losses[1] - 1)
    require(
        difference < LOSS_TOLERANCE,
        f"training step: the losses after it are {losses[0]:.4f} and {losses[1]:.4f}",
    )
    return f"float32 logits to 1e-4, loss after a step to {difference:.1%}"


def sn6_step(network: nn.Module, batch: Batch, precision: str) -> Implementation:
    """Return a step as sn6.run does it: the fastest memory format, autocast, fused AdamW."""
    adamw = partial(torch.optim.AdamW, lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    network.to(memory_format=fastest_format(batch["image"].device, trains=True))
    segmenter = Segmenter(network, mask_head(FocalDice()), adamw, constant)
    optimizer = segmenter.optimizer(segmenter.parameter_groups())
    device, half = batch["image"].device.type, HALF_DTYPES.get(precision)

    def step() -> None:
        with torch.autocast(device, dtype=half, enabled=half is not None):
            loss = segmenter.losses(segmenter(batch["image"]), batch)["mask"].mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        finish(device)

    return step


def plain_step(network: nn.Module, batch: Batch) -> Implementation:
    """Return a step of a plain loop in float32, with the baseline's loss."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)

    def step() -> None:
        optimizer.zero_grad()
        baseline_loss(network(batch["image"]), batch["mask"]).backward()
        optimizer.step()
        finish(batch["image"].device.type)

    return step


def finish(device: str) -> None:
    """Wait for a GPU, which computes asynchronously."""
    if device == "cuda":
        torch.cuda.synchronize()
