"""Push a model folder to the Hugging Face hub."""

from pathlib import Path

from sn6.checkpoints.hub import ADDRESS
from sn6.errors import UserError, first_line


def check_push(repository: str) -> None:
    """Raise a UserError unless a folder can be pushed: before the work, which takes minutes.

    Args:
        repository: `owner/name`

    Raises:
        UserError: the name is malformed, nobody is logged in, or HF_HUB_OFFLINE is set
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    found = ADDRESS.fullmatch(repository)
    try:
        validate_repo_id(repository)
        reason = "" if found and found["repository"] == repository else "it is not owner/name"
    except HFValidationError as error:
        reason = first_line(error).rstrip(".")
    if reason:
        raise UserError(
            f"invalid push={repository}: {reason}; write push=owner/name",
            kind="invalid_value",
            key="push",
            value=repository,
        )
    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"push={repository}: HF_HUB_OFFLINE is set; unset it, or leave push= out",
            kind="conflict",
            key="push",
            value=repository,
        )
    if get_token() is None:
        raise UserError(
            f"push={repository} needs a token of the Hugging Face hub; log in by `hf auth login`, or set HF_TOKEN",
            kind="missing_value",
            key="push",
            value=repository,
        )


def push_folder(folder: Path, repository: str, private: bool) -> str:
    """Upload all files of a folder; return the address of the repository, which is made where it does not exist.

    Args:
        folder: what `write_model_folder` wrote
        repository: `owner/name`
        private: whether a new repository is private; an existing one stays as it is

    Raises:
        UserError: the hub is out of reach, or refuses; the folder is complete all the same
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Add the model and its card")
    except Exception as error:  # OSError, or an error of requests, httpx or httpx2: it depends on the version
        raise UserError(
            f"{folder} is complete, but could not be pushed to {repository} ({first_line(error)}); push it by "
            f"`hf upload {repository} {folder}`",
            kind="unavailable",
            key="push",
            value=repository,
        ) from None
    return str(address)
