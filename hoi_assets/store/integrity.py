"""Whether stored files are still those that were written.

A manifest holds the digest of every file of a folder. It stands beside the folder, never inside:
    assets/<asset>/<partition or "_">/manifests/<version>.json     its hash is the version's name
    trained/<kind>/<key>.json
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from hoi_assets.errors import HoiError
from hoi_assets.hashing import canonical_json, digest_file_cached, files_below
from hoi_assets.store.disk import replace_bytes


class Damaged(HoiError):
    """Stored content is not what was written; nothing may use it."""


def write_manifest(path: Path, digests: Mapping[str, str], temporary: Path) -> None:
    """Write a manifest, whole or not at all.

    Args:
        digests: of each file by its name (`hashing.file_digests`).
        temporary: a folder on the same file system.
    """
    replace_bytes(path, manifest_bytes(digests), temporary, durable=True, mode=0o444)


def manifest_bytes(digests: Mapping[str, str]) -> bytes:
    """The content of a manifest."""
    return f"{canonical_json(digests)}\n".encode()


def read_manifest(path: Path) -> dict[str, str] | None:
    """The digests of a manifest; None where there is none or it cannot be read."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def first_difference(
    folder: Path, digests: Mapping[str, str], parts: Collection[str] | None = None
) -> str | None:
    """What differs between a folder and its manifest, in words; None where nothing does.

    Args:
        parts: files and sub-folders whose content is checked; all where None. Missing and added
            files are found in any case.
    """
    on_disk = dict(files_below(folder))
    for name in digests:
        if name not in on_disk:
            return f"{name} is missing"
    for name, path in on_disk.items():
        if name not in digests:
            return f"{name} was added"
        if is_part(name, parts) and digest_file_cached(path) != digests[name]:
            return f"{name} is not the file that was written"
    return None


def is_part(name: str, parts: Collection[str] | None) -> bool:
    """Whether a file is one of `parts` or below one; all are where None."""
    return parts is None or any(name == part or name.startswith(f"{part}/") for part in parts)
