"""Download published weights of other authors, as files for `model.weights=`."""

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from urllib.parse import quote, unquote, urlencode, urlsplit

from sn6.acquire.archive import local_file
from sn6.acquire.catalogue import BASELINE_PREFIX, BUCKET
from sn6.acquire.remote import RemoteFile, Restart
from sn6.acquire.transfer import download_part, existing_folder
from sn6.acquire.unpack import unsafe_name
from sn6.errors import UserError

MAX_WEIGHTS = 10_000_000_000  # bytes of a file
MAX_LISTING = 10_000_000  # bytes of the bucket's listing, which names at most 1000 files


def download_weights(name: str, root: Path, work: Path, source: str | None) -> None:
    """Download `weights/baseline`, all files that the bucket lists, or one file from the address `source`.

    Raises:
        UserError: the weights are out of reach, or do not fit on the disk
    """
    folder = root / name
    if source is None:
        for key, size in list_bucket(BASELINE_PREFIX):
            download_file(f"{BUCKET}/{quote(key)}", folder / key.removeprefix(BASELINE_PREFIX), work, size)
    elif local := local_file(source):
        print(f"{local} needs no download: use it with model.weights={local}")
    else:
        file_name = Path(unquote(urlsplit(source).path)).name
        if not file_name or unsafe_name(file_name):
            message = f"invalid source={source}: it must end with the name of a file"
            raise UserError(message, kind="invalid_value", key="source", value=source)
        download_file(source, folder / file_name, work, RemoteFile(source, MAX_WEIGHTS).probe().length)


def download_file(url: str, path: Path, work: Path, size: int | None) -> None:
    """Download one file. No checksums of weights are published, so only the length is checked.

    Args:
        url: address of the file
        path: file to write
        work: folder for the unfinished file
        size: expected bytes, None where unknown
    """
    if path.exists() and path.stat().st_size == size:
        print(f"{path} is already there")
        return
    existing_folder(path.parent)
    part = download_part(url, work / path.name, MAX_WEIGHTS if size is None else size)
    found = part.stat().st_size
    if found != (found if size is None else size):
        part.unlink()
        message = f"{url} has {found} bytes, not the {size} that the bucket lists; run the same command again"
        raise UserError(message, kind="wrong_data", key=url, value=found)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, path)
    print(f"{path}: {found} bytes (no checksum is published); use it with model.weights={path}")


def list_bucket(prefix: str) -> list[tuple[str, int]]:
    """Return keys and sizes in bytes of the objects under a prefix of the bucket (S3's ListObjectsV2).

    Raises:
        UserError: the listing is out of reach, malformed or empty
    """
    url = f"{BUCKET}/?{urlencode({'list-type': '2', 'prefix': prefix})}"
    try:
        page = ElementTree.fromstring(b"".join(RemoteFile(url, MAX_LISTING).read(0)))
        objects = [
            (entry.findtext("{*}Key", ""), int(entry.findtext("{*}Size", ""))) for entry in page.iterfind("{*}Contents")
        ]
    except (ElementTree.ParseError, ValueError, Restart):
        message = f"{url} is not a listing of a bucket; set source= to the address of the file"
        raise UserError(message, kind="unreadable", key=url) from None
    files = [(key, size) for key, size in objects if key.startswith(prefix) and key != prefix and not unsafe_name(key)]
    if not files:
        message = f"{BUCKET} has no files under {prefix}; set source= to the address of the file"
        raise UserError(message, kind="not_found", key=url)
    return files
