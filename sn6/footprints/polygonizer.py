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
from sn6.footprints.morphology import fill_holes, open_mask
from sn6.footprints.polygonize import Regions, trace_regions

Maps: TypeAlias = Mapping[str, Float32[np.ndarray, "_ height width"]]  # name of the head → map after its activation
Probability = Annotated[float, Field(gt=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Polygonizer(ABC):
    """Turn maps into footprints: components of building pixels, divided into buildings by `split`.

    A pixel is building where the map `mask`, the probability of building, is above `threshold` and the pixel is valid.
    Small holes of components are filled, then spikes and thin bridges removed by an opening, before they are divided.
    What `split` does inside a component depends on the component alone, so that an image gives the same footprints in
    blocks as at once (`sn6.footprints.blocks`). Subclasses are frozen dataclasses: the calibration varies their fields,
    and checkpoints and metrics.json contain them.

    Attributes:
        threshold: probability; a pixel above it is building
        min_area: minimum area of a footprint in m²; a smaller region is dropped
        simplify: maximum distance in m between the simplified outline and the pixel edges; 0 keeps the pixel edges
        fill_holes: m²; holes of a component smaller than this are filled, unless other components or nodata are in them
        opening: radius in m of a disc; what it does not reach inside of a component is no part of it
        needs: names of the maps that it reads
        uses: names of the maps that it reads where the heads have them
        candidates: field → values that the calibration tries first
        refinements: field → values that it tries then, around the best of the first
        divides: whether a component may become several buildings

    Raises:
        UserError: a value out of range
    """

    threshold: Probability = 0.5
    min_area: NonNegative = 20.0
    simplify: NonNegative = 0.5
    fill_holes: NonNegative = 0.0
    opening: NonNegative = 0.0

    needs: ClassVar[tuple[str, ...]] = ("mask",)
    uses: ClassVar[tuple[str, ...]] = ()
    candidates: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "threshold": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        "min_area": (20.0, 40.0, 60.0, 80.0),
    }
    refinements: ClassVar[Mapping[str, tuple[float, ...]]] = {"fill_holes": (0.0, 20.0), "opening": (0.0, 1.5)}
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
        building = self.is_building(maps, valid)
        components, _ = ndimage.label(building)  # 4-connected by default
        regions = self.regions(maps, components, valid & ~building, pixel_size)
        return regions.footprints(self.min_area, self.simplify, pixel_size)

    def instances(
        self, maps: Maps, valid: Bool[np.ndarray, "height width"], pixel_size: float
    ) -> Int32[np.ndarray, "height width"]:
        """Return the number of the building at each pixel, from 1 and without gaps; arguments as for a call."""
        building = self.is_building(maps, valid)
        components = self.clean(ndimage.label(building)[0], valid & ~building, pixel_size)
        labels = self.split(maps, components, pixel_size)
        sizes = np.bincount(labels.ravel())
        kept = (sizes > 0) & (sizes * pixel_size**2 >= self.min_area)
        kept[0] = False
        return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[labels]

    def is_building(self, maps: Maps, valid: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
        """Return which pixels are building."""
        return (maps["mask"][0] > self.threshold) & valid

    def regions(
        self,
        maps: Maps,
        components: Int32[np.ndarray, "height width"],
        is_ground: Bool[np.ndarray, "height width"],
        pixel_size: float,
    ) -> Regions:
        """Return the regions of the buildings in numbered components, with few that are below the minimum area.

        Args:
            maps: of the heads
            components: numbers of all 4-connected components of building pixels or of some, from 1; 0 elsewhere
            is_ground: whether a pixel is valid and of no component
            pixel_size: m
        """
        labels = self.split(maps, self.clean(components, is_ground, pixel_size), pixel_size)
        classes = class_probabilities(maps)
        return trace_regions(labels, maps["mask"][0], self.min_area / pixel_size**2, classes=classes)[0]

    @property
    def changes_components(self) -> bool:
        """Return whether the buildings in a component are not the component as it is."""
        return self.divides or self.fill_holes > 0 or self.opening > 0

    def clean(
        self,
        components: Int32[np.ndarray, "height width"],
        is_ground: Bool[np.ndarray, "height width"],
        pixel_size: float,
    ) -> Int32[np.ndarray, "height width"]:
        """Return the components without small holes, spikes and thin bridges; arguments as for `regions`."""
        if self.fill_holes:
            components = fill_holes(components, is_ground, self.fill_holes / pixel_size**2)
        if self.opening:
            components, _ = ndimage.label(open_mask(components > 0, self.opening / pixel_size))
        return components

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
