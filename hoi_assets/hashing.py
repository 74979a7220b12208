"""Digests (SHA-256, hex): the names of versions and images, and the keys of generated values."""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

SETTLED_AFTER_NS = 50_000_000
_digests: dict[str, tuple[tuple[int, ...], str]] = {}


def canonical_json(value: Any) -> str:
    """JSON text of `value` in its only form: keys sorted, no spaces, ASCII only.

    Tuples become lists and keys become strings, as JSON has it; 1 and 1.0 stay different.

    Raises:
        TypeError: a value that JSON cannot hold.
        ValueError: NaN or an infinity.

    Example:
        >>> canonical_json({"seed": 7, "prompt": "a mug"})
        '{"prompt":"a mug","seed":7}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`: 64 hex digits. Raises as `canonical_json`.

    Example:
        >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes: 64 hex digits.

    Example:
        >>> digest_file(Path("data/taxonomy/grasps.yaml"))  # doctest: +SKIP
        '5f1c...'
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_file_cached(path: Path) -> str:
    """`digest_file`, computed again by this process only when the file's state on disk changed.

    Example:
        >>> digest_file_cached(Path("data/taxonomy/grasps.yaml"))  # doctest: +SKIP
        '5f1c...'
    """
    found = path.stat()
    # The time of change too: a program can set the time of modification back.
    state = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    known = _digests.get(str(path))
    if known is not None and known[0] == state:
        return known[1]
    value = digest_file(path)
    # Written just now, it may change again within one tick of the file system's clock.
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > SETTLED_AFTER_NS:
        _digests[str(path)] = (state, value)
    return value


def files_below(folder: Path) -> list[tuple[str, Path]]:
    """All files below `folder` as (relative POSIX name, path), sorted by name; links are followed,
    those that lead back to a folder above them are not.

    Raises:
        OSError: a folder cannot be read. A folder that is not there holds no files.

    Example:
        >>> files_below(Path("data/models/tiny/clip"))  # doctest: +SKIP
        [('config.json', PosixPath('data/models/tiny/clip/config.json')), ...]
    """
    found = []
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [(str(folder), frozenset())]
    while pending:
        here, above = pending.pop()
        try:
            state = Path(here).stat()
            entries = list(os.scandir(here))
        except (FileNotFoundError, NotADirectoryError):
            continue
        own = (state.st_dev, state.st_ino)
        if own in above:
            continue
        for entry in entries:
            if _is_folder(entry):
                pending.append((entry.path, above | {own}))
            else:
                found.append((Path(entry.path).relative_to(folder).as_posix(), Path(entry.path)))
    return sorted(found)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def file_digests(folder: Path) -> dict[str, str]:
    """The digest of every file below, by its relative name, sorted; see `digest_file_cached`.

    Example:
        >>> file_digests(Path("data/models/tiny/clip"))  # doctest: +SKIP
        {'config.json': '5f1c...', ...}
    """
    return {name: digest_file_cached(path) for name, path in files_below(folder)}


def digest_files(digests: Mapping[str, str]) -> str:
    """SHA-256 over the sorted names and digests of files: 64 hex digits.

    Example:
        >>> digest_files({"a": "5f1c", "b": "9a40"})[:16]
        '8b3d63f041f0284f'
    """
    return digest([[name, digests[name]] for name in sorted(digests)])


def digest_folder(folder: Path) -> str:
    """`digest_files` of all files below a folder: 64 hex digits.

    Independent of the folder's own name, of times, modes and empty sub-folders.

    Example:
        >>> digest_folder(Path("data/models/tiny/clip"))  # doctest: +SKIP
        '9a40...'
    """
    return digest_files(file_digests(folder))


def digest_pixels(image: "Image.Image") -> str:
    """SHA-256 of an image as RGB: its size and raw bytes; 64 hex digits.

    Independent of the file's encoding and metadata.

    Example:
        >>> from PIL import Image
        >>> digest_pixels(Image.new("L", (2, 2))) == digest_pixels(Image.new("RGB", (2, 2)))
        True
    """
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    head = f"RGB {rgb.width}x{rgb.height}\n".encode("ascii")
    return hashlib.sha256(head + rgb.tobytes()).hexdigest()
