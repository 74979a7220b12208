"""Uploads of finished exports to the Hugging Face hub."""

import re
from typing import Literal

from hoi_assets.errors import HoiError
from hoi_assets.export.folder import UPLOAD_CACHE, Exported

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def check(repo: str) -> None:
    """Check that an upload can be tried.

    Raises:
        HoiError: a name that is none, no token, or the hub is switched off.
    """
    from huggingface_hub import constants, get_token

    if not NAME.fullmatch(repo):
        raise HoiError(f"{repo!r} is no name of a repository", "give it as OWNER/NAME")
    if constants.HF_HUB_OFFLINE:
        raise HoiError("the hub is switched off by HF_HUB_OFFLINE", "unset it to upload")
    if get_token() is None:
        raise HoiError(
            "there is no token of the Hugging Face hub",
            "set HF_TOKEN to one that may write, or run `hf auth login`",
        )


def push(
    made: Exported, repo: str, repo_type: Literal["dataset", "model"], private: bool = True
) -> str:
    """Upload an export; files that are there already are not sent again.

    Returns:
        The repository's address.

    Raises:
        HoiError: the hub refuses or does not answer; run again to go on.
    """
    from httpx2 import HTTPError
    from huggingface_hub import HfApi

    check(repo)
    api = HfApi()
    try:
        address = api.create_repo(repo, repo_type=repo_type, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            repo_type=repo_type,
            folder_path=made.folder,
            commit_message=f"Export {made.files_digest[:16]}",
            ignore_patterns=[f"{UPLOAD_CACHE}*"],
        )
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        raise HoiError(
            f"upload of {made.folder} to {repo} failed: {_first_line(error)}",
            "the export is complete here; run the same command again: files that arrived are not "
            "sent twice",
        ) from error
    return str(address)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
