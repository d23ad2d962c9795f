"""Whether a download fits onto the disk."""

import shutil
from pathlib import Path

from rich.filesize import decimal

from sn6.errors import UserError


def check_room(what: str, root: Path, download: int | None, held: int, unpacked: int | None, stream: bool) -> None:
    """Says what is to come and what room there is.

    Args:
        what: is downloaded
        root: where to; made later if missing
        download: bytes of the file, None where that is not known, 0 for a file that is here
        held: bytes of it that are here already
        unpacked: bytes of what comes out of it, None where it is not unpacked
        stream: whether the file itself never lies on the disk

    Raises:
        UserError: it does not fit
    """
    folder = root.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    to_come = (download or 0) - held
    parts = []
    if download is None:
        parts.append("a file of unknown size to download")
    elif download:
        parts.append(f"{decimal(to_come)} to download" + (f" ({decimal(held)} are here already)" if held else ""))
    if unpacked is not None:
        parts.append(f"about {decimal(unpacked)} unpacked")
    print(f"{what}: {', '.join(parts)}; {decimal(free)} free in {folder}", flush=True)
    needed = (0 if stream else to_come) + (unpacked or 0)
    if needed > free:
        ways = "make room or choose another root="
        if unpacked is not None:
            ways += ", or fewer by products=" + ("" if stream or not download else ", or stream=true")
        raise UserError(f"{what} needs {decimal(needed)} in {folder}, where {decimal(free)} are free; {ways}")
