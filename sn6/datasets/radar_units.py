"""Convert the values of radar images to decibels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float32
from pydantic import Field

from sn6.errors import UserError

UnitName: TypeAlias = Literal["db", "power", "amplitude", "dn"]
MIN_DECIBELS, MAX_DECIBELS = -100.0, 150.0  # beyond these, values are in other units
EXPONENTS: dict[UnitName, float] = {"power": 10.0, "amplitude": 20.0, "dn": 20.0}


@dataclass(frozen=True)
class Units:
    """What the values of radar files are.

    ===========  ============================================
    name         decibels of a value x
    ===========  ============================================
    `db`         x · scale + offset
    `power`      10 · log10(x · scale) + offset
    `amplitude`  20 · log10(x · scale) + offset
    `dn`         20 · log10(x · scale) + offset: digital numbers, whose calibration is in scale and offset
    ===========  ============================================

    A value is that of the file times its own scale plus its own offset, where it declares them. Power, amplitude and
    digital numbers of 0 and below have no decibels: they are nodata.

    Attributes:
        name: of the units
        scale: factor of the values
        offset: dB
    """

    name: UnitName = "db"
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    offset: Annotated[float, Field(allow_inf_nan=False)] = 0.0

    def to_decibels(
        self, values: Float32[np.ndarray, "c h w"], valid: Bool[np.ndarray, "h w"]
    ) -> tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """Return decibels, 0 on nodata, and which pixels are valid.

        Args:
            values: in these units
            valid: false on nodata
        """
        if self == Units():
            return values, valid
        if self.name == "db":
            return np.where(valid, values * self.scale + self.offset, 0).astype(np.float32), valid
        valid = valid & (values > 0).all(axis=0)
        scaled = np.where(valid, values, 1).astype(np.float64) * self.scale
        decibels = EXPONENTS[self.name] * np.log10(scaled) + self.offset
        return np.where(valid, decibels, 0).astype(np.float32), valid

    def from_decibels(
        self, decibels: Float32[np.ndarray, "c h w"], valid: Bool[np.ndarray, "h w"]
    ) -> Float32[np.ndarray, "c h w"]:
        """Return values in these units, NaN on nodata: the inverse of `to_decibels`."""
        if self == Units():
            return np.where(valid, decibels, np.float32(np.nan))
        level = decibels.astype(np.float64) - self.offset
        values = (level if self.name == "db" else 10 ** (level / EXPONENTS[self.name])) / self.scale
        return np.where(valid, values, np.nan).astype(np.float32)


def check_decibels(values: Float32[np.ndarray, "c n"], path: str | Path, keys: str) -> None:
    """Raise a UserError where a band has values that no radar gives in decibels, so that the units must be others.

    Args:
        values: of valid pixels
        path: file to name in the message
        keys: that set the units, for the message
    """
    if not values.size:
        return
    for number, band in enumerate(values, start=1):
        extreme = float(band.max() if band.max() > MAX_DECIBELS else np.median(band))
        if not MIN_DECIBELS <= extreme <= MAX_DECIBELS:
            raise UserError(
                f"{path}: band {number} has {extreme:.4g} dB, which no radar measures; set {keys}",
                kind="wrong_data",
                key=path,
                value=extreme,
            )
