"""Download weights from the Hugging Face hub: `hf://owner/name[/file][@revision]`, kept in the cache of the hub."""

import re
from dataclasses import dataclass
from pathlib import Path

from sn6.checkpoints.run_files import WEIGHTS_FILE
from sn6.errors import DISK_FULL, Kind, UserError, first_line

SCHEME = re.compile("hf:/{1,2}")  # a Path of `hf://owner/name` is `hf:/owner/name`
ADDRESS = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:/(?P<file>[^@]+))?(?:@(?P<revision>.+))?")
FORM = "hf://owner/name[/file][@revision]"
TIMEOUT = 5.0  # seconds to wait for an answer of the hub


@dataclass(frozen=True)
class HubFile:
    """A file of a repository.

    Attributes:
        repository: `owner/name`
        file: its path in the repository
        revision: branch, tag or commit, None for the main branch
    """

    repository: str
    file: str
    revision: str | None

    def __str__(self) -> str:
        return f"hf://{self.repository}/{self.file}{f'@{self.revision}' if self.revision else ''}"


def is_address(path: Path) -> bool:
    """Return whether a path is the address of something on the hub."""
    return SCHEME.match(str(path)) is not None


def parse_address(path: Path, key: str) -> HubFile:
    """Return the file that an address names: `weights.safetensors` where it names a repository only.

    Args:
        path: of the form above; the second slash may be missing
        key: the option that names it, for messages

    Raises:
        UserError: it has another form
    """
    found = ADDRESS.fullmatch(SCHEME.sub("", str(path), count=1).rstrip("/"))
    if found is None:
        raise UserError(
            f"{key}={path} is not of the form {FORM}; write the owner and the name of the repository",
            kind="invalid_value",
            key=key,
            value=str(path),
        )
    return HubFile(found["repository"], found["file"] or WEIGHTS_FILE, found["revision"])


def download(path: Path, key: str) -> Path:
    """Return the local path of the file of an address; ask the hub whether it is current, and download what is missing.

    Where the hub does not answer, or with HF_HUB_OFFLINE=1, the file that is in the cache is taken.

    Args:
        path: see `parse_address`
        key: the option that names it, for messages

    Raises:
        UserError: the repository, its revision or its file does not exist or may not be read, or it is not in the cache
            and the hub is out of reach
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    wanted = parse_address(path, key)
    repository, name, revision = wanted.repository, wanted.file, wanted.revision

    def error(reason: str, kind: Kind = "not_found") -> UserError:
        return UserError(f"{key}={wanted}: {reason}", kind=kind, key=key, value=str(wanted))

    try:
        # One request first, because hf_hub_download repeats for minutes when the hub does not answer.
        get_hf_file_metadata(hf_hub_url(repository, name, revision=revision), timeout=TIMEOUT)
        return Path(hf_hub_download(repository, name, revision=revision))
    except GatedRepoError:
        raise error("its owner has to grant access; ask for it on the page of the repository, and log in") from None
    except RepositoryNotFoundError:
        raise error("no such repository, or it is private; check the name, or `hf auth login`") from None
    except RevisionNotFoundError:
        raise error(f"{repository} has no revision {revision}; name a branch, a tag or a commit") from None
    except HFValidationError as invalid:
        raise error(f"{first_line(invalid).rstrip('.')}; write {FORM}", "invalid_value") from None
    except Exception as failure:  # OSError, or an error of requests, httpx or httpx2: it depends on the version
        if isinstance(failure, EntryNotFoundError) and not isinstance(failure, LocalEntryNotFoundError):
            raise error(f"{repository} has no file {name}; name one of its files, {FORM}") from None
        if isinstance(failure, OSError) and failure.errno in DISK_FULL:
            raise
        cached = try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
        raise error(
            f"it is not in the cache, and the hub does not answer ({type(failure).__name__}); connect to the internet, "
            "or give a local copy",
            "unavailable",
        ) from None
