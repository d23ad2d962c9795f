"""Describe a prediction: images, windows and options, and which of the work is still to do."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import file_digest, sha256
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from sn6.footprints.polygonizer import Polygonizer
from sn6.heads import MASK
from sn6.prediction.ensemble import Averaging
from sn6.prediction.fused_map import FusedMaps
from sn6.prediction.fusion import Fusion
from sn6.prediction.images import Image
from sn6.prediction.map_grid import Layout
from sn6.prediction.mosaic import Mosaic, Region
from sn6.prediction.registration_round import RegistrationRound, registration_rounds

ROUNDS = 2  # of registration: the second against images that the first has moved
Batch = tuple[tuple[int, Region], ...]  # windows of one size: number of the image, rows and columns


@dataclass(frozen=True)
class Plan:
    """All that a worker needs to know.

    Attributes:
        checkpoints: files of the networks whose outputs are averaged
        allow: classes of other packages
        images: images to predict; an image's number is its index here
        window: edge length of a window in pixels
        overlap: minimum overlap of neighbouring windows in pixels
        averaging: flips, scales, precision
        polygonizer: from maps to footprints
        batch: number of windows per forward pass
        folder: folder of unfinished results
        rasters: folder of the probability rasters, None for none
        classes: names of the classes of the footprints, in the order of their numbers; none for one class
        fusion: how images that overlap are fused; None to predict each by itself
        merge: whether to write one footprint for each building of overlapping images too
        register: whether images that are fused are moved onto each other first
        raster_maps: names of the maps in the probability rasters
        regularize: whether footprints are regularised, see `sn6.footprints.regularization`
    """

    checkpoints: tuple[Path, ...]
    allow: tuple[str, ...]
    images: tuple[Image, ...]
    window: int
    overlap: int
    averaging: Averaging
    polygonizer: Polygonizer
    batch: int
    folder: Path
    rasters: Path | None
    classes: tuple[str, ...] = ()
    fusion: Fusion | None = None
    merge: bool = False
    register: bool = False
    raster_maps: tuple[str, ...] = (MASK,)
    regularize: bool = False

    @cached_property
    def layout(self) -> Layout:
        """Return the maps on which images are fused, none without fusion, with the images where their files say."""
        images = self.images if self.fusion is not None else ()
        return Layout(images, ((0.0, 0.0),) * len(images) if self.register else None)

    @cached_property
    def rounds(self) -> tuple[RegistrationRound, ...]:
        """Return the rounds of registration, none without it."""
        return registration_rounds(self.folder, self.layout, ROUNDS if self.register else 0)

    @cached_property
    def registered(self) -> Layout:
        """Return the maps with the images where registration has moved them; its rounds must be done."""
        return self.rounds[-1].result if self.rounds else self.layout

    @property
    def fused(self) -> FusedMaps:
        """Return the stored blocks of the maps, to read; registered images are written with `registered`."""
        return FusedMaps(self.folder, self.layout)

    @property
    def maps_to_merge(self) -> range:
        """Return the numbers of the maps that are converted to footprints as a whole."""
        return range(len(self.layout.maps) if self.merge else 0)

    def map_part(self, number: int) -> Path:
        """Return the file of the footprints of a map; it exists when the map is finished."""
        return self.folder / f"map{number}.parquet"

    def mosaic(self, number: int) -> Mosaic:
        """Return the mosaic of the outputs for an image."""
        image = self.images[number]
        is_needed = None if image.area is None else image.has_area_in
        size = image.height, image.width
        return Mosaic(self.folder / f"outputs{number}", *size, self.window, self.overlap, is_needed)

    def part(self, number: int) -> Path:
        """Return the file of the footprints of an image; it exists when the image is finished."""
        return self.folder / f"footprints{number}.parquet"

    def missing(self, number: int) -> list[Region]:
        """Return the windows of an image that are not predicted yet."""
        mosaic = self.mosaic(number)
        return [region for region in mosaic.regions() if not mosaic.path(region).exists()]

    def batches(self, numbers: list[int]) -> Iterator[Batch]:
        """Yield batches of missing windows in the order given; windows of a batch have the same size."""
        windows = ((number, region) for number in numbers for region in self.missing(number))
        for _, same_size in groupby(windows, lambda window: [side.stop - side.start for side in window[1]]):
            while batch := tuple(islice(same_size, self.batch)):
                yield batch

    def settings(self) -> dict[str, Any]:
        """Return everything that the result depends on, as plain values."""
        digests = []
        for path in self.checkpoints:
            with path.open("rb") as file:
                digests.append(file_digest(file, "sha256").hexdigest())
        return {
            "checkpoint": [str(path.resolve()) for path in self.checkpoints],
            "checkpoint_sha256": digests,
            "images": len(self.images),
            "first_image": self.images[0].path,
            "images_sha256": sha256(repr(self.images).encode()).hexdigest(),
            "window": self.window,
            "overlap": self.overlap,
            **asdict(self.averaging),
            "polygonizer": f"{type(self.polygonizer).__module__}.{type(self.polygonizer).__qualname__}",
            **asdict(self.polygonizer),
            "probability": [] if self.rasters is None else self.raster_maps,
            "revisits": None if self.fusion is None else asdict(self.fusion),
            "merge": self.merge,
            "register": self.register,
            "regularize": self.regularize,
        }
