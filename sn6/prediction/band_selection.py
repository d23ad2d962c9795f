"""Select the bands of a file that a network needs: by their names where it has them, else by their order."""

import re
from collections.abc import Sequence

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
    raster: rasterio.DatasetReader, path: str, source: Source, given: Sequence[str] | None, check_names: bool
) -> tuple[int, ...]:
    """Return the bands of a file, counted from 1, in the order of the network's bands.

    Args:
        raster: the open file
        path: of the file, for messages
        source: product and bands that the network was trained on
        given: numbers or names of bands that the user selected; None for the bands with the network's names, or where
            the file does not name them, for those of the product or of the network in their order
        check_names: whether bands are found by their descriptions, and must not be described as other bands

    Raises:
        UserError: the file has other bands
    """
    names = source.band_names
    if given is not None:
        bands = given_bands(raster, path, names, given)
    else:
        by_name = bands_by_description(raster, names) if check_names else None
        bands = bands_by_position(raster, path, source) if by_name is None else tuple(by_name)
    if check_names:
        check_descriptions(raster, path, names, bands)
    return bands


def bands_by_position(raster: rasterio.DatasetReader, path: str, source: Source) -> tuple[int, ...]:
    """Return the bands of a file that has all bands of the product, or those of the network, in their order.

    Raises:
        UserError: it has another number of bands
    """
    on_disk, names, needed = data_bands(raster), source.product.bands, source.band_names
    if len(on_disk) == len(names):
        return tuple(on_disk[band - 1] for band in source.bands)
    if len(on_disk) == len(needed):
        return tuple(on_disk)
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


def given_bands(
    raster: rasterio.DatasetReader, path: str, names: Sequence[str], given: Sequence[str]
) -> tuple[int, ...]:
    """Return the numbers of the bands that the user selected, one for each of the network's.

    Raises:
        UserError: there are more or fewer, or the file lacks one, or has several of a name
    """
    if len(given) != len(names):
        raise UserError(
            f"bands={listed(given)} selects {counted(len(given), 'band')}, but the network needs {len(names)}: "
            f"{', '.join(names)}, in this order",
            kind="invalid_value",
            key="bands",
            value=list(given),
        )
    return tuple(given_band(raster, path, band, given) for band in given)


def given_band(raster: rasterio.DatasetReader, path: str, band: str, given: Sequence[str]) -> int:
    """Return the number of a band that is given by its number or name; errors of `given_bands`."""
    if re.fullmatch(r"[+-]?\d+", band):
        numbers = [int(band)] if 1 <= int(band) <= raster.count else []
        available = f"its bands are 1 to {raster.count}"
    else:
        numbers = bands_named(raster, band)
        available = f"its bands are described as {', '.join(repr(text or '') for text in raster.descriptions)}"
    if len(numbers) != 1:
        raise UserError(
            f"bands={listed(given)}: {path} has {'several bands' if numbers else 'no band'} {band}; {available}",
            kind="invalid_value",
            key="bands",
            value=list(given),
        )
    return numbers[0]


def check_descriptions(raster: rasterio.DatasetReader, path: str, names: Sequence[str], bands: Sequence[int]) -> None:
    """Raise a UserError where the description of a band names another band than the network's."""
    for band, name in zip(bands, names, strict=True):
        found, wanted = described_band(raster.descriptions[band - 1]), described_band(name)
        if found is not None and wanted is not None and found != wanted:
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
    found = [bands_named(raster, name) for name in names]
    return [numbers[0] for numbers in found] if all(len(numbers) == 1 for numbers in found) else None


def bands_named(raster: rasterio.DatasetReader, name: str) -> list[int]:
    """Return the bands with this description, or else those whose descriptions name the same polarisation or colour."""
    descriptions = [(description or "").strip() for description in raster.descriptions]
    same = [number for number, text in enumerate(descriptions, 1) if text.casefold() == name.strip().casefold()]
    known = described_band(name)
    return same or [number for number, text in enumerate(descriptions, 1) if known and described_band(text) == known]


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


def listed(bands: Sequence[int | str]) -> str:
    """Return bands as they are typed: `[4,3,2,1]`."""
    return f"[{','.join(map(str, bands))}]"
