"""A file behind a URL, read from any byte on, over as many connections as it takes."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import requests
import urllib3
from requests.exceptions import SSLError

from sn6.errors import UserError, first_line

TRIES = 8  # in a row that bring no new byte
FIRST_WAIT = 1.0  # seconds before the second try, doubled before each further one
LONGEST_WAIT = 300.0  # seconds, whatever the server asks for
TIMEOUT = (20, 60)  # seconds to connect, seconds without a byte
PIECE = 1 << 16  # bytes
BUSY = (408, 429, 500, 502, 503, 504)  # statuses that may pass


class StartAgain(Exception):
    """The server does not go on where the reading stopped: read from byte 0, and throw away what came before."""


class Busy(Exception):
    """A status that may pass.

    Attributes:
        wait: seconds that the server asks for
    """

    def __init__(self, response: requests.Response) -> None:
        super().__init__(told(response))
        asked = response.headers.get("Retry-After")
        try:
            self.wait = urllib3.Retry().parse_retry_after(asked) if asked else None
        except urllib3.exceptions.InvalidHeader:
            self.wait = None


TRANSIENT = (
    Busy,
    requests.ConnectionError,
    requests.Timeout,
    urllib3.exceptions.HTTPError,  # of a body that breaks off
)


@dataclass(frozen=True)
class Version:
    """What tells one version of a file from another.

    Attributes:
        length: in bytes, None where the server does not say
        validator: a strong ETag, else the date of the last change, else None
    """

    length: int | None
    validator: str | None


class Remote:
    """A file behind a URL.

    Args:
        url: http or https

    Raises:
        UserError: no such file, no access, or nothing but failures
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.failures = 0  # since the last new byte
        self.farthest = 0  # byte
        self.version = Version(None, None)

    def look(self) -> Version:
        """Asks for the length and the version, without reading."""
        while True:
            try:
                with self._answer(0):
                    return self.version
            except TRANSIENT as error:
                self._pause(error)

    def read(self, start: int) -> Iterator[bytes]:
        """The bytes from `start` on. A connection that breaks is taken up again where it broke.

        Raises:
            StartAgain: the server does not know ranges, or its file is another one now
        """
        at = start
        while at != self.version.length:
            try:
                with self._answer(at) as response:
                    for piece in response.raw.stream(PIECE, decode_content=False):
                        at += len(piece)
                        if at > self.farthest:
                            self.farthest, self.failures = at, 0
                        yield piece
                if self.version.length in (None, at):
                    return
                raise urllib3.exceptions.ProtocolError
            except TRANSIENT as error:
                self._pause(error)

    @contextmanager
    def _answer(self, at: int) -> Iterator[requests.Response]:
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={at}-"} if at else {})
        try:
            response = self.session.get(self.url, headers=headers, stream=True, timeout=TIMEOUT)
        except SSLError as error:
            raise UserError(f"{self.url}: the certificate is not trusted ({first_line(error)})") from None
        except (requests.ConnectionError, requests.Timeout):
            raise
        except requests.RequestException as error:
            raise UserError(f"{self.url} does not do as an address ({first_line(error)}); check source=") from None
        with response:
            self._check(response, at)
            yield response

    def _check(self, response: requests.Response, at: int) -> None:
        if response.status_code in BUSY:
            raise Busy(response)
        if at and response.status_code == 416:
            raise StartAgain
        if response.status_code not in (200, 206):
            raise UserError(f"{self.url}: {told(response)}; check the address, or give another by source=")
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise UserError(f"{self.url} is a web page and not a file; give the file's own address by source=")
        version = version_of(response)
        if not at:
            self.version = version
        elif version != self.version or not response.headers.get("Content-Range", "").startswith(f"bytes {at}-"):
            raise StartAgain

    def _pause(self, error: Exception) -> None:
        self.failures += 1
        reason = str(error) if isinstance(error, Busy) else f"the connection failed ({cause_of(error)})"
        if self.failures >= TRIES:
            raise UserError(
                f"{self.url}: {TRIES} tries in a row brought nothing new, the last one {reason}; "
                "run the same command again later"
            )
        asked = getattr(error, "wait", None)
        wait = min(FIRST_WAIT * 2 ** (self.failures - 1) if asked is None else asked, LONGEST_WAIT)
        print(f"sn6: {reason}; trying again in {wait:.0f} s", file=sys.stderr)
        time.sleep(wait)


def version_of(response: requests.Response) -> Version:
    """From the headers of a whole answer (200) or of a range (206)."""
    headers = response.headers
    if response.status_code == 206:
        length = headers.get("Content-Range", "").rpartition("/")[2]
    else:
        length = headers.get("Content-Length", "")
    etag = headers.get("ETag", "")
    validator = etag if etag.startswith('"') else headers.get("Last-Modified")
    return Version(int(length) if length.isdecimal() else None, validator)


def cause_of(error: Exception) -> str:
    """Such as `NameResolutionError`, which requests hides in an error in its ConnectionError."""
    return type(getattr(next(iter(error.args), None), "reason", None) or error).__name__


def told(response: requests.Response) -> str:
    """Such as `404 Not Found`."""
    return f"{response.status_code} {response.reason}"
