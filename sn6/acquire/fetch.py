"""One file from a URL onto the disk; a stop in the middle leaves a `.part` that the next call goes on with."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from sn6.acquire.remote import Remote, StartAgain, Version
from sn6.files import write_text


def part_of(path: Path) -> Path:
    """What has come of the file `path` so far."""
    return path.with_name(f"{path.name}.part")


def card_of(path: Path) -> Path:
    """Which version of the file the part is of."""
    return path.with_name(f"{path.name}.part.json")


def held(path: Path, version: Version) -> int:
    """Bytes of this version of the file `path` that are here already."""
    try:
        same = json.loads(card_of(path).read_text()) == asdict(version)
        size = part_of(path).stat().st_size
    except (OSError, ValueError):
        return 0
    return size if same and version.length is not None and size <= version.length else 0


def fetch(remote: Remote, path: Path, report: Callable[[int], None]) -> None:
    """Downloads all of the file `path` into its part, from where an earlier call stopped.

    Args:
        remote: looked at, so that its version is known
        path: that the file will have
        report: is told how many bytes are here

    Raises:
        UserError: nothing but failures; what came so far is kept
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        start = held(path, remote.version)
        write_text(card_of(path), json.dumps(asdict(remote.version)))
        try:
            with part_of(path).open("r+b" if start else "wb") as file:
                file.seek(start)
                for piece in remote.read(start):
                    file.write(piece)
                    report(file.tell())
            return
        except StartAgain:
            part_of(path).unlink()
            remote.look()


def settle(path: Path, to: Path | None) -> None:
    """The part of the file `path` takes the name `to`, or is removed."""
    if to is None:
        part_of(path).unlink()
    else:
        os.replace(part_of(path), to)
    card_of(path).unlink()
