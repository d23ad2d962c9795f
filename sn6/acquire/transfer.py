"""Download one file over as many connections as needed, resuming after a stop."""

import io
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import urllib3
from rich.filesize import decimal

from sn6.errors import Kind, UserError, first_line
from sn6.files import write_text
from sn6.progress import Phase, phase

TRIES = 8  # consecutive failures without MIN_BYTES of new data
FIRST_WAIT = 1.0  # seconds before the second try, doubled before each further one
TIMEOUT = (20, 60)  # seconds to connect, seconds without a byte
WINDOW = 60.0  # seconds over which the speed is measured
MIN_BYTES = 60_000  # per window; a slower connection counts as broken
PIECE = 1 << 16  # bytes
RETRY_STATUSES = (408, 429, 500, 502, 503, 504)


class Interrupted(Exception):
    """A response after which it is worth trying again."""


RETRYABLE = (Interrupted, requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError)


def download_file(url: str, part: Path, max_bytes: int, expansion: float = 0.0) -> None:
    """Download a file to `part`, resuming what an earlier call left of the same version.

    Args:
        url: http or https address
        part: file to write; `finish` moves it, and removes the file with its version beside it
        max_bytes: largest size that is accepted, announced or not
        expansion: bytes to unpack per byte of the file, for which the disk needs space too

    Raises:
        UserError: the file is out of reach, missing, too large, or does not fit on the disk
    """
    failures, counted = 0, 0
    with requests.Session() as session:
        while True:
            try:
                receive(session, url, part, max_bytes, expansion)
                return
            except (requests.RequestException, *RETRYABLE) as error:
                if not isinstance(error, RETRYABLE) or isinstance(error, requests.exceptions.SSLError):
                    message = f"cannot download {url}: {first_line(error)}; check the address"
                    raise UserError(message, kind="unavailable", key=url) from None
                # requests wraps the cause, such as NameResolutionError, in a ConnectionError
                cause = getattr(next(iter(error.args), None), "reason", None) or error
                reason = str(error) if isinstance(error, Interrupted) else type(cause).__name__
            received = part.stat().st_size if part.exists() else 0
            if received >= counted + MIN_BYTES:
                failures, counted = 0, received
            failures += 1
            if failures == TRIES:
                message = f"cannot download {url} in {TRIES} attempts: {reason}; run the same command again later"
                raise UserError(message, kind="unavailable", key=url)
            wait = FIRST_WAIT * 2 ** (failures - 1)
            print(f"sn6: download interrupted ({reason}); trying again in {wait:.0f} s", file=sys.stderr)
            time.sleep(wait)


def receive(session: requests.Session, url: str, part: Path, max_bytes: int, expansion: float) -> None:
    """Request what is missing in `part` and append it."""
    version_file = version_path(part)
    earlier = json.loads(version_file.read_text()) if version_file.exists() else {}
    start = part.stat().st_size if earlier.get("url") == url and part.exists() else 0
    if start and start == earlier["length"]:
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        check_response(url, response, start)
        version = version_of(url, response)
        if start and (
            version != earlier or not response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        ):
            part.unlink()
            raise Interrupted("the server cannot resume, or the file has changed")
        if not start:
            part.unlink(missing_ok=True)  # before its version is replaced
        length = version["length"]
        check_size(url, length or 0, max_bytes)
        check_disk_space(part, (length or 0) - start, (length or 0) * expansion)
        write_text(version_file, json.dumps(version))
        with part.open("ab") as file, phase("downloading", length, in_bytes) as shown:
            shown.resume(start)
            for piece in stream(response):
                check_size(url, file.tell() + len(piece), max_bytes if length is None else length)
                file.write(piece)
                shown.update(file.tell())
            if length not in (None, file.tell()):
                raise urllib3.exceptions.ProtocolError


def check_response(url: str, response: requests.Response, start: int) -> None:
    """Raise Interrupted for a status that may be temporary, and a UserError for one that is not, or for a web page."""
    status, message = response.status_code, f"{response.status_code} {response.reason}"
    if status in RETRY_STATUSES:
        raise Interrupted(message)
    if status != 200 and not (start and status in (206, 416)):
        kind: Kind = "not_found" if status in (404, 410) else "unavailable"
        raise UserError(f"cannot download {url}: {message}; check the address", kind=kind, key=url, value=status)
    if response.headers.get("Content-Type", "").startswith("text/html"):
        message = f"{url} is a web page; set source= to the address of the file itself"
        raise UserError(message, kind="wrong_data", key=url)


def version_of(url: str, response: requests.Response) -> dict[str, Any]:
    """Return URL, length in bytes (None if not announced) and strong ETag or date of the file of a response."""
    headers = response.headers
    etag, length = headers.get("ETag", ""), headers.get("Content-Length", "")
    if response.status_code == 206:
        length = headers.get("Content-Range", "").rpartition("/")[2]
    return {
        "url": url,
        "length": int(length) if length.isdecimal() and len(length) < 20 else None,
        "validator": etag if etag.startswith('"') else headers.get("Last-Modified"),
    }


def stream(response: requests.Response) -> Iterator[bytes]:
    """Yield the body as it arrives, without decoding it.

    Raises:
        urllib3.exceptions.TimeoutError: fewer than MIN_BYTES arrived in WINDOW seconds
    """
    started, received = time.monotonic(), 0
    while piece := response.raw.read1(PIECE, decode_content=False):  # read() would wait for a full piece
        yield piece
        received += len(piece)
        if (now := time.monotonic()) - started >= WINDOW:
            if received < MIN_BYTES:
                raise urllib3.exceptions.TimeoutError
            started, received = now, 0


def check_size(url: str, size: int, max_bytes: int) -> None:
    """Raise a UserError where `size` bytes of a file are too many."""
    if size > max_bytes:
        message = f"{url} is larger than the expected {max_bytes} bytes; check the address"
        raise UserError(message, kind="wrong_data", key=url, value=size)


def version_path(part: Path) -> Path:
    """Return the path of the file that holds URL, length and ETag or date of an unfinished download."""
    return part.with_name(f"{part.name}.version")


def finish(part: Path, target: Path | None) -> None:
    """Move a download to its place, or remove it where that is None."""
    if target is not None:
        os.replace(part, target)
    part.unlink(missing_ok=True)
    version_path(part).unlink(missing_ok=True)


class ShownFile(io.BufferedReader):
    """A file whose reading is shown.

    Args:
        path: the file
        shown: phase of its size
    """

    def __init__(self, path: Path, shown: Phase) -> None:
        super().__init__(io.FileIO(path))
        self.shown = shown

    def read(self, size: int | None = -1) -> bytes:
        """Read up to `size` bytes; all where it is negative or None."""
        piece = super().read(size)
        self.shown.update(self.tell())
        return piece


@contextmanager
def open_shown(path: Path, name: str) -> Iterator[ShownFile]:
    """Open a file for reading and show the progress under a name, such as "unpacking train"."""
    with phase(name, path.stat().st_size, in_bytes) as shown, ShownFile(path, shown) as file:
        yield file


def in_bytes(size: float) -> str:
    """Return a number of bytes as text: `3.2 MB`."""
    return decimal(round(size))


def check_disk_space(path: Path, download: float, unpacked: float) -> None:
    """Print the bytes to write in the folder of `path` and what is free there, and require that they fit.

    Raises:
        UserError: they do not fit
    """
    free = shutil.disk_usage(path.parent).free
    sizes = f"{decimal(round(download))} to download, about {decimal(round(unpacked))} to unpack"
    print(f"{path.name.removesuffix('.part')}: {sizes}; {decimal(free)} free in {path.parent}", flush=True)
    if download + unpacked > free:
        missing = decimal(round(download + unpacked - free))
        message = f"{path.parent} needs {missing} more free space; free some, or choose another root="
        raise UserError(message, kind="unwritable", key=path.parent, value=free)
