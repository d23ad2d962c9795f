"""Read a file from a URL, from any byte on, over as many connections as needed."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import requests
import urllib3

from sn6.errors import UserError, first_line

TRIES = 8  # consecutive failures without MIN_BYTES of new data
FIRST_WAIT = 1.0  # seconds before the second try, doubled before each further one
TIMEOUT = (20, 60)  # seconds to connect, seconds without a byte
WINDOW = 60.0  # seconds over which the speed is measured
MIN_BYTES = 60_000  # per window; a slower connection counts as broken
PIECE = 1 << 16  # bytes
RETRY_STATUSES = (408, 429, 500, 502, 503, 504)


class Restart(Exception):
    """The server cannot resume at this byte: discard what was read and read again from byte 0."""


class RetryableStatus(Exception):
    """A response status that may be temporary."""


RETRYABLE = (RetryableStatus, requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError)


class Version(NamedTuple):
    """What distinguishes one version of a file from another.

    Attributes:
        length: size in bytes, None where the server does not announce it
        validator: strong ETag, else the date of the last modification, else None
    """

    length: int | None
    validator: str | None


class RemoteFile:
    """Read a file from a URL, resuming after broken connections.

    Args:
        url: http or https address
        max_bytes: largest size that is accepted, announced or not

    Raises:
        UserError: from `probe` and `read`: the file is missing, larger than `max_bytes` or announced, or out of reach
    """

    def __init__(self, url: str, max_bytes: int) -> None:
        self.url = url
        self.max_bytes = max_bytes
        self.session = requests.Session()
        self.failures = 0  # since the last MIN_BYTES of new data
        self.counted = 0  # bytes read when `failures` was last set to 0
        self.version = Version(None, None)

    def probe(self) -> Version:
        """Request the length and the version without reading the body."""
        while True:
            try:
                with self._open(0):
                    return self.version
            except RETRYABLE as error:
                self._wait(error)

    def read(self, start: int) -> Iterator[bytes]:
        """Yield the bytes from `start` on, resuming where a connection breaks.

        Raises:
            Restart: the server ignores ranges, or the file has changed
        """
        position = start
        while position != self.version.length:
            try:
                with self._open(position) as response:
                    for piece in stream(response):
                        position += len(piece)
                        self._check_size(position)
                        if position - self.counted >= MIN_BYTES:
                            self.counted, self.failures = position, 0
                        yield piece
                if self.version.length in (None, position):
                    return
                raise urllib3.exceptions.ProtocolError("the body is too short")
            except RETRYABLE as error:
                self._wait(error)

    @contextmanager
    def _open(self, start: int) -> Iterator[requests.Response]:
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        try:
            response = self.session.get(self.url, headers=headers, stream=True, timeout=TIMEOUT)
        except requests.RequestException as error:
            if isinstance(error, RETRYABLE) and not isinstance(error, requests.exceptions.SSLError):
                raise
            message = f"cannot download {self.url}: {first_line(error)}; check the address"
            raise UserError(message, kind="unavailable", key=self.url) from None
        with response:
            self._check(response, start)
            yield response

    def _check(self, response: requests.Response, start: int) -> None:
        status = f"{response.status_code} {response.reason}"
        if response.status_code in RETRY_STATUSES:
            raise RetryableStatus(status)
        if start and response.status_code == 416:
            raise Restart
        if response.status_code not in (200, 206):
            kind = "not_found" if response.status_code in (404, 410) else "unavailable"
            raise UserError(f"cannot download {self.url}: {status}; check the address", kind=kind, key=self.url)
        if response.headers.get("Content-Type", "").startswith("text/html"):
            message = f"{self.url} is a web page; set source= to the address of the file itself"
            raise UserError(message, kind="wrong_data", key=self.url)
        version = version_of(response)
        if not start:
            self.version = version
            self._check_size(version.length or 0)
        elif version != self.version or not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise Restart

    def _check_size(self, size: int) -> None:
        allowed = min(self.max_bytes, self.max_bytes if self.version.length is None else self.version.length)
        if size > allowed:
            message = f"{self.url} is larger than the {allowed} bytes expected; check the address"
            raise UserError(message, kind="wrong_data", key=self.url, value=size)

    def _wait(self, error: Exception) -> None:
        # requests wraps the cause, such as NameResolutionError, in a ConnectionError
        cause = getattr(next(iter(error.args), None), "reason", None) or error
        reason = str(error) if isinstance(error, RetryableStatus) else f"connection failed ({type(cause).__name__})"
        self.failures += 1
        if self.failures >= TRIES:
            message = f"cannot download {self.url}: {reason} after {TRIES} tries; run the same command again later"
            raise UserError(message, kind="unavailable", key=self.url)
        wait = FIRST_WAIT * 2 ** (self.failures - 1)
        print(f"sn6: {reason}; trying again in {wait:.0f} s", file=sys.stderr)
        time.sleep(wait)


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


def version_of(response: requests.Response) -> Version:
    """Return the version of a full (200) or partial (206) response."""
    headers = response.headers
    etag = headers.get("ETag", "")
    length = headers.get("Content-Length", "")
    if response.status_code == 206:
        length = headers.get("Content-Range", "").rpartition("/")[2]
    return Version(
        length=int(length) if length.isdecimal() and len(length) < 20 else None,
        validator=etag if etag.startswith('"') else headers.get("Last-Modified"),
    )
