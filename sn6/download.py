"""`python -m sn6.download what=train root=...`: download the published archive and published weights."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from sn6.cli import run_command
from sn6.errors import UserError

What = Literal["train", "test_public", "weights/baseline", "weights/ternausnet"]


def download(
    what: Annotated[
        What | Annotated[list[What], Field(min_length=1)],
        "train (39 GB), test_public (17 GB), weights/baseline, weights/ternausnet (needs source=), or several as [a,b]",
    ],
    root: Annotated[Path, "folder of the archive, created if missing; weights are written to weights/ in it"],
    source: Annotated[str | None, "another address, or a local .tar.gz; null is the public bucket"] = None,
    keep: Annotated[bool, "keep the downloaded tarball in root, for later use as source="] = False,
    md5: Annotated[
        str,
        Field(pattern="^(published|unchecked|[0-9a-f]{32})$"),
        "checksum of the tarball: published, unchecked, or 32 hex digits",
    ] = "published",
) -> None:
    """Download SpaceNet 6 (CC BY-SA 4.0) from its public bucket (no account is needed), check it and unpack it.

    The same command resumes after a stop, and does nothing if the folder already exists. The folder of a split
    appears when the whole tarball has been checked and unpacked.

    Disk space: train needs 39 GB for the tarball and about 85 GB for the images, test_public 17 GB and 27 GB.

    Weights: no checksums are published, so only the length is checked. weights/baseline downloads all files that the
    bucket lists. Those of TernausNet have no permanent address: set source=.

    Raises:
        UserError: conflicting options, or a file that is out of reach, wrong, or too large for the disk
    """
    selected = list(dict.fromkeys(what)) if isinstance(what, list) else [what]
    check_options(selected, source, keep or md5 != "published")
    from sn6.acquire.archive import download_split, working_folder
    from sn6.acquire.weights import download_weights

    with working_folder(root) as work:
        for one in selected:
            if one == "train" or one == "test_public":
                download_split(one, root, work, source, md5, keep)
            else:
                download_weights(one, root, work, source)


def check_options(selected: list[What], source: str | None, tarball_options: bool) -> None:
    """Raise a UserError for options that exclude one another or would have no effect."""
    if source is not None and len(selected) > 1:
        message = f"source= is one file, but what= names {len(selected)}; download them one by one"
        raise UserError(message, kind="conflict", key="source", value=source)
    if source is None and "weights/ternausnet" in selected:
        message = "what=weights/ternausnet has no permanent address; set source= to the address of the file"
        raise UserError(message, kind="missing_value", key="source")
    if tarball_options and not {"train", "test_public"} & set(selected):
        message = "keep= and md5= apply only to train and test_public; remove them for weights"
        raise UserError(message, kind="conflict", key="what", value=selected)


if __name__ == "__main__":
    run_command(download, "sn6.download")
