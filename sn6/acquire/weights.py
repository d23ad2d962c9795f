"""Published weights of others, as files for `model.weights=`."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from urllib.parse import quote, unquote, urlencode, urlsplit

from sn6.acquire.catalogue import BASELINE_PREFIX, BUCKET
from sn6.acquire.disk_space import check_room
from sn6.acquire.fetch import fetch, held, settle
from sn6.acquire.progress import transfer_bar
from sn6.acquire.remote import Remote
from sn6.acquire.unpack import strays
from sn6.errors import UserError


def get_baseline(folder: Path) -> None:
    """All weights of the challenge's baseline, by the bucket's own list of them.

    Raises:
        UserError: the bucket is out of reach, or the files do not fit
    """
    for key, size in listed(BASELINE_PREFIX):
        get_file(f"{BUCKET}/{quote(key)}", folder / key.removeprefix(BASELINE_PREFIX), size)


def get_from(source: str, folder: Path) -> None:
    """One file of weights from an address; one on the disk is usable where it is.

    Raises:
        UserError: there is no such file
    """
    if "://" in source:
        name = Path(unquote(urlsplit(source).path)).name
        if not name:
            raise UserError(f"source={source} names no file; give the file's own address")
        get_file(source, folder / name, None)
    elif Path(source).is_file():
        print(f"{source} is usable as it is: model.weights={source}")
    else:
        raise UserError(f"source={source} is no file and no address; check it")


def get_file(url: str, path: Path, size: int | None) -> None:
    """Downloads one file. No checksum of any weights is published: the length alone is checked.

    Args:
        url: of the file
        path: to write
        size: bytes that it should have, None where nobody says
    """
    if size is not None and path.exists() and path.stat().st_size == size:
        print(f"{path} is already there and whole")
        return
    remote = Remote(url)
    length = remote.look().length
    if size is not None and length != size:
        raise UserError(f"{url} has {length} bytes, not the {size} of the bucket's list; run the same command again")
    if path.exists() and path.stat().st_size == length:
        print(f"{path} is already there and whole")
        return
    here = held(path, remote.version)
    check_room(path.name, path.parent, length, here, None, stream=False)
    with transfer_bar(f"downloading {path.name}", length, here) as report:
        fetch(remote, path, report)
    settle(path, path)
    print(f"{path}: {path.stat().st_size} bytes (no checksum is published); use it by model.weights={path}")


def listed(prefix: str) -> list[tuple[str, int]]:
    """Keys and sizes in bytes of the objects of the bucket under a prefix (S3's ListObjectsV2).

    Raises:
        UserError: the bucket gives no list, or there is nothing
    """
    found: list[tuple[str, int]] = []
    query = {"list-type": "2", "prefix": prefix}
    while True:
        url = f"{BUCKET}/?{urlencode(query)}"
        try:
            page = ElementTree.fromstring(b"".join(Remote(url).read(0)))
            for entry in page.iterfind("{*}Contents"):
                found.append((entry.findtext("{*}Key", ""), int(entry.findtext("{*}Size", ""))))
        except (ElementTree.ParseError, ValueError):
            raise UserError(f"{url} is no list of a bucket; give the address of the file by source=") from None
        token = page.findtext("{*}NextContinuationToken")
        if not token:
            break
        query["continuation-token"] = token
    files = [(key, size) for key, size in found if key.startswith(prefix) and key != prefix and not strays(key)]
    if not files:
        raise UserError(f"{BUCKET} has nothing under {prefix}; give the address of the file by source=")
    return files
