"""Where committed inputs are looked for, and where outputs go."""

import os
import re
from pathlib import Path

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest

_PACKAGE = Path(__file__).resolve().parent.parent

IN_CHECKOUT = (_PACKAGE.parent / "data" / "profiles").is_dir()
# What `data/...` lies in: the checkout, or the copy of profiles, taxonomy, benchmark, dagster.yaml
# and workspace.yaml that travels in the wheel (see setup.py).
ROOT = _PACKAGE.parent if IN_CHECKOUT else _PACKAGE / "_bundle"
PROFILES = ROOT / "data" / "profiles"
SHOWN_CHARACTERS = 80
# The AWS SDKs read the first of these that is set.
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
MIRROR_DIGITS = 16
# What is stored with the project; all else below data/ is ignored by git.
STORED = ("data/models/tiny", "data/pool")
FETCHED = "data/models/full"
_STORED_POOL = "name data/pool, which comes with the project and `make world` renders anew"


def resolve_path(path: str) -> Path:
    """The file or folder that a profile names.

    Absolute paths and `~` stand for themselves. A relative path is the first of these that exists:
    below the folder that the environment variable `HOI_DATA` names (for `data/...`), in the
    checkout or the data that came in the wheel, in the working folder. Where none does, it is the
    checkout's, or outside of a checkout the working folder's.

    Raises:
        HoiError: no file can be called so.

    Example:
        >>> resolve_path("data/taxonomy").name
        'taxonomy'
    """
    own = expand_user(path)
    if own.is_absolute():
        return own
    candidates = [ROOT / own, Path.cwd() / own]
    data = os.environ.get("HOI_DATA")
    if data and own.parts[:1] == ("data",):
        candidates.insert(0, Path(data).expanduser().absolute().joinpath(*own.parts[1:]))
    for candidate in candidates:
        if path_exists(candidate):
            return candidate
    return ROOT / own if IN_CHECKOUT else candidates[0] if data else Path.cwd() / own


def expand_user(path: str | Path) -> Path:
    """`path` with a leading `~` replaced.

    Raises:
        HoiError: no such user, or a name that is too long for a file.
    """
    try:
        own = Path(path).expanduser()
        own.is_file()
    except (RuntimeError, OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        raise HoiError(f"{_shown(path)}: {problem}", "give the path of a file or folder") from error
    return own


def path_exists(path: Path) -> bool:
    """Whether there is something at `path`; no for what cannot be the name of a file."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _shown(path: str | Path) -> str:
    text = str(path)
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…")


def is_stored(path: str) -> bool:
    """Whether `path` belongs to the data stored with the project: git has it.

    Example:
        >>> is_stored("data/models/tiny/clip"), is_stored("data/models/full/clip")
        (True, False)
    """
    own = Path(path)
    data = os.environ.get("HOI_DATA")
    roots = [(ROOT, Path())]
    if data:
        roots.append((Path(data).expanduser().absolute(), Path("data")))
    for root, name in roots:
        if own.is_relative_to(root):
            own = name / own.relative_to(root)
    return any(own.is_relative_to(folder) for folder in STORED)


def models_folder() -> Path:
    """Where `hoi models fetch` puts hub models, and where profiles find them: the environment
    variable `HOI_MODELS`; else `data/models/full`, see `resolve_path`."""
    named = os.environ.get("HOI_MODELS")
    return Path(named).expanduser().absolute() if named else resolve_path(FETCHED)


def restore_remedy(path: str, target: str) -> str:
    """How to get data that a profile names and that is missing.

    Args:
        target: of the Makefile, which makes stored data anew.
    """
    if not is_stored(path):
        return "`hoi models fetch` gets hub models" if target == "weights" else _STORED_POOL
    if IN_CHECKOUT:
        return f"restore it with `git checkout -- {path}`, or make it with `make {target}`"
    data = os.environ.get("HOI_DATA")
    return (
        "the tiny weights and the pool of scenes do not travel in the wheel: set HOI_DATA "
        + (f"(now {data!r}) " if data else "")
        + "to a folder that holds models/tiny and pool, such as the data/ of a checkout"
    )


def home_folder() -> Path:
    """Where outputs go: the environment variable `HOI_HOME`; else `data/out` of the checkout, or
    `hoi-data` in the working folder where hoi-assets runs outside of a checkout. Of a home in a
    bucket: its local copy, see `mirror_folder`."""
    home = home_location()
    return mirror_folder(home) if isinstance(home, str) else home


def home_location() -> Path | str:
    """The home: a folder, or the URL `s3://bucket/prefix` where `HOI_HOME` is one."""
    named = os.environ.get("HOI_HOME")
    if named and is_url(named):
        return named
    default = ROOT / "data" / "out" if IN_CHECKOUT else Path("hoi-data")
    return Path(named or default).resolve()


def is_url(home: str) -> bool:
    """Whether a home is named by a URL, not by a path.

    Example:
        >>> is_url("s3://bucket/prefix"), is_url("data/out")
        (True, False)
    """
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", home) is not None


def mirror_folder(url: str) -> Path:
    """The folder that holds this machine's copies of a home in a bucket, one per URL and endpoint:
    below the environment variable `HOI_CACHE`, else below `~/.cache/hoi-assets`."""
    endpoint = next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), "")
    named = os.environ.get("HOI_CACHE")
    folder = Path(named).expanduser() if named else Path("~/.cache/hoi-assets").expanduser()
    return folder.absolute() / digest([endpoint, url.rstrip("/")])[:MIRROR_DIGITS]


def ledger_url() -> str | None:
    """URL of the database that holds the ledger: the environment variable `HOI_LEDGER_URL`; None
    where the home holds it. May hold a password: never to be printed."""
    return os.environ.get("HOI_LEDGER_URL") or None
