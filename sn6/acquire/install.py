"""What of an archive is in its place, and how new folders come there: whole, by a rename."""

import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sn6.acquire.catalogue import LABELS, TARBALLS
from sn6.datasets.layout import PRODUCTS, Split
from sn6.errors import UserError
from sn6.files import write_text

CARD = "download.json"  # in the split's folder: what was unpacked there
SUFFIXES = (".tif", ".geojson", ".csv", ".txt")


@dataclass(frozen=True)
class Tally:
    """What a folder holds."""

    files: int
    bytes: int


def tallies(place: Path) -> dict[str, Tally]:
    """Of the folders in `place` that hold anything published, by name; what other programs add does not count."""
    found = {}
    for folder in sorted(place.iterdir()) if place.is_dir() else []:
        if folder.is_dir():
            sizes = [entry.stat().st_size for entry in os.scandir(folder) if entry.name.endswith(SUFFIXES)]
            if sizes:
                found[folder.name] = Tally(len(sizes), sum(sizes))
    return found


def read_card(place: Path) -> dict[str, Any]:
    """What `install` wrote: `folders` by name, and whether they are all of their tarball."""
    try:
        card = json.loads((place / CARD).read_text())
        return {"folders": {name: Tally(**tally) for name, tally in card["folders"].items()}, "all": card["all"]}
    except FileNotFoundError:
        return {"folders": {}, "all": False}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{place / CARD} is broken; remove it, or choose another root=") from None


def missing_folders(place: Path, split: Split, products: Collection[str] | None) -> set[str]:
    """The folders that are wanted and not there.

    Args:
        place: the split's folder
        split: of the archive
        products: None is all

    Raises:
        UserError: a wanted folder is there in part, or is another archive's
    """
    tarball, card = TARBALLS[split], read_card(place)
    known, there = card["folders"], tallies(place)
    labels = set(LABELS) & set(known or tarball.folders)
    wanted = labels | set(products or ())
    if products is None:
        wanted |= set(known if card["all"] else tarball.folders)
    for folder in sorted(wanted & set(there)):
        files, size = there[folder].files, there[folder].bytes
        if folder in known and there[folder] != known[folder]:
            expected = f"{known[folder].files} files of {known[folder].bytes} bytes as it was unpacked"
        elif folder not in known and folder in PRODUCTS and files != tarball.tiles:
            expected = f"the {tarball.tiles} files that are published"
        else:
            continue
        raise UserError(
            f"{place / folder} holds {files} files of {size} bytes, not {expected}; move or remove that folder and "
            "run the same command again, or choose another root="
        )
    return wanted - set(there)


@contextmanager
def working_folder(root: Path) -> Iterator[Path]:
    """A hidden folder in `root`, on its file system, for what is not done yet; removed in the end if it is empty.

    Raises:
        UserError: another process works in it
    """
    work = root / ".download"
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"another sn6.download works in {root}; wait for it, or choose another root=") from None
    try:
        yield work
    finally:
        lock.release()
        with suppress(OSError):
            (work / "lock").unlink(missing_ok=True)
            for folder in (work, *made):
                folder.rmdir()


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """An empty folder to unpack into. What of it was not installed is removed in the end."""
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def install(staged: Path, place: Path, everything: bool) -> None:
    """Moves the folders in `staged` to the split's folder, each whole.

    The card is there before the folders are, so that a stop between two renames leaves a folder missing and not one
    unknown.

    Args:
        staged: on the same file system as `place`
        place: where folders of these names are missing or empty
        everything: whether the tarball has nothing more
    """
    new, before = not place.exists(), read_card(place)
    folders = {name: asdict(tally) for name, tally in (before["folders"] | tallies(staged)).items()}
    card = json.dumps({"folders": folders, "all": everything or before["all"]}, indent=2) + "\n"
    write_text((staged if new else place) / CARD, card)
    if new:
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(staged, place)
        return
    for path in sorted(staged.iterdir()):
        with suppress(OSError):
            (place / path.name).rmdir()  # an empty folder of this name
        os.replace(path, place / path.name)
