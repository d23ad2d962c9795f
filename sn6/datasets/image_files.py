"""Find images by folders, patterns, files and addresses, and keep what their headers say."""

import glob
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import takewhile
from operator import attrgetter
from pathlib import Path

from rasterio.errors import RasterioError

from sn6.datasets.cache import cache_path, image_fingerprint, lock, save
from sn6.datasets.placed_image import Grid, grid_of
from sn6.datasets.raster import data_bands, open_raster, refuse_complex
from sn6.errors import UserError, counted, first_line
from sn6.progress import track

SUFFIXES = (".tif", ".tiff")
MANY = 100  # files, whose headers take long enough to show the progress


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image says.

    Attributes:
        path: a file, or an address that GDAL opens
        grid: that its samples are on
        warped: whether it is warped to the grid while it is read
        bands: numbers of its bands in the file, without alpha
        names: descriptions of these bands, "" where there is none
        dtype: of the first band
    """

    path: str
    grid: Grid
    warped: bool
    bands: tuple[int, ...]
    names: tuple[str, ...]
    dtype: str


def find_files(images: str | Sequence[str], key: str) -> list[str]:
    """Return the files and addresses that `images` names, sorted, each once; hidden files are left out.

    Args:
        images: folders, which are searched recursively for GeoTIFFs, patterns such as `2019/*_VV.tif`, files, and
            addresses that GDAL opens (`/vsicurl/...`, `s3://...`)
        key: the option that gives them, for messages

    Raises:
        UserError: one of them names nothing
    """
    found: dict[str, None] = {}
    for entry in [images] if isinstance(images, str) else images:
        files = files_of(entry)
        if not files:
            raise UserError(
                f"{key}={entry}: no {' or '.join(SUFFIXES)} file; give a folder, a pattern, files or addresses",
                kind="not_found",
                key=key,
                value=entry,
            )
        found |= dict.fromkeys(files)
    return list(found)


def files_of(entry: str) -> list[str]:
    """Return the files that an entry of `find_files` names, sorted; none where it names nothing."""
    if "://" in entry or entry.startswith("/vsi"):
        return [entry]
    path = Path(entry).expanduser()
    if path.is_dir():
        return sorted(images_in(path))
    return [str(path)] if path.exists() else sorted(glob.glob(str(path), recursive=True))


def images_in(folder: Path) -> Iterator[str]:
    """Yield the GeoTIFFs in a folder and the folders in it, without those that are hidden."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(parent, name)


def image_names(files: Sequence[str], name_of: Callable[[Path], str] = attrgetter("stem")) -> dict[str, str]:
    """Return the name of each file: its own, or where several have the same, its folders and its name, joined by "_".

    Args:
        files: files and addresses
        name_of: name of a path of its own

    Raises:
        UserError: two files have the same name nevertheless
    """
    paths = {file: Path(os.path.abspath(file) if os.path.exists(file) else file) for file in files}
    own = {file: name_of(path) for file, path in paths.items()}
    counts = Counter(own.values())
    folders = [path.parent.parts for path in paths.values()] if len(counts) < len(paths) else []
    shared = sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False)))
    names: dict[str, str] = {}
    files_by_name: dict[str, str] = {}
    for file, name in own.items():
        if counts[name] > 1:
            name = "_".join([*paths[file].parent.parts[shared:], name])
        if (other := files_by_name.setdefault(name, file)) != file:
            raise UserError(
                f"{other} and {file} have the same name {name}; rename one of them",
                kind="conflict",
                key=file,
                value=name,
            )
        names[file] = name
    return names


def read_headers(root: Path, files: Sequence[str], pixel_size: float | None) -> list[ImageHeader]:
    """Return the headers of images; only files that are new or changed since the last call are opened.

    Args:
        root: folder whose cache is used
        files: files and addresses; an address is opened each time
        pixel_size: m, of the grids; None for that of each file

    Raises:
        UserError: a file cannot be opened, is complex or is not georeferenced
    """
    cache = cache_path(root, "images.json")
    keys = {file: fingerprint_of(file, pixel_size) for file in files}
    headers = read_cached(cache, keys)
    if headers.keys() != keys.keys():
        with lock(cache) as may_write:
            headers = read_cached(cache, keys)
            new = [file for file in files if file not in headers]
            shown = track(new, f"reading {counted(len(new), 'header')}") if len(new) >= MANY else new
            headers |= {file: read_header(file, pixel_size) for file in shown}
            if may_write:
                rows = [{"key": keys[file], **asdict(header)} for file, header in headers.items() if keys[file]]
                save(cache, lambda part: part.write_text(json.dumps(rows), encoding="utf-8"))
    return [headers[file] for file in files]


def fingerprint_of(file: str, pixel_size: float | None) -> str:
    """Return what a cached header depends on, as text; "" for an address, which may change unnoticed."""
    with suppress(OSError):
        return f"{image_fingerprint(file)} {pixel_size}"
    return ""


def read_cached(cache: Path, keys: dict[str, str]) -> dict[str, ImageHeader]:
    """Return the cached headers of the files that have not changed; none where the cache cannot be read."""
    headers = {}
    try:
        for row in json.loads(cache.read_text(encoding="utf-8")):
            if row.pop("key") == keys.get(row["path"]):
                row |= {"grid": Grid(*row["grid"]), "bands": tuple(row["bands"]), "names": tuple(row["names"])}
                headers[row["path"]] = ImageHeader(**row)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
    return headers


def read_header(file: str, pixel_size: float | None) -> ImageHeader:
    """Read the header of an image; errors of `read_headers`."""
    try:
        with open_raster(file) as source:
            refuse_complex(source)
            bands = tuple(data_bands(source))
            names = tuple(source.descriptions[band - 1] or "" for band in bands)
            grid, warped = grid_of(source, file, pixel_size)
            return ImageHeader(file, grid, warped, bands, names, source.dtypes[bands[0] - 1])
    except RasterioError as error:
        raise UserError(
            f"{file} cannot be opened as a raster ({first_line(error)}); give another file", kind="unreadable", key=file
        ) from None
