"""Serve files from a small web server with faults, and make tarballs by hand."""

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np

STRIP = "20190822070610_20190822070846"
PRODUCTS = ("SAR-Intensity", "PS-RGB", "PS-RGBNIR", "RGBNIR", "PAN")


class Cut(NamedTuple):
    """Break the connection after this many bytes of the body."""

    after: int


class Stall(NamedTuple):
    """Send nothing more after this many bytes of the body."""

    after: int


class Trickle(NamedTuple):
    """Send one byte every 10 ms after this many bytes of the body."""

    after: int


class Status(NamedTuple):
    """Respond with another status than 200."""

    code: int


class Endless(NamedTuple):
    """Send the body again and again, without a Content-Length, in chunks or not."""

    chunked: bool


Fault = Cut | Stall | Trickle | Status | Endless


class Served:
    """What a server sends, and the requests that it received.

    Attributes:
        files: contents by path
        etags: ETags by path
        headers: additional headers of every response
        ranges: whether the server supports range requests
        faults: faults of the next requests, in order; None is none
        missing: bytes that are announced and not sent
        requests: path and Range header of every request
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.etags: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        self.ranges = True
        self.faults: list[Fault | None] = []
        self.missing = 0
        self.requests: list[tuple[str, str | None]] = []
        self.stopped = threading.Event()
        self.url = ""

    @property
    def requested_ranges(self) -> list[str | None]:
        """Return the Range header of every request."""
        return [requested for _, requested in self.requests]


def respond(handler: BaseHTTPRequestHandler, served: Served) -> None:
    """Respond to a GET request, with the next fault."""
    requested = handler.headers.get("Range")
    served.requests.append((handler.path, requested))
    fault = served.faults.pop(0) if served.faults else None
    if isinstance(fault, Status):
        handler.send_response(fault.code)
        handler.end_headers()
        return
    if handler.path not in served.files:
        handler.send_error(404)
        return
    body, etag = served.files[handler.path], served.etags.get(handler.path, '"first"')
    start = 0
    if requested and served.ranges:
        start = int(requested.removeprefix("bytes=").removesuffix("-"))
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
    else:
        handler.send_response(200)
    handler.send_header("ETag", etag)
    if not isinstance(fault, Endless):
        handler.send_header("Content-Length", str(len(body) - start + served.missing))
    elif fault.chunked:
        handler.send_header("Transfer-Encoding", "chunked")
    for name, value in served.headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    send_body(handler, served, fault, body[start:])


def send_body(handler: BaseHTTPRequestHandler, served: Served, fault: Fault | None, body: bytes) -> None:
    """Send the body of a response, with a fault."""
    if isinstance(fault, Endless):
        chunk = b"%X\r\n%b\r\n" % (len(body), body) if fault.chunked else body
        while not served.stopped.is_set():
            handler.wfile.write(chunk)
    elif fault is None:
        handler.wfile.write(body)
    else:
        handler.wfile.write(body[: fault.after])
        handler.wfile.flush()
        if isinstance(fault, Stall):
            served.stopped.wait(60)
        elif isinstance(fault, Trickle):
            for byte in body[fault.after :]:
                served.stopped.wait(0.01)
                handler.wfile.write(bytes([byte]))


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[Served]:
    """Serve files by path at `served.url`, from a thread."""
    served = Served(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(ConnectionError):  # the client closes a connection that it does not read to the end
                respond(self, served)

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        served.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


def archive_files(seed=0, tiles=3, size=20_000, split="Train") -> dict[str, bytes]:
    """Return the files under AOI_11_Rotterdam by path, with the published names and noise for pixels."""
    noise = np.random.default_rng(seed)
    products = PRODUCTS if split == "Train" else PRODUCTS[:1]
    files = {
        f"{product}/SN6_{split}_AOI_11_Rotterdam_{product}_{STRIP}_tile_{tile}.tif": noise.bytes(size)
        for product in products
        for tile in range(tiles)
    }
    if split == "Train":
        for tile in range(tiles):
            files[f"geojson_buildings/SN6_Train_AOI_11_Rotterdam_Buildings_{STRIP}_tile_{tile}.geojson"] = b"{}"
        files["SummaryData/SAR_orientations.txt"] = f"{STRIP} 1\n".encode()
        files["SummaryData/SN6_Train_AOI_11_Rotterdam_Buildings.csv"] = b"ImageId\n"
    return files


def pack(files: dict[str, bytes], top="train/AOI_11_Rotterdam/", members: tuple[tarfile.TarInfo, ...] = ()) -> bytes:
    """Return a .tar.gz of the files under `top`, with additional members after the first file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
        for number, (name, body) in enumerate(files.items()):
            tar.addfile(member(top + name, size=len(body)), io.BytesIO(body))
            for other in members if number == 0 else ():
                tar.addfile(other, io.BytesIO(bytes(other.size)))
    return packed.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0, **pax: str) -> tarfile.TarInfo:
    """Return the header of a member of a tarball, with additional PAX headers (`_` for `.` in their names)."""
    header = tarfile.TarInfo(name)
    header.type, header.linkname, header.size = kind, link, size
    header.pax_headers = {key.replace("_", "."): value for key, value in pax.items()}
    return header


def md5_of(body: bytes) -> str:
    """Return the MD5 checksum as hex digits."""
    return hashlib.md5(body).hexdigest()


def files_below(root: Path) -> dict[str, bytes]:
    """Return the content of every file under a folder, by path."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
