"""Compare the values of the images to predict with those that the networks were trained on, on a sample of each."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from rasterio.errors import RasterioError

from sn6.data.units import Mismatch, Sample, find_mismatch
from sn6.datasets.radar_units import check_decibels
from sn6.errors import UserError, counted, first_line
from sn6.prediction.images import Image
from sn6.prediction.networks import Network
from sn6.progress import track

HEIGHT, WIDTH = 32, 64  # pixels of a window of the sample: flat, since most files are read by rows
GRIDS = ((3, 5), (12, 20))  # rows and columns of windows; more where the first have little data
ENOUGH, MINIMUM = 2000, 100  # valid pixels: of a sample, and of one that is compared at all

THREADS = 8
MANY = 100  # images, whose check takes long enough to show its progress


@dataclass(frozen=True)
class Finding:
    """An image whose values differ from those that a network was trained on."""

    image: Image
    mismatch: Mismatch


def compare_values(images: Sequence[Image], networks: Sequence[Network]) -> str | None:
    """Compare a sample of each image with the statistics of each network.

    Returns:
        A warning about the image that differs most; None where all are similar.

    Raises:
        UserError: an image differs so much that the network cannot give anything useful, has values that no decibels
            are, or cannot be read
    """
    name = f"checking the values of {counted(len(images), 'image')}"
    with ThreadPoolExecutor(THREADS) as pool:
        checked = pool.map(lambda image: check_image(image, networks), images)
        shown = track(checked, name, len(images)) if len(images) >= MANY else checked
        findings = [finding for finding in shown if finding is not None]
    if not findings:
        return None
    worst = max(findings, key=lambda finding: finding.mismatch.deviation)
    mismatch = worst.mismatch
    others = f" (and {len(findings) - 1} more of {len(images)} images)" if len(findings) > 1 else ""
    message = f"{worst.image.path}{others}: the values seem to be {mismatch.units} ({mismatch.evidence})"
    if not mismatch.refused:
        return f"{message}; if so, {mismatch.remedy}"
    raise UserError(
        f"{message}; {mismatch.remedy}, or set check_values=false to predict nevertheless",
        kind="wrong_data",
        key=worst.image.path,
        value=mismatch.units,
    )


def check_image(image: Image, networks: Sequence[Network]) -> Finding | None:
    """Compare a sample of an image with the statistics of each network, and return the greatest difference."""
    sample = read_sample(image)
    if sample is None:
        return None
    findings = []
    for trained in networks:
        source = trained.source
        mismatch = find_mismatch(sample, trained.statistics, source.product, source.band_names)
        if mismatch is not None:
            findings.append(Finding(image, mismatch))
    worst = max(findings, key=lambda finding: finding.mismatch.deviation, default=None)
    if (worst is None or not worst.mismatch.refused) and not networks[0].source.product.optical:
        check_decibels(sample.values, image.path, "units=, scale= or offset=")
    return worst


def read_sample(image: Image) -> Sample | None:
    """Read valid pixels of windows that are spread over an image; None where it has next to none.

    Raises:
        UserError: the file is broken or truncated
    """
    for grid in GRIDS:
        values = read_grid_of_windows(image, *grid)
        if values.shape[1] >= ENOUGH:
            break
    if values.shape[1] < MINIMUM:
        return None
    try:
        return Sample(values, *image.stored_as())
    except RasterioError as error:
        raise UserError(
            f"{image.path} cannot be opened ({first_line(error)}); download it again",
            kind="unreadable",
            key=image.path,
        ) from None


def read_grid_of_windows(image: Image, rows: int, columns: int) -> Float32[np.ndarray, "c _"]:
    """Return the valid pixels (c, n) of windows on a grid over the image."""
    height, width = min(HEIGHT, image.height), min(WIDTH, image.width)
    tops, lefts = (
        np.unique(np.linspace(0, size - length, number + 2).astype(int)[1:-1])
        for size, length, number in ((image.height, height, rows), (image.width, width, columns))
    )
    parts = []
    for top in tops.tolist():
        for left in lefts.tolist():
            pixels, valid = image.read(slice(top, top + height), slice(left, left + width))
            parts.append(pixels[:, valid])
    return np.concatenate(parts, axis=1)
