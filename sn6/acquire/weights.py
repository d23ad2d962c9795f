"""Download published weights of other authors, as files for `model.weights=`."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from urllib.parse import quote, unquote, urlencode, urlsplit

from sn6.acquire.archive import check_folder, local_file
from sn6.acquire.catalogue import BASELINE_PREFIX, BUCKET
from sn6.acquire.transfer import download_file, finish
from sn6.acquire.unpack import unsafe_name
from sn6.errors import UserError

MAX_WEIGHTS = 10_000_000_000  # bytes of a file
MAX_LISTING = 10_000_000  # bytes of the bucket's listing, which has at most 1000 files


def download_weights(name: str, root: Path, work: Path, source: str | None) -> None:
    """Download all files that the bucket lists for `weights/baseline`, or one file from the address `source`.

    No checksums of weights are published, so only the length is checked.

    Raises:
        UserError: the weights are out of reach, or do not fit on the disk
    """
    addresses: dict[str, tuple[str, int | None]]
    if source is None:
        addresses = list_bucket(BASELINE_PREFIX, work / "listing.part")
    elif path := local_file(source):
        print(f"{path} needs no download; use it as model.weights={path}")
        return
    else:
        addresses = {Path(unquote(urlsplit(source).path)).name: (source, None)}
    for relative, (url, size) in addresses.items():
        if not relative or unsafe_name(relative):
            message = f"{url} does not end with the name of a file; check the address"
            raise UserError(message, kind="invalid_value", key="source", value=source)
        path, part = root / name / relative, work / f"{relative.replace('/', '_')}.part"
        if path.exists() and size in (None, path.stat().st_size):
            print(f"{path} already exists")
            continue
        check_folder(path.parent)
        download_file(url, part, MAX_WEIGHTS if size is None else size)
        received = part.stat().st_size
        if size not in (None, received):
            finish(part, None)
            message = f"{url} has {received} bytes, not {size} as listed; run the same command again"
            raise UserError(message, kind="wrong_data", key=url, value=received)
        path.parent.mkdir(parents=True, exist_ok=True)
        finish(part, path)
        print(f"{path}: {received} bytes (no checksum is published); use it with model.weights={path}")


def list_bucket(prefix: str, part: Path) -> dict[str, tuple[str, int | None]]:
    """Return address and bytes of the files under a prefix of the bucket, by relative path (S3's ListObjectsV2).

    Raises:
        UserError: the listing is out of reach, malformed or empty
    """
    url = f"{BUCKET}/?{urlencode({'list-type': '2', 'prefix': prefix})}"
    files: dict[str, tuple[str, int | None]] = {}
    finish(part, None)  # an earlier listing
    download_file(url, part, MAX_LISTING)
    try:
        for entry in ElementTree.parse(part).iterfind("{*}Contents"):
            key, size = entry.findtext("{*}Key", ""), int(entry.findtext("{*}Size", ""))
            if key.startswith(prefix) and key != prefix:
                files[key.removeprefix(prefix)] = (f"{BUCKET}/{quote(key)}", size)
    except (ElementTree.ParseError, ValueError):
        message = f"{url} is not a listing of a bucket; set source= to the address of the file"
        raise UserError(message, kind="unreadable", key=url) from None
    finally:
        finish(part, None)
    if not files:
        message = f"{BUCKET} has no files under {prefix}; set source= to the address of the file"
        raise UserError(message, kind="not_found", key=url)
    return files
