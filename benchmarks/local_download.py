"""Serve a tarball of the published layout from this machine."""

import io
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from sn6.datasets.spacenet6 import AOI, PRODUCTS

STRIP = "20190822070610_20190822070846"


def write_tarball(path: Path, megabytes: int) -> None:
    """Write an archive of one tile in all products, all of the same bytes, and the labels."""
    noise = np.random.default_rng(0).bytes(megabytes * 1_000_000 // len(PRODUCTS))
    files = {f"{product}/SN6_Train_{AOI}_{product}_{STRIP}_tile_1.tif": noise for product in PRODUCTS}
    files |= {
        f"geojson_buildings/SN6_Train_{AOI}_Buildings_{STRIP}_tile_1.geojson": b"{}",
        "SummaryData/SAR_orientations.txt": f"{STRIP} 1\n".encode(),
        f"SummaryData/SN6_Train_{AOI}_Buildings.csv": b"ImageId\n",
    }
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, body in files.items():
            member = tarfile.TarInfo(f"train/{AOI}/{name}")
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve the files of a folder, and yield the address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def copyfile(self, source: Any, outputfile: Any) -> None:
            with suppress(ConnectionError):  # a client may close the connection early
                super().copyfile(source, outputfile)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
