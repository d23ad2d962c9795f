"""A small web server with faults, and tarballs made by hand."""

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import numpy as np

STRIP = "20190822070610_20190822070846"
PRODUCTS = ("SAR-Intensity", "PS-RGB", "PS-RGBNIR", "RGBNIR", "PAN")


class Cut(NamedTuple):
    """The connection breaks after this many bytes of the answer."""

    after: int


class Stall(NamedTuple):
    """Nothing more comes after this many bytes of the answer."""

    after: int


class Status(NamedTuple):
    """Another status than 200."""

    code: int
    retry_after: str | None = None


class Served:
    """What a server gives, and what it was asked.

    Attributes:
        files: by path
        etags: by path
        headers: of every answer
        ranges: whether it knows them
        faults: of the next requests, in order; None is none
        claimed: bytes more than there are
        asked: path and Range of every request
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.etags: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        self.ranges = True
        self.faults: list[Cut | Stall | Status | None] = []
        self.claimed = 0
        self.asked: list[tuple[str, str | None]] = []
        self.released = threading.Event()
        self.url = ""

    @property
    def asked_ranges(self) -> list[str | None]:
        return [asked for _, asked in self.asked]


def answer(handler: BaseHTTPRequestHandler, served: Served) -> None:
    asked = handler.headers.get("Range")
    served.asked.append((handler.path, asked))
    fault = served.faults.pop(0) if served.faults else None
    if isinstance(fault, Status):
        handler.send_response(fault.code)
        if fault.retry_after is not None:
            handler.send_header("Retry-After", fault.retry_after)
        handler.end_headers()
        return
    if handler.path not in served.files:
        handler.send_error(404)
        return
    body, etag = served.files[handler.path], served.etags.get(handler.path, '"first"')
    start = 0
    if asked and served.ranges:
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
    else:
        handler.send_response(200)
    handler.send_header("ETag", etag)
    handler.send_header("Content-Length", str(len(body) - start + served.claimed))
    for name, value in served.headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    end = len(body) if fault is None else start + fault.after
    handler.wfile.write(body[start:end])
    handler.wfile.flush()
    if isinstance(fault, Stall):
        served.released.wait(60)


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[Served]:
    """The files by path, at `served.url`, from a thread."""
    served = Served(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(ConnectionError):  # who only looks hangs up
                answer(self, served)

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
        served.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def archive_files(seed=0, tiles=3, size=20_000, split="Train") -> dict[str, bytes]:
    """What lies under AOI_11_Rotterdam, by path: names as published, noise for pixels."""
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
    """A .tar.gz of the files under `top`, with other members after the first file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
        for number, (name, body) in enumerate(files.items()):
            member = tarfile.TarInfo(top + name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
            for other in members if number == 0 else ():
                tar.addfile(other, io.BytesIO(b"x" * other.size))
    return packed.getvalue()


def md5_of(body: bytes) -> str:
    return hashlib.md5(body).hexdigest()
