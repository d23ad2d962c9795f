"""The metadata of a trained network: how to use it, and what it was trained on. Read and written as this class only."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from rasterio.crs import CRS

from sn6.checkpoints.heads import CLASSES_TARGET, MASK_ONLY, build_heads, foreign_heads
from sn6.checkpoints.init_options import MAX_MULTIPLE
from sn6.checkpoints.polygonizer import build_polygonizer, is_own_polygonizer
from sn6.config.types import MAX_WINDOW
from sn6.data.ground import Ground
from sn6.data.normalization import Nodata, Statistics
from sn6.data.partitions import PartitionName
from sn6.data.source import Source
from sn6.datasets import spacenet6
from sn6.datasets.declaration import Product
from sn6.datasets.radar_units import UnitName, Units
from sn6.errors import UserError, first_line
from sn6.footprints.polygonizer import Polygonizer
from sn6.heads import CLASSES, MASK, Heads

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
PRECISIONS = {"32": "32-true", "64": "32-true", "64-true": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
MAX_OPTION = 65_536  # of a number among the options of a network, such as filters
MAX_BANDS, MAX_ITEMS, MAX_NESTING = 256, 1024, 8

Finite: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False)]
NonNegative: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0)]
Positive: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0)]
Index: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=MAX_OPTION)]
Bands: TypeAlias = Annotated[tuple[Annotated[int, Field(strict=True, ge=1)], ...], Field(max_length=MAX_BANDS)]


def check_option(value: Any, nesting: int = 0) -> None:
    """Raise a ValueError for an option of a network that is not a plain value of sane size.

    A string with an interpolation is refused too: Hydra would resolve it, for example to an environment variable.
    """
    if isinstance(value, Mapping | list | tuple):
        if nesting == MAX_NESTING or len(value) > MAX_ITEMS:
            raise ValueError(f"an option is nested more than {MAX_NESTING} times or has more than {MAX_ITEMS} items")
        for item in (*value, *value.values()) if isinstance(value, Mapping) else value:
            check_option(item, nesting + 1)
    elif isinstance(value, str):
        if "${" in value or len(value) > MAX_ITEMS:
            raise ValueError("an option is an interpolation, or a long text")
    elif isinstance(value, int | float):
        if not abs(value) <= MAX_OPTION:
            raise ValueError(f"an option is {value:.3g}, more than {MAX_OPTION}")
    elif value is not None:
        raise ValueError(f"an option is a {type(value).__name__}")


def check_dtype(name: str) -> str:
    """Return the name of a data type of pixels; raise a ValueError for any other text."""
    try:
        is_number = np.dtype(name).kind in ("i", "u", "f")
    except TypeError:
        is_number = False
    if not is_number:
        raise ValueError(f"{name!r} is no data type of pixels")
    return name


def check_crs(name: str) -> str:
    """Return the name of a CRS; raise a ValueError for one that does not exist."""
    CRS.from_string(name)
    return name


def current_precision(value: Any) -> Any:
    """Return the name that Lightning gives a precision today."""
    return PRECISIONS.get(str(value), value)


class Model(BaseModel):
    """A part of the metadata; keys of other versions are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class UnitsMetadata(Model):
    """The fields of `sn6.datasets.radar_units.Units`."""

    name: UnitName = "db"
    scale: Positive = 1.0
    offset: Finite = 0.0


class ProductMetadata(Model):
    """The fields of `sn6.datasets.declaration.Product`."""

    name: Annotated[str, Field(min_length=1, max_length=MAX_ITEMS)]
    bands: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_BANDS)]
    dtype: Annotated[str, AfterValidator(check_dtype)]
    pixel_size: Positive
    sensor: Literal["radar", "optical"]
    nodata: Finite | None = 0.0
    repeat: Annotated[int, Field(strict=True, ge=1, le=MAX_ITEMS)] = 1
    default_bands: Bands | None = None
    units: UnitsMetadata = UnitsMetadata()

    @classmethod
    def published(cls, value: Any) -> Any:
        """Return the product of SpaceNet 6 for its name, which files of sn6 0.3 and before have instead of its fields.

        Raises:
            ValueError: it has no product of this name
        """
        if not isinstance(value, str):
            return value
        if value not in spacenet6.PRODUCTS:
            raise ValueError(f"unknown product {value!r}")
        return asdict(spacenet6.PRODUCTS[value])


class SourceMetadata(Model):
    """The fields of `sn6.data.source.Source`."""

    product: Annotated[ProductMetadata, BeforeValidator(ProductMetadata.published)]
    bands: Bands
    orient: Annotated[bool, Field(strict=True)]
    min_area: NonNegative

    @model_validator(mode="after")
    def check(self) -> "SourceMetadata":
        """Raise a ValueError for a band that the product does not have."""
        count = len(self.product.bands)
        if not self.bands or max(self.bands) > count:
            raise ValueError(f"{self.product.name} has the bands 1 to {count}")
        return self


class CheckpointMetadata(Model):
    """What a checkpoint or weights.safetensors of sn6 says of its network.

    Attributes:
        network: `_target_` and arguments of its class
        heads: name → `_target_` and fields of its target; files of older versions have the mask alone
        source: product, bands, frame and labels of its samples
        mean: per band, of its normalisation
        std: per band
        nodata: value of nodata pixels after the normalisation
        multiple: pixels; images are padded to multiples of it; None in older files, whose networks pad by themselves
        building_class: channel of building among several classes, None for one class
        building_fraction: fraction of the training pixels on buildings, None where it was not measured
        window: pixels; edge length of the windows of its run, None for whole tiles
        window_overlap: pixels
        flips: whether its run averaged the outputs with those of flipped tiles
        precision: of its run
        footprints: `_target_` and fields of the polygonizer; those of a threshold in a file of an older version
        partition: how the ground was divided
        fold: the part that validated
        training_area: west, south, east and north of the training tiles in metres; None where it is not known
        training_crs: of the training area; that of SpaceNet 6 in files of sn6 0.3 and before
        epoch: of the weights, from 0
        versions: package → version that wrote the file
        score: of the epoch
        selected_by: what chose the epoch
    """

    network: dict[str, Any]
    heads: Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=MAX_BANDS)] = MASK_ONLY
    source: SourceMetadata
    mean: tuple[Finite, ...]
    std: tuple[Positive, ...]
    nodata: Nodata
    multiple: Annotated[int, Field(strict=True, gt=0, le=MAX_MULTIPLE)] | None = None
    building_class: Index | None = None
    building_fraction: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
    window: Annotated[int, Field(strict=True, gt=0, le=MAX_WINDOW)] | None = None
    window_overlap: Index | None = None
    flips: Annotated[bool, Field(strict=True)] = False
    precision: Annotated[Precision, BeforeValidator(current_precision)] | None = None
    footprints: dict[str, Any] = {}
    partition: PartitionName = "columns"
    fold: Index | None = None
    training_area: tuple[tuple[Finite, Finite, Finite, Finite], ...] | None = None
    training_crs: Annotated[str, Field(pattern=r"^EPSG:\d{1,6}$"), AfterValidator(check_crs)] = spacenet6.CRS
    epoch: Annotated[int, Field(strict=True, ge=0)] | None = None
    versions: dict[str, str | None] = {}
    score: dict[str, Finite] = {}
    selected_by: str | None = None

    @model_validator(mode="after")
    def check(self) -> "CheckpointMetadata":
        """Raise a ValueError for values that do not fit one another."""
        if not isinstance(self.network.get("_target_"), str):
            raise ValueError("network has no _target_")
        check_option(self.network)
        check_option(self.footprints)
        self.check_heads()
        if not isinstance(self.footprints.get("_target_", ""), str):
            raise ValueError("footprints._target_ is no text")
        if is_own_polygonizer(self.footprints):
            try:
                self.to_polygonizer().check_heads(tuple(self.heads), "footprints")
            except UserError as error:
                raise ValueError(str(error)) from None
        bands, classes = len(self.source.bands), self.network.get("classes")
        if not len(self.mean) == len(self.std) == bands:
            raise ValueError(f"mean has {len(self.mean)} and std {len(self.std)} numbers for {bands} bands")
        if self.network.get("in_channels", bands) != bands:
            raise ValueError(f"network.in_channels={self.network['in_channels']}, but source has {bands} bands")
        if self.building_class is not None and isinstance(classes, int) and self.building_class >= classes:
            raise ValueError(f"building_class={self.building_class} of {classes} classes")
        if self.window is not None and not 0 <= (self.window_overlap or 0) < self.window:
            raise ValueError(f"window_overlap={self.window_overlap} is not less than window={self.window}")
        for west, south, east, north in self.training_area or ():
            if not (west < east and south < north):
                raise ValueError(f"training_area has the empty square {west}, {south}, {east}, {north}")
        return self

    def check_heads(self) -> None:
        """Raise a ValueError for heads that do not fit the network, or that sn6 does not have."""
        check_option(self.heads)
        if not all(isinstance(node.get("_target_"), str) for node in self.heads.values()):
            raise ValueError("a head has no _target_")
        if self.heads.get(MASK, MASK_ONLY[MASK]) != MASK_ONLY[MASK] or not {MASK, CLASSES} & set(self.heads):
            raise ValueError(f"heads.{MASK} is missing, or another map")
        if self.heads.get(CLASSES, {"_target_": CLASSES_TARGET})["_target_"] != CLASSES_TARGET:
            raise ValueError(f"heads.{CLASSES} is another map")
        if foreign_heads(self.heads):
            return
        channels, classes = self.to_heads().channels, self.network.get("classes")
        if self.building_class is not None and channels != 1:
            raise ValueError(f"heads has {channels} channels, but building_class is one of several classes")
        if self.building_class is None and isinstance(classes, int) and classes != channels:
            raise ValueError(f"heads has {channels} channels, but network.classes={classes}")

    def to_heads(self) -> Heads:
        """Return its heads; import the classes of their targets."""
        try:
            return build_heads(self.heads)
        except UserError as error:
            raise ValueError(str(error)) from None

    def to_source(self) -> Source:
        """Return the part of a data set that its samples are made from."""
        fields = self.source.model_dump()
        product = fields.pop("product")
        return Source(Product(**product | {"units": Units(**product["units"])}), **fields)

    def to_statistics(self) -> Statistics:
        """Return its normalisation."""
        return Statistics(self.mean, self.std, self.building_fraction)

    def to_training_area(self) -> Ground:
        """Return the squares that it was trained on; none where they are not known."""
        squares = np.array(self.training_area or (), dtype=np.float64).reshape(-1, 4)
        return Ground(squares, self.training_crs)

    def to_polygonizer(self) -> Polygonizer:
        """Return its polygonizer at its operating point; import the class where it is of another package."""
        return build_polygonizer(self.footprints, "footprints")


@dataclass(frozen=True)
class ForeignMetadata:
    """What a file of another program says of its network.

    Attributes:
        format: name of a published format, None where the tensors are of none
        network: `_target_` and arguments of our class that they fit; empty where the format is unknown
    """

    format: str | None = None
    network: dict[str, Any] = field(default_factory=dict)


def parse_metadata(values: Any, file: Path, key: str) -> CheckpointMetadata:
    """Return the metadata of a file of sn6.

    Args:
        values: plain values of the file
        file: for messages
        key: the option that names it, for messages

    Raises:
        UserError: a field is missing or wrong
    """
    try:
        return CheckpointMetadata.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        raise unusable_metadata(file, key, f"{where}: {reason}" if where else reason) from None
    except RecursionError as error:
        raise unusable_metadata(file, key, first_line(error)) from None


def unusable_metadata(file: Path, key: str, reason: str) -> UserError:
    """Return the error of a file without usable metadata."""
    return UserError(
        f"{key}={file} has no usable metadata about its network, bands and normalisation ({reason}); give a checkpoint "
        "of sn6.run",
        kind="wrong_data",
        key=key,
        value=str(file),
    )
