"""Do a round of registration: average all images by block, measure the displacement of each, solve for all shifts."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import isnan
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from sn6.files import write_text
from sn6.heads import MASK, Heads
from sn6.prediction.fused_map import FusedMaps, outputs_on_map
from sn6.prediction.fusion import Fusion
from sn6.prediction.map_grid import Block, Layout
from sn6.prediction.mosaic import Mosaic
from sn6.prediction.registration import (
    Displacement,
    Measurement,
    compared_part,
    estimate_displacement,
    refine_shifts,
)

EQUAL = Fusion(fade=0.0, balance=False)  # so that the outputs of an image can be taken out of the mean again


@dataclass(frozen=True)
class RegistrationRound:
    """Register images with each other, starting from their georeference or from the shifts of an earlier round.

    All outputs of the images have to be on disk. The work of an image does not grow with the number of its looks.

    Attributes:
        folder: of what a round needs while it is not done
        start: layout whose shifts are 0
        earlier: round before, None for the first
    """

    folder: Path
    start: Layout
    earlier: "RegistrationRound | None" = None

    @property
    def shifts_file(self) -> Path:
        """Return the file of the shifts; it exists when the round is done."""
        return self.folder.with_suffix(".json")

    def measurement_file(self, number: int) -> Path:
        """Return the file of the measurement of an image; it exists when the image is measured."""
        return self.folder / f"image{number}.json"

    @cached_property
    def layout(self) -> Layout:
        """Return where the images are before this round; the earlier one must be done."""
        return self.start if self.earlier is None else self.earlier.result

    @cached_property
    def result(self) -> Layout:
        """Return where the images are after this round, which must be done."""
        return replace(self.start, shifts=tuple((east, north) for east, north, _ in self.read()))

    def averages_file(self, block: Block) -> Path:
        """Return the file of the mean outputs at a block."""
        return FusedMaps(self.folder, self.start).path(block)

    @property
    def averages(self) -> FusedMaps:
        """Return the mean outputs of all images by block."""
        return FusedMaps(self.folder, self.layout)

    def average(self, block: Block, mosaic_of: Callable[[int], Mosaic], heads: Heads) -> None:
        """Write the mean outputs at a block; arguments of `FusedMaps.write`."""
        self.averages.write(block, mosaic_of, heads, EQUAL)

    def measure(self, number: int, mosaic: Mosaic, heads: Heads) -> None:
        """Compare an image, whose blocks are all averaged, with the others, and write the result."""
        image, place = self.layout.images[number], self.layout.place(number)
        assert place is not None
        part, shared = compared_part(self.layout, number)
        displacement = None
        if shared:
            own = outputs_on_map(image, place, mosaic, heads, part)
            mean, looks = self.averages.read_with_looks(place.map, *part, heads.channels)
            maps = [probability(outputs, heads) for outputs in (own, without(mean, looks, own))]
            displacement = estimate_displacement(maps[0], maps[1], image.pixel_metres)
        write_text(
            self.measurement_file(number), json.dumps({"displacement": displacement, "shared": [*shared.items()]})
        )

    def solve(self) -> None:
        """Write the shifts of all images, which are all measured, and delete what they were made from."""
        measurements = [self.read_measurement(number) for number in range(len(self.start.images))]
        assert self.layout.shifts is not None
        shifts = refine_shifts(np.array(self.layout.shifts), measurements)
        rows: list[tuple[float, float, float | None]] = []
        for (east, north), one in zip(shifts.tolist(), measurements, strict=True):
            if one is None or one.displacement is None or isnan(east):
                rows.append((0.0, 0.0, None))
            else:
                rows.append((east, north, one.displacement.score))
        write_text(self.shifts_file, json.dumps(rows))
        shutil.rmtree(self.folder)

    def read(self) -> list[tuple[float, float, float | None]]:
        """Read the shift of each image in m, to the east and to the north, and the score; 0 and None where unknown."""
        return [(east, north, score) for east, north, score in json.loads(self.shifts_file.read_text())]

    def read_measurement(self, number: int) -> Measurement | None:
        """Read the measurement of an image; None where it is on no map."""
        if self.layout.place(number) is None:
            return None
        stored = json.loads(self.measurement_file(number).read_text())
        displacement = stored["displacement"] and Displacement(*stored["displacement"])
        return Measurement(displacement, dict(stored["shared"]))


def registration_rounds(folder: Path, start: Layout, count: int) -> tuple[RegistrationRound, ...]:
    """Return rounds that start from each other's result."""
    rounds: list[RegistrationRound] = []
    for number in range(count):
        rounds.append(RegistrationRound(folder / f"registration{number}", start, rounds[-1] if rounds else None))
    return tuple(rounds)


def without(
    mean: Float32[np.ndarray, "k h w"], looks: Float32[np.ndarray, "h w"], own: Float32[np.ndarray, "k h w"]
) -> Float32[np.ndarray, "k h w"]:
    """Return the mean of all looks but one; NaN where there is no other, and where this one has no data."""
    others = np.where(looks > 1, looks - 1, np.nan).astype(np.float32)
    return (mean * looks - own) / others


def probability(outputs: Float32[np.ndarray, "k h w"], heads: Heads) -> Float32[np.ndarray, "h w"]:
    """Return the probability of building that outputs give, NaN where these are NaN."""
    return heads.activate(heads.split(torch.from_numpy(outputs)[None]))[MASK][0, 0].numpy()
