"""A home, the folder of all outputs: which paths can be one, and which profile it belongs to."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hoi_assets.errors import HoiError
from hoi_assets.store.bucket_errors import Conflict
from hoi_assets.store.disk import temporary_path, writing

if TYPE_CHECKING:
    from hoi_assets.store.remote_home import RemoteHome

IDENTITY = "home.json"
# Patterns, escapes and separators to at least one of DuckDB, polars, SQLite's URLs and fsspec.
REFUSED = ("[", "*", "?", "%", "\\", "::")


def check_path(home: Path) -> None:
    """Refuse a path that a library below would read as something else than a plain path.

    Raises:
        HoiError: such a path.

    Example:
        >>> check_path(Path("/data/it's a home #2"))
    """
    text = str(home)
    found = next((part for part in REFUSED if part in text), None)
    if found is None and text.isprintable():
        return
    what = f"{found!r}" if found else "characters that cannot be shown"
    raise HoiError(
        f"the home {text!r} holds {what}, which DuckDB, SQLite or `datasets` would not take "
        "literally",
        f"set HOI_HOME to a folder whose path is free of {' '.join(REFUSED)} and of control "
        "characters; spaces, quotes and letters of any language are fine",
    )


def profile_of(home: Path) -> str | None:
    """Name of the profile that the home belongs to; None where it belongs to none yet.

    Raises:
        HoiError: the file that says so is damaged.
    """
    path = home / IDENTITY
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["profile"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise HoiError(
            f"{path} does not say which profile the home belongs to: {error}",
            "delete it: the next run writes it again, so name the home's profile then",
        ) from error


def check_profile(home: Path, profile: str) -> None:
    """Refuse a profile that is not the home's.

    Raises:
        HoiError: the home belongs to another profile.
    """
    owner = profile_of(home)
    if owner is not None and owner != profile:
        raise HoiError(
            f"the home {home} belongs to the profile {owner!r}, not to {profile!r}",
            f"name {owner} (--profile or HOI_PROFILE), or set HOI_HOME to another folder for "
            f"{profile}; if the profile was only renamed, delete {home / IDENTITY}",
        )


def adopt(home: Path, profile: str, temporary: Path, remote: "RemoteHome | None" = None) -> None:
    """Make the home the profile's, where it belongs to none.

    Args:
        temporary: a folder on the same file system.
        remote: the home in a bucket whose mirror `home` is.

    Raises:
        HoiError: it belongs to another profile.
    """
    path = home / IDENTITY
    if not path.exists():
        data = (json.dumps({"profile": profile}) + "\n").encode()
        if remote is not None:
            with suppress(Conflict):  # another process was first
                remote.bucket.put(remote.key(path), data, absent=True)
            remote.pull(path)
        else:
            _write_identity(path, data, temporary)
    check_profile(home, profile)


def _write_identity(path: Path, data: bytes, temporary: Path) -> None:
    partial = temporary_path(temporary)
    with writing(path):
        partial.write_bytes(data)
        try:
            os.link(partial, path)  # fails where another process was first
        except FileExistsError:
            pass
        finally:
            partial.unlink(missing_ok=True)
