"""Estimate what a prediction needs before it starts, and refuse what the disk cannot hold."""

import math

import shapely

from sn6.errors import UserError
from sn6.files import require_disk_space
from sn6.heads import Heads
from sn6.prediction.images import Image
from sn6.prediction.plan import Plan

MANY = 20_000  # megapixels: hours on a GPU, days on a CPU; all tiles of SpaceNet 6 have 4,400
BYTES = 4  # of an output


def megapixels(image: Image) -> float:
    """Return the size of an image in millions of pixels, of those on the ground to predict where that is given."""
    pixels = image.height * image.width
    if image.area is not None:
        pixels = min(pixels, math.ceil(shapely.area(shapely.from_wkb(image.area)) / image.pixel**2))
    return pixels / 1e6


def check_size(plan: Plan, heads: Heads, is_confirmed: bool, keeps_all: bool) -> None:
    """Require that the disk holds the outputs, and that a very long prediction is meant.

    Args:
        plan: the prediction
        heads: of the networks
        is_confirmed: whether the user has said yes to a very long prediction
        keeps_all: whether the outputs of all images are on disk at the same time, not of one image after another

    Raises:
        UserError: the disk is too small, or it would take days and is not confirmed
    """
    sizes = [megapixels(image) for image in plan.images]
    total = sum(sizes)
    if total > MANY and not is_confirmed:
        raise UserError(
            f"{total:,.0f} megapixels take hours on a GPU and days on a CPU; add yes=true to predict them, or aoi=FILE "
            "to predict a part",
            kind="missing_value",
            key="yes",
            value=False,
        )
    repeated = (plan.window / (plan.window - plan.overlap)) ** 2 if max(sizes) * 1e6 > plan.window**2 else 1.0
    stored = total if keeps_all else max(sizes)
    require_disk_space(
        plan.folder,
        round(stored * 1e6 * heads.channels * BYTES * repeated),
        "the outputs of the networks, until footprints are made from them,",
        "free some space, choose another out=, or predict parts by aoi=",
    )
