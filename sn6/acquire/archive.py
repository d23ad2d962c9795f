"""The train or public test set into an archive: from the bucket, another address, a tarball or an unpacked folder."""

import os
import shlex
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sn6.acquire.catalogue import LABELS, TARBALLS, unpacked_size
from sn6.acquire.disk_space import check_room
from sn6.acquire.fetch import fetch, held, part_of, settle
from sn6.acquire.install import CARD, install, missing_folders, staging, tallies
from sn6.acquire.progress import transfer_bar
from sn6.acquire.remote import PIECE, Remote, StartAgain
from sn6.acquire.unpack import Refused, unpack
from sn6.datasets.layout import AOI, PRODUCTS, SPLIT_NAMES, Split, split_folder
from sn6.errors import UserError


@dataclass(frozen=True)
class Order:
    """What is wanted of a split.

    Attributes:
        split: train or test_public
        root: of the archive
        work: folder for what is not done yet, on the same file system as `root`
        products: None is all
        md5: that the tarball must have, or "unchecked"
        stream: unpack while it downloads
        keep: the downloaded tarball, in `root`
    """

    split: Split
    root: Path
    work: Path
    products: tuple[str, ...] | None
    md5: str
    stream: bool
    keep: bool

    @property
    def place(self) -> Path:
        """The split's folder."""
        return split_folder(self.root, self.split)

    @property
    def name(self) -> str:
        """Of the tarball."""
        return TARBALLS[self.split].name

    @property
    def kept(self) -> Path:
        """Where a tarball that is kept lies."""
        return self.root / self.name


def get_archive(order: Order, source: str | None) -> None:
    """Brings what is missing of the split into its place, whole or not at all.

    Raises:
        UserError: whatever the user can mend
    """
    local = None if source is None or "://" in source else Path(source)
    if local is not None and local.is_dir():
        found = unpacked_folder(local, order.split)
        if found.resolve() == order.place.resolve():
            check_folder(found, order)
            print(f"{found} is an unpacked folder and usable as it is: data.root={order.root}")
            return
    missing = missing_folders(order.place, order.split, order.products)
    if not missing:
        how = "and whole" if (order.place / CARD).exists() else "with as many tiles as are published"
        print(f"{order.place} is already there {how}: {contents(order.place)}")
        return
    if source is None and order.kept.exists():
        unpack_file(order, order.kept, missing)
    elif local is None:
        download(order, source or TARBALLS[order.split].url, missing)
    elif local.is_dir():
        link(order, unpacked_folder(local, order.split), missing)
    elif local.is_file():
        unpack_file(order, local, missing)
    else:
        raise UserError(f"source={source} is no file, no folder and no address; check it")
    print(f"{order.place}: {contents(order.place)}")
    print(f"look whether all can be read: python -m sn6.check root={shlex.quote(str(order.root))}")


def download(order: Order, url: str, missing: Collection[str]) -> None:
    """From an address, by way of the tarball on the disk or without it."""
    path, remote = order.work / order.name, Remote(url)
    length = remote.look().length
    here = 0 if order.stream else held(path, remote.version)
    unpacked = unpacked_size(TARBALLS[order.split], length, missing)
    check_room(order.name, order.root, length, here, unpacked, order.stream)
    if order.stream:
        unpack_stream(order, remote, missing)
        return
    with transfer_bar(f"downloading {order.split}", length, here) as report:
        fetch(remote, path, report)
    try:
        unpack_file(order, part_of(path), missing)
    except Refused:
        settle(path, None)
        raise
    settle(path, order.kept if order.keep else None)


def unpack_stream(order: Order, remote: Remote, missing: Collection[str]) -> None:
    """While it downloads. What cannot go on where it stopped starts again from its first byte."""
    while True:
        with transfer_bar(f"downloading and unpacking {order.split}", remote.version.length) as report:
            try:
                unpack_into_place(order, remote.read(0), remote.url, missing, report)
                return
            except StartAgain:
                print(f"{remote.url} does not go on where it broke off; starting again from its first byte")


def unpack_file(order: Order, path: Path, missing: Collection[str]) -> None:
    """From a tarball on the disk, which stays as it is."""
    size = path.stat().st_size
    check_room(str(path), order.root, 0, 0, unpacked_size(TARBALLS[order.split], size, missing), stream=False)
    with path.open("rb") as file, transfer_bar(f"unpacking {order.split}", size) as report:
        unpack_into_place(order, iter(partial(file.read, PIECE), b""), str(path), missing, report)


def unpack_into_place(
    order: Order, pieces: Iterable[bytes], name: str, missing: Collection[str], report: Callable[[int], None]
) -> None:
    """By way of a folder that takes its place by a rename when all of the tarball was right."""
    there = set(tallies(order.place))
    not_asked = set() if order.products is None else set(PRODUCTS) - set(order.products)
    with staging(order.work / f"{order.split}.unpacking") as folder:
        unpack(pieces, name, order.split, folder, {CARD} | there | not_asked, order.md5, report)
        if absent := set(order.products or ()) & set(missing) - set(tallies(folder)):
            raise UserError(f"{name} has no {' and no '.join(sorted(absent))}; choose others by products=")
        install(folder, order.place, everything=order.products is None)


def link(order: Order, source: Path, missing: Collection[str]) -> None:
    """Links the folders of an unpacked archive that lies elsewhere: nothing is copied or moved."""
    check_folder(source, order)
    with staging(order.work / f"{order.split}.unpacking") as folder:
        for name in sorted(set(missing) & set(tallies(source))):
            os.symlink(source.resolve() / name, folder / name, target_is_directory=True)
        install(folder, order.place, everything=order.products is None)
    print(f"{order.place} links to {source}, which must stay where it is")


def unpacked_folder(source: Path, split: Split) -> Path:
    """The split's folder in an archive, in a folder of one split, or itself.

    Raises:
        UserError: there is none
    """
    for place in (split_folder(source, split), source / AOI, source):
        if any((place / product).is_dir() for product in PRODUCTS):
            return place
    raise UserError(f"source={source} holds no {split}/{AOI} with {', '.join(PRODUCTS)}; name the folder that does")


def check_folder(place: Path, order: Order) -> None:
    """Raises a UserError where an unpacked folder lacks a product that is asked for, or holds another split's tiles."""
    pattern = f"SN6_{SPLIT_NAMES[order.split]}_{AOI}_{{product}}_*.tif"
    there = [product for product in PRODUCTS if next((place / product).glob(pattern.format(product=product)), None)]
    if absent := set(order.products or there[:1] or ("SAR-Intensity",)) - set(there):
        product = min(absent)
        wanted = pattern.format(product=product)
        raise UserError(f"{place} has no {product}/{wanted}; check source= and products=")
    if order.split == "train" and not any((place / folder).is_dir() for folder in LABELS):
        raise UserError(f"{place} has no labels ({' or '.join(LABELS)}); check source=")


def contents(place: Path) -> str:
    """Such as `PAN 3401 files, SAR-Intensity 3401 files`."""
    return ", ".join(f"{folder} {tally.files} files" for folder, tally in tallies(place).items())
