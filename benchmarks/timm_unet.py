"""U-Net on timm's ResNet-34: against segmentation_models_pytorch's Unet with the same encoder and the same weights.

A training step as of `benchmarks.step`, and a tile to polygons as of `benchmarks.tile`.
"""

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.comparison import Implementation, NotRun, Row, medians, require
from benchmarks.process import own_process
from benchmarks.step import batch_of, plain_step, sn6_step
from benchmarks.tile import Case, baseline_tile, case_of, check_agreement, sn6_tile, whole_tile
from benchmarks.unet11 import without_tf32
from sn6.models.timm_unet import TimmUNet
from sn6.processes import keep_freed_memory
from sn6.training.devices import fastest_precision

ENCODER = "resnet34"
BANDS = 4
LOGIT_TOLERANCE = 1e-4  # of the largest, in float32
PEER = f"smp's Unet, {ENCODER}, in float32"
PATHS = ("training step", "tile → polygons")


def rows(crops: int = 2, crop: int = 256, size: int = 900, repeats: int = 5) -> Iterator[Row | NotRun]:
    """Yield a row for a step and one for a tile, on the CPU and on a GPU if there is one."""
    if find_spec("segmentation_models_pytorch") is None:
        yield NotRun("U-Net on timm's encoder", "segmentation_models_pytorch is not installed")
        return
    yield from on_device(crops, crop, size, "cpu", repeats)
    if torch.cuda.is_available():
        yield from on_device(16, 512, size, "cuda", 4 * repeats)
    else:
        yield NotRun("U-Net on timm's encoder on a GPU", "no GPU is available")


def on_device(crops: int, crop: int, size: int, device: str, repeats: int) -> Iterator[Row]:
    """Compare steps and tiles on a device."""
    precision = fastest_precision(device)
    agreements = (check_step(crops, crop, device), check_tile(size, device))
    inputs = (f"{crops} crops of {crop}, {device}", f"{size}×{size}, {device}")
    makes = ((make_sn6_step, make_smp_step, (crops, crop, device)), (make_sn6_tile, make_smp_tile, (size, device)))
    for path, given, agreement, (sn6, smp, case) in zip(PATHS, inputs, agreements, makes, strict=True):
        with own_process(keep_freed_memory) as ours, own_process() as theirs:
            seconds = medians({"ours": ours(sn6, *case), "theirs": theirs(smp, *case)}, repeats)
        name = f"{path}, timm_unet, {precision}"
        yield Row(name, given, seconds["ours"], PEER, seconds["theirs"], agreement, min_ratio=1.0)


def smp_with_weights_of(network: nn.Module) -> nn.Module:
    """Return smp's Unet on the device and with the weights of a TimmUNet, which has them in the same order."""
    from segmentation_models_pytorch import Unet

    copy = Unet(ENCODER, encoder_weights=None, in_channels=BANDS)
    own = copy.state_dict()
    for (name, target), source in zip(own.items(), network.state_dict().values(), strict=True):
        require(target.shape == source.shape, f"{name} of {PEER} has the shape {tuple(target.shape)}")
        target.copy_(source)
    return copy.to(next(network.parameters()).device)


def networks(device: str) -> tuple[nn.Module, nn.Module]:
    """Return both networks with the same random weights."""
    torch.manual_seed(0)
    network = TimmUNet(BANDS, encoder=ENCODER).to(device)
    return network, smp_with_weights_of(network)


def check_step(crops: int, crop: int, device: str) -> str:
    """Check that both networks give the same logits in training, and say how well."""
    image = batch_of(crops, crop, device)["image"]
    with torch.no_grad(), without_tf32():
        logits = [network(image) for network in networks(device)]
    return same(PATHS[0], *logits)


def same(path: str, ours: Tensor, theirs: Tensor) -> str:
    """Raise a Mismatch unless two logits in float32 are equal to `LOGIT_TOLERANCE`, and say how well they are."""
    difference = float((ours - theirs).abs().max() / theirs.abs().max())
    require(difference < LOGIT_TOLERANCE, f"{path}: the logits of sn6 and {PEER} differ by {difference:.2g}")
    return f"float32 logits to {LOGIT_TOLERANCE:g}"


def make_sn6_step(crops: int, crop: int, device: str) -> Implementation:
    """Return a step of sn6.run."""
    network = networks(device)[0].to(memory_format=torch.channels_last)
    return sn6_step(network, batch_of(crops, crop, device), fastest_precision(device))


def make_smp_step(crops: int, crop: int, device: str) -> Implementation:
    """Return a step of a plain loop."""
    return plain_step(networks(device)[1], batch_of(crops, crop, device))


def make_case(size: int, device: str) -> Case:
    """Return a tile, with a network that predicts blobs."""
    torch.manual_seed(0)
    return case_of(TimmUNet(BANDS, encoder=ENCODER), size, device)


def check_tile(size: int, device: str) -> str:
    """Check that both networks give the same logits and polygons, and say how well; errors of `check_agreement`."""
    case = make_case(size, device)
    with without_tf32():
        logits = case.ensemble("32-true").outputs([case.pixels], [case.valid])[0, 0]
        theirs = whole_tile(smp_with_weights_of(case.network).eval(), case)
    half = case.ensemble(fastest_precision(device)).outputs([case.pixels], [case.valid])[0, 0]
    return check_agreement(logits, np.asarray(half), theirs)


def make_sn6_tile(size: int, device: str) -> Implementation:
    """Return a prediction as sn6.predict does it."""
    case = make_case(size, device)
    return partial(sn6_tile, case.ensemble(fastest_precision(device)), case)


def make_smp_tile(size: int, device: str) -> Implementation:
    """Return a prediction as a plain loop does it."""
    case = make_case(size, device)
    return partial(baseline_tile, whole_tile, smp_with_weights_of(case.network).eval(), case)
