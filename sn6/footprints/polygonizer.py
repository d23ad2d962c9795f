"""The declaration of a polygonizer, which turns the maps of an image into footprints: one object for all uses."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, ClassVar, TypeAlias

import numpy as np
from jaxtyping import Bool, Float32, Int32
from pydantic import Field
from scipy import ndimage

from sn6.cli import check_arguments
from sn6.errors import UserError
from sn6.footprints import Footprints
from sn6.footprints.polygonize import Regions, trace_regions

Maps: TypeAlias = Mapping[str, Float32[np.ndarray, "_ height width"]]  # name of the head → map after its activation
Probability = Annotated[float, Field(gt=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Polygonizer(ABC):
    """Turn maps into footprints: components of building pixels, divided into buildings by `split`.

    A pixel is building where the map `mask`, the probability of building, is above `threshold` and the pixel is valid.
    What `split` does inside a component depends on the component alone, so that an image gives the same footprints in
    blocks as at once (`sn6.footprints.blocks`). Subclasses are frozen dataclasses: the calibration varies their fields,
    and checkpoints and metrics.json contain them.

    Attributes:
        threshold: probability; a pixel above it is building
        min_area: minimum area of a footprint in m²; a smaller region is dropped
        simplify: maximum distance in m between the simplified outline and the pixel edges; 0 keeps the pixel edges
        needs: names of the maps that it reads
        uses: names of the maps that it reads where the heads have them
        candidates: field → values that the calibration tries first
        divides: whether a component may become several buildings

    Raises:
        UserError: a value out of range
    """

    threshold: Probability = 0.5
    min_area: NonNegative = 20.0
    simplify: NonNegative = 0.5

    needs: ClassVar[tuple[str, ...]] = ("mask",)
    uses: ClassVar[tuple[str, ...]] = ()
    candidates: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "threshold": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        "min_area": (20.0, 40.0, 60.0, 80.0),
    }
    divides: ClassVar[bool] = True

    def __post_init__(self) -> None:
        errors = check_arguments(type(self), {one.name: getattr(self, one.name) for one in fields(self)}, "", True)[1]
        if errors:
            raise errors[0]

    def __call__(self, maps: Maps, valid: Bool[np.ndarray, "height width"], pixel_size: float) -> Footprints:
        """Return the footprints of an image.

        Args:
            maps: of the heads, in the frame of the image
            valid: false on nodata, where nothing is proposed
            pixel_size: m

        Returns:
            Footprints of at least the minimum area. The confidence is the mean probability of the region's pixels, the
            class, where there is a map `classes`, that of the highest mean probability.
        """
        components, _ = ndimage.label(self.is_building(maps, valid))  # 4-connected by default
        return self.regions(maps, components, pixel_size).footprints(self.min_area, self.simplify, pixel_size)

    def instances(
        self, maps: Maps, valid: Bool[np.ndarray, "height width"], pixel_size: float
    ) -> Int32[np.ndarray, "height width"]:
        """Return the number of the building at each pixel, from 1 and without gaps; arguments as for a call."""
        labels = self.split(maps, ndimage.label(self.is_building(maps, valid))[0], pixel_size)
        sizes = np.bincount(labels.ravel())
        kept = (sizes > 0) & (sizes * pixel_size**2 >= self.min_area)
        kept[0] = False
        return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[labels]

    def is_building(self, maps: Maps, valid: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
        """Return which pixels are building."""
        return (maps["mask"][0] > self.threshold) & valid

    def regions(self, maps: Maps, components: Int32[np.ndarray, "height width"], pixel_size: float) -> Regions:
        """Return the regions of the buildings in numbered components, with few that are below the minimum area."""
        labels = self.split(maps, components, pixel_size)
        classes = class_probabilities(maps)
        return trace_regions(labels, maps["mask"][0], self.min_area / pixel_size**2, classes=classes)[0]

    @abstractmethod
    def split(
        self, maps: Maps, components: Int32[np.ndarray, "height width"], pixel_size: float
    ) -> Int32[np.ndarray, "height width"]:
        """Divide components into buildings.

        Args:
            maps: of the heads
            components: numbers of 4-connected components of building pixels, from 1; 0 elsewhere
            pixel_size: m

        Returns:
            Numbers of 4-connected regions, from 1 and with gaps, which together cover the components.
        """

    def missing(self, heads: Collection[str]) -> list[str]:
        """Return what it needs and the heads lack: names of maps; `classes` gives the mask too."""
        given = {*heads, "mask"} if "classes" in heads else heads
        return [name for name in self.needs if name not in given]

    def check_heads(self, heads: Collection[str], key: str) -> None:
        """Raise a UserError if it needs a map that the heads lack.

        Args:
            heads: names of the heads
            key: the option that chose it, for messages
        """
        if missing := self.missing(heads):
            raise UserError(
                f"{key}: {type(self).__name__} needs the map {', '.join(missing)}, but the heads give only "
                f"{', '.join(heads)}; choose heads that have it, or polygons=threshold, which needs only mask",
                kind="conflict",
                key=key,
                value=type(self).__name__,
            )

    def to_dict(self) -> dict[str, Any]:
        """Return its `_target_` and its fields, as in a config."""
        return {"_target_": f"{type(self).__module__}.{type(self).__qualname__}", **asdict(self)}

    def __str__(self) -> str:
        """Return the operating point in words, for titles: `probability > 0.4, at least 20 m²`."""
        return f"probability > {self.threshold:g}, at least {self.min_area:g} m²"


def class_probabilities(maps: Maps) -> Float32[np.ndarray, "k height width"] | None:
    """Return the probabilities of the classes of buildings, without the background; None where there is one class."""
    return maps["classes"][1:] if "classes" in maps else None
