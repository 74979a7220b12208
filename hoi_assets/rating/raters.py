"""The raters of a study: a pseudonym each, and the digest of the secret in their link."""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock
from pydantic import TypeAdapter, ValidationError

from hoi_assets.errors import HoiError
from hoi_assets.rating.study import read_study
from hoi_assets.store.disk import replace_bytes

RATERS_FILE = "raters.json"
LOCK_FILE = "raters.lock"
PSEUDONYM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
TOKEN_BYTES = 24

DEFAULT_URL = "http://127.0.0.1:8765"


def make_links(folder: Path, raters: Iterable[str], url: str = DEFAULT_URL) -> dict[str, str]:
    """Make a new secret link for each rater; a rater's earlier link stops working, votes stay.

    The secret itself is not stored: make a new link where one is lost. A page that is being
    served knows new links at once.

    Args:
        raters: pseudonyms: letters, digits, `-` and `_`, at most 40.
        url: where the page is served.

    Raises:
        HoiError: no study in `folder`, no rater, or a name that is not a pseudonym.
    """
    read_study(folder)
    names = list(dict.fromkeys(raters))
    wrong = [name for name in names if not PSEUDONYM.fullmatch(name)]
    if wrong or not names:
        raise HoiError(
            f"{wrong[0]!r} is not a pseudonym" if wrong else "no rater named",
            "name raters by letters, digits, '-' and '_', e.g. rater-1",
        )
    tokens = {name: secrets.token_urlsafe(TOKEN_BYTES) for name in names}
    with FileLock(folder / LOCK_FILE):
        known = read_raters(folder) | {name: _digest(token) for name, token in tokens.items()}
        data = json.dumps(known, indent=1, sort_keys=True).encode("utf-8")
        replace_bytes(folder / RATERS_FILE, data, folder, durable=True, mode=0o600)
    return {name: f"{url.rstrip('/')}/r/{token}/" for name, token in tokens.items()}


def read_raters(folder: Path) -> dict[str, str]:
    """Pseudonym to the SHA-256 of the rater's token; empty where no link was made yet.

    Raises:
        HoiError: the file is damaged.
    """
    path = folder / RATERS_FILE
    if not path.exists():
        return {}
    try:
        return TypeAdapter(dict[str, str]).validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        raise HoiError(
            f"{path} is damaged: {error.errors()[0]['msg']}",
            "delete it and make new links for the same names",
        ) from error


def find_rater(folder: Path, token: str) -> str | None:
    """The rater whose link has `token`, or None."""
    given = _digest(token)
    found = None
    for name, kept in read_raters(folder).items():
        if hmac.compare_digest(given, kept):
            found = name
    return found


def _digest(token: str) -> str:
    # No salt and no stretching: a token is 192 random bits, not a password.
    return hashlib.sha256(token.encode("utf-8")).hexdigest()
