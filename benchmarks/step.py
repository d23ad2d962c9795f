"""One training step as a user of sn6 gets it, against the challenge baseline's network in plain torch.

Forward, loss, backward and AdamW. On a GPU 16 crops of 512 pixels, with and without compile, and the memory.
"""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.comparison import NotRun, Row, Way, medians, require
from benchmarks.process import apart
from benchmarks.unet11 import UNet11, baseline_loss, with_weights_of
from sn6.losses import FocalDice
from sn6.models.fcn import FCN8s
from sn6.models.ternausnet import TernausNet
from sn6.models.unet import UNet
from sn6.prediction.ensemble import HALF_DTYPES
from sn6.processes import keep_freed_memory
from sn6.segmenter import Segmenter, constant
from sn6.training.devices import fastest_precision

OPTIMIZER = {"lr": 1e-4, "weight_decay": 0.01}  # of the challenge's baseline
GPU_STEP = 16 / 640  # s: 640 crops a second are half of what an H200's arithmetic allows
LOGITS, LOSS = 1e-4, 0.02  # how far the two may differ: float32, and after a step in bfloat16, of the loss
NETWORKS: dict[str, Callable[..., nn.Module]] = {"TernausNet": TernausNet, "U-Net": UNet, "FCN-8s": FCN8s}
UNET11, SMP = "UNet11 in float32", "smp's Unet in float32"
Batch = dict[str, Tensor]
Given = tuple[int, int, str]  # crops, their side in pixels, device


def rows(crops: int = 2, size: int = 256, width: int = 64, repeats: int = 5) -> Iterator[Row | NotRun]:
    """Rows for the CPU, and for a GPU where there is one."""
    yield from on_device((crops, size, "cpu"), width, repeats, {"ratio": 2.2})
    if torch.cuda.is_available():
        yield from on_device((16, 512, "cuda"), width, 4 * repeats, {"most": GPU_STEP})
        yield from compiled_and_memory(batch_of(16, 512, "cuda"), width, 4 * repeats)
    else:
        yield NotRun("training step on a GPU", "there is no GPU")


def batch_of(crops: int, size: int, device: str) -> Batch:
    """Noise, brighter where a building is."""
    torch.manual_seed(0)
    mask = (nn.functional.avg_pool2d(torch.randn(crops, 1, size, size), 15, stride=1, padding=7) > 0.07).float()
    image = torch.randn(crops, 4, size, size) + mask
    batch = {"image": image, "mask": mask, "valid": torch.ones_like(mask, dtype=torch.bool)}
    return {name: one.to(device) for name, one in batch.items()}


def on_device(given: Given, width: int, repeats: int, wanted: dict[str, float]) -> Iterator[Row | NotRun]:
    """TernausNet against the baseline's network and smp's, the other networks against themselves in float32."""
    crops, size, device = given
    precision = fastest_precision(device)
    path, told = f"training step, {{}} {precision}", f"{crops} crops of {size}, {device}"
    equality = agreement(width, batch_of(*given), precision)
    pairs = [("TernausNet", UNET11)]
    if find_spec("segmentation_models_pytorch") is None:
        yield NotRun("training step, smp", "segmentation_models_pytorch is not installed")
    else:
        pairs.append(("TernausNet", SMP))
    pairs += [("U-Net", "U-Net"), ("FCN-8s", "FCN-8s")]
    with apart(keep_freed_memory) as ours, apart() as theirs:
        for name, peer in pairs:
            ways = {"ours": ours(make_sn6_step, name, width, *given), "theirs": theirs(make_plain, peer, width, *given)}
            seconds = medians(ways, repeats)
            title = "the same in float32" if name == peer else peer
            compared = (equality, wanted) if peer == UNET11 else ("not compared", {})
            yield Row(path.format(name), told, seconds["ours"], title, seconds["theirs"], compared[0], **compared[1])


def make_sn6_step(name: str, width: int, *given: Any) -> Way:
    """As sn6.run has it."""
    batch = batch_of(*given)
    device = batch["image"].device
    return sn6_step(NETWORKS[name](4, 1, width).to(device), batch, fastest_precision(device.type))


def make_plain(name: str, width: int, *given: Any) -> Way:
    """As a plain loop has it."""
    batch = batch_of(*given)
    network = smp_unet() if name == SMP else UNet11(4, width) if name == UNET11 else NETWORKS[name](4, 1, width)
    return plain_step(network.to(batch["image"].device), batch)


def smp_unet() -> nn.Module:
    """Of the same encoder, with a lighter decoder."""
    from segmentation_models_pytorch import Unet

    return Unet("vgg11", encoder_weights=None, in_channels=4)


def compiled_and_memory(batch: Batch, width: int, repeats: int) -> Iterator[Row]:
    """What compile=true adds on a GPU, and the most memory of a step."""
    precision, given = fastest_precision("cuda"), f"{len(batch['image'])} crops of {batch['image'].shape[-1]}, cuda"
    network = TernausNet(4, 1, width).cuda()
    peer, compiled = with_weights_of(network, width), copy.deepcopy(network)
    compiled.compile()
    steps = {"ours": sn6_step(compiled, batch, precision), "plain": sn6_step(network, batch, precision)}
    seconds = medians(steps, repeats)
    same = f"{len(batch['image']) / seconds['ours']:.0f} crops/s"
    yield Row("training step, compiled", given, seconds["ours"], "not compiled", seconds["plain"], same)
    peaks = []
    for step in (steps["plain"], plain_step(peer, batch)):
        torch.cuda.reset_peak_memory_stats()
        step()
        peaks.append(torch.cuda.max_memory_allocated())
    yield Row("its memory", given, peaks[0], UNET11, peaks[1], "as the step's", unit="bytes")


def agreement(width: int, batch: Batch, precision: str) -> str:
    """Checks that both give the same logits, and the same loss after a step each.

    Raises:
        Mismatch: they do not
    """
    network = TernausNet(4, 1, width).to(batch["image"].device)
    peer = with_weights_of(network, width)
    with torch.no_grad():
        ours, theirs = network(batch["image"]), peer(batch["image"])
    off = float((ours - theirs).abs().max() / theirs.abs().max())
    require(off < LOGITS, f"training step: the logits of TernausNet and UNet11 differ by {off:.2g} of the largest")
    sn6_step(network, batch, precision)()
    plain_step(peer, batch)()
    with torch.no_grad():
        losses = [float(baseline_loss(one(batch["image"]), batch["mask"])) for one in (network, peer)]
    apart = abs(losses[0] / losses[1] - 1)
    require(apart < LOSS, f"training step: after it the losses are {losses[0]:.4f} and {losses[1]:.4f}")
    return f"float32 logits to 1e-4, loss after a step to {apart:.1%}"


def sn6_step(network: nn.Module, batch: Batch, precision: str) -> Way:
    """A step of sn6.run: channels_last, autocast, fused AdamW."""
    segmenter = Segmenter(network, FocalDice(), partial(torch.optim.AdamW, **OPTIMIZER, fused=True), constant)
    optimizer = segmenter.optimizer(segmenter.parameter_groups())
    device, half = batch["image"].device.type, HALF_DTYPES.get(precision)

    def step() -> None:
        with torch.autocast(device, dtype=half, enabled=half is not None):
            loss = segmenter.loss(segmenter(batch["image"]), batch).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        finish(device)

    return step


def plain_step(network: nn.Module, batch: Batch) -> Way:
    """A step of a plain loop in float32, with the baseline's loss."""
    optimizer = torch.optim.AdamW(network.parameters(), **OPTIMIZER)

    def step() -> None:
        optimizer.zero_grad()
        baseline_loss(network(batch["image"]), batch["mask"]).backward()
        optimizer.step()
        finish(batch["image"].device.type)

    return step


def finish(device: str) -> None:
    """Waits for a GPU, whose work goes on after the calls."""
    if device == "cuda":
        torch.cuda.synchronize()
