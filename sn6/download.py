"""`python -m sn6.download what=train root=...`: the published archive, and published weights, onto the disk."""

import re
from pathlib import Path
from typing import Annotated, Literal

from sn6.cli import run_command
from sn6.errors import UserError

What = Literal["train", "test_public", "weights/baseline", "weights/ternausnet"]
Product = Literal["SAR-Intensity", "PS-RGB", "PS-RGBNIR", "RGBNIR", "PAN"]


def download(
    what: Annotated[
        What | list[What],
        "train (39 GB), test_public (17 GB), weights/baseline, weights/ternausnet (needs source=), or several as [a,b]",
    ],
    root: Annotated[Path, "folder of the archive, made if missing; weights go to weights/ in it"],
    source: Annotated[
        str | None, "another address, a .tar.gz, or an unpacked folder, which is linked to; null is the bucket"
    ] = None,
    products: Annotated[
        list[Product] | None, "these images alone, as [SAR-Intensity,PS-RGB]; labels always; null is all"
    ] = None,
    stream: Annotated[
        bool, "unpack while it downloads: needs no room for the tarball, but a stopped command starts over"
    ] = False,
    keep: Annotated[bool, "keep the downloaded tarball, in root"] = False,
    md5: Annotated[str, "of the tarball: published, 32 hex digits of another one, or unchecked"] = "published",
) -> None:
    """Downloads SpaceNet 6 (CC BY-SA 4.0) from its public bucket, without signing in, checks and unpacks it.

    The same command goes on where it was stopped, and does nothing where all is there. Nothing takes its place in the
    archive before the whole tarball was right: its md5, no path out of its folder, no link, no device.

    Room: 39 GB of tarball and about 85 GB of images for train, 44 GB of these for radar alone; 17 and 27 GB for
    test_public. stream=true does without the first.

    Weights: no checksum is published, so that only the length is checked. Those of the baseline are all files that
    the bucket lists. No lasting address of TernausNet's is known: give the one that you have by source=.

    Raises:
        UserError: whatever the user can mend
    """
    wanted = list(dict.fromkeys(what)) if isinstance(what, list) else [what]
    check_words(wanted, source, products, md5)
    check_options(wanted, products is not None or md5 != "published", stream, keep)
    from sn6.acquire.archive import Order, get_archive
    from sn6.acquire.catalogue import TARBALLS, chosen_products
    from sn6.acquire.install import working_folder
    from sn6.acquire.weights import get_baseline, get_from

    with working_folder(root) as work:
        for one in wanted:
            if one == "train" or one == "test_public":
                chosen = None if products is None else chosen_products(one, products)
                checked = TARBALLS[one].md5 if md5 == "published" else md5
                get_archive(Order(one, root, work, chosen, checked, stream, keep), source)
            elif source is None:
                get_baseline(root / one)
            else:
                get_from(source, root / one)


def check_words(wanted: list[What], source: str | None, products: list[Product] | None, md5: str) -> None:
    """Raises a UserError for words that do not go together."""
    if not wanted:
        raise UserError("what=[] names nothing; give train, test_public, weights/baseline or weights/ternausnet")
    if source is not None and len(wanted) > 1:
        raise UserError(f"source= is the place of one thing, and what= names {len(wanted)}; give them one by one")
    if source is None and "weights/ternausnet" in wanted:
        raise UserError("what=weights/ternausnet has no address that is sure; give the one that you have by source=")
    if products == []:
        raise UserError("products=[] names no image; leave it out for all")
    if not re.fullmatch("published|unchecked|[0-9a-f]{32}", md5):
        raise UserError(f"md5={md5} does not do; give published, unchecked or 32 hex digits in lower case")


def check_options(wanted: list[What], of_tarballs: bool, stream: bool, keep: bool) -> None:
    """Raises a UserError for options that would do nothing."""
    if (of_tarballs or stream or keep) and not {"train", "test_public"} & set(wanted):
        raise UserError("products=, stream=, keep= and md5= are of train and test_public; leave them out for weights")
    if stream and keep:
        raise UserError("stream=true leaves no tarball that keep=true could keep; choose one of them")


if __name__ == "__main__":
    run_command(download, "sn6.download")
