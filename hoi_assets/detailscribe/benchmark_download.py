"""Downloads the official InterActing files from their authors' repository."""

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hoi_assets.detailscribe.benchmark import (
    BUILT_IN,
    OFFICIAL_FILES,
    OfficialFile,
    find_differences,
    parse_rows,
    sha256_of,
)
from hoi_assets.errors import HoiError
from hoi_assets.store.disk import replace_bytes, writing

RAW_FILES = "https://raw.githubusercontent.com"
REPOSITORY = "gxy000/DetailScribe"
COMMIT = "1d5a6484208f281d6d45a8d097af62fc143bfaec"
FILES_FOLDER = "InterActing/data/original_prompt"
FETCH_TIMEOUT_S = 30.0
MAX_FILE_BYTES = 16 * 1024 * 1024
FILE_MODE = 0o644


@dataclass(frozen=True)
class FetchedFile:
    """A file that was downloaded. `verified`: its hash was known beforehand and is the same."""

    name: str
    rows: int
    sha256: str
    verified: bool


def fetch_official_files(
    folder: Path,
    repository: str = REPOSITORY,
    commit: str = COMMIT,
    base_url: str = RAW_FILES,
    files: Sequence[OfficialFile] = OFFICIAL_FILES,
    timeout_s: float = FETCH_TIMEOUT_S,
) -> list[FetchedFile]:
    """Download the official files from their authors' repository; none is written unless all are
    as expected.

    Args:
        folder: created if absent. The authors give no licence: do not publish the files.
        repository, commit: owner/name and the 40 digits of a commit.
        base_url: of a server that has `<repository>/<commit>/<path>`.
        timeout_s: for each file, in seconds.

    Raises:
        HoiError: the built-in set's folder, no network, no such file, or a file with another
            count, format or hash; the folder is left as it was.
    """
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise HoiError(
            f"{commit!r} is not a commit: 40 digits 0-9 and a-f in lower case",
            "a branch or tag can move, and its rows with it: name a commit",
        )
    if folder.resolve() == BUILT_IN:
        raise HoiError(
            f"{folder} holds the built-in benchmark, and official files there would hide it",
            "name a folder of your own",
        )
    contents = {}
    for file in files:
        url = f"{base_url}/{repository}/{commit}/{FILES_FOLDER}/{file.name}"
        contents[file] = _download(url, folder, timeout_s)
        _check_official(file, contents[file], url)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        if (folder / file.name).is_dir():
            raise HoiError(
                f"{folder / file.name} is a folder, not a file",
                "remove it, or name another folder; nothing was written",
            )
    fetched = []
    for file, data in contents.items():
        replace_bytes(folder / file.name, data, folder, durable=False, mode=FILE_MODE)
        fetched.append(FetchedFile(file.name, file.rows, sha256_of(data), file.sha256 is not None))
    return fetched


def _download(url: str, folder: Path, timeout_s: float) -> bytes:
    if urlsplit(url).scheme not in ("http", "https"):
        raise HoiError(f"{url} is not a web address", "give a base URL with http or https")
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            data: bytes = answer.read(MAX_FILE_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise HoiError(
            f"{url} answered {error.code}",
            "the repository or its files may have moved: name another commit, or put the files "
            f"into {folder} by hand",
        ) from error
    # An unknown host is an OSError, a transfer that breaks off is not.
    except (OSError, http.client.HTTPException) as error:
        raise HoiError(
            f"cannot fetch {url}: {getattr(error, 'reason', None) or repr(error)}",
            f"connect to the network and try again, or put the files into {folder} by hand; "
            "without them the built-in benchmark serves (leave interacting.folder out)",
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise HoiError(
            f"{url} has more than {MAX_FILE_BYTES} bytes", "name the commit of the official files"
        )
    return data


def _check_official(file: OfficialFile, data: bytes, url: str) -> None:
    """Raise HoiError unless a download has the official count, format and hash."""
    rows = parse_rows(data, file.scenario, file.name)
    problems = [f"line {row.line}: {row.reason}" for row in rows if row.status == "failed"]
    problems += find_differences(file, data, len(rows))
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise HoiError(
            f"{url} is not the official file: {'; '.join(problems[:3])}{more}",
            "nothing was written; try again, or name the commit of the official files",
        )
