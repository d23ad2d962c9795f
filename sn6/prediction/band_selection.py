"""Select the bands of a GeoTIFF that a network needs, by their number and by what the file says about them."""

import re
from collections.abc import Sequence
from pathlib import Path

import rasterio

from sn6.data.source import Source
from sn6.datasets.raster import data_bands
from sn6.errors import UserError, counted

# words in the description of a band → its name in a `Product`
WORDS = {name.lower(): name for name in ("HH", "HV", "VH", "VV", "NIR", "PAN")} | {
    "red": "R",
    "green": "G",
    "blue": "B",
    "panchromatic": "PAN",
}
OTHERS = {"edge", "coastal"}  # red edge is not red
LETTERS = {"r": "R", "g": "G", "b": "B", "n": "NIR"}  # only where they are the whole description: B1 is not blue


def select_file_bands(
    raster: rasterio.DatasetReader, path: Path, source: Source, given: Sequence[int] | None, check_names: bool
) -> tuple[int, ...]:
    """Return the bands of a file, counted from 1, in the order of the network's bands.

    Args:
        raster: the open file
        path: of the file, for messages
        source: product and bands that the network was trained on
        given: bands that the user selected; None for the product's bands in their order
        check_names: whether the descriptions of the bands must not name other bands

    Raises:
        UserError: the file has other bands
    """
    names = source.band_names
    if given is None:
        bands = bands_by_position(raster, path, source)
    else:
        bands = tuple(given)
        check_given(raster, path, names, bands)
    if check_names:
        check_descriptions(raster, path, names, bands)
    return bands


def bands_by_position(raster: rasterio.DatasetReader, path: Path, source: Source) -> tuple[int, ...]:
    """Return the bands of a file that has all bands of the product in their order, and perhaps an alpha band.

    Raises:
        UserError: it has another number of bands
    """
    on_disk, names = data_bands(raster), source.product.bands
    if len(on_disk) == len(names):
        return tuple(on_disk[band - 1] for band in source.bands)
    needed = source.band_names
    described = bands_by_description(raster, needed)
    if described is None and len(on_disk) < len(set(needed)):
        advice = f"give files with {', '.join(needed)}"
    else:
        different = list(dict.fromkeys(needed))
        example = described or [different.index(name) + 1 for name in needed]
        advice = f"select {', '.join(needed)} in this order, for example bands={listed(example)}"
    raise UserError(
        f"{path} has {counted(len(on_disk), 'band')}; the network was trained on {source.product.name} with the bands "
        f"{', '.join(names)}: {advice}",
        kind="wrong_data",
        key=path,
        value=len(on_disk),
    )


def check_given(raster: rasterio.DatasetReader, path: Path, names: Sequence[str], bands: Sequence[int]) -> None:
    """Raise a UserError unless there is one band of the file for each of the network's."""
    if len(bands) != len(names):
        raise UserError(
            f"bands={listed(bands)} selects {counted(len(bands), 'band')}, but the network needs {len(names)}: "
            f"{', '.join(names)}, in this order",
            kind="invalid_value",
            key="bands",
            value=list(bands),
        )
    if beyond := [band for band in bands if band > raster.count]:
        raise UserError(
            f"bands={listed(bands)}: {path} has no band {beyond[0]}, only {counted(raster.count, 'band')}",
            kind="invalid_value",
            key="bands",
            value=list(bands),
        )


def check_descriptions(raster: rasterio.DatasetReader, path: Path, names: Sequence[str], bands: Sequence[int]) -> None:
    """Raise a UserError where the description of a band names another band than the network's."""
    for band, name in zip(bands, names, strict=True):
        found = described_band(raster.descriptions[band - 1])
        if found not in (None, name):
            right = bands_by_description(raster, names)
            advice = f"give files with {', '.join(names)}" if right is None else f"set bands={listed(right)}"
            raise UserError(
                f"{path}: band {band} is described as {raster.descriptions[band - 1]!r}, but the network needs {name} "
                f"there: {advice}, or check_values=false if the description is wrong",
                kind="wrong_data",
                key=path,
                value=found,
            )


def bands_by_description(raster: rasterio.DatasetReader, names: Sequence[str]) -> list[int] | None:
    """Return the bands that are described by the names; None where a name has no band, or several."""
    found = [described_band(description) for description in raster.descriptions]
    if any(found.count(name) != 1 for name in names):
        return None
    return [found.index(name) + 1 for name in names]


def described_band(description: str | None) -> str | None:
    """Return the only band that a description names, such as VV for "Sigma0_VV_db"; None for none or several.

    Words are separated by anything but letters, or by an upper-case letter after a lower-case one.
    """
    text = (description or "").strip()
    if text.lower() in LETTERS:
        return LETTERS[text.lower()]
    separated = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower()
    words = set(re.findall("[a-z]+", separated))
    named = {WORDS[word] for word in words & WORDS.keys()}
    return named.pop() if len(named) == 1 and not words & OTHERS else None


def listed(bands: Sequence[int]) -> str:
    """Return bands as they are typed: `[4,3,2,1]`."""
    return f"[{','.join(map(str, bands))}]"
