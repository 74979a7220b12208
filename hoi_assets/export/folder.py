"""An export is a folder that is complete or absent.

It is put together in `<folder>.unfinished`, which says so in `UNFINISHED.json`, and gets its name
in one step. Each file in there is whole, so a run that was killed goes on with the next one. A
finished export lists the digest of every file in `export.json`. Equal plans give equal bytes.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest_file_cached, digest_files, files_below
from hoi_assets.progress import Log
from hoi_assets.store.disk import sync, writing

FINISHED, UNFINISHED = "export.json", "UNFINISHED.json"
FORMAT = "1"  # raise it when the bytes of any export change
TEMPORARY = ".part"
UPLOAD_CACHE = ".cache/"  # what the hub's client leaves in a folder that it uploads


@dataclass(frozen=True)
class Plan:
    """All that determines an export.

    Attributes:
        kind: dataset, webdataset, coco, lora or triples.
        made_from: versions by "asset" or "asset/partition", or digests of files by name.
        options: JSON.
    """

    kind: str
    made_from: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)

    def as_record(self) -> dict[str, Any]:
        """The plan as JSON-able data."""
        return {
            "kind": self.kind,
            "format": FORMAT,
            "made_from": dict(sorted(self.made_from.items())),
            "options": dict(self.options),
        }


@dataclass(frozen=True)
class Exported:
    """A finished export.

    Attributes:
        files: digest by name.
        made: False where the folder held this very export already.
    """

    folder: Path
    files: Mapping[str, str]
    made: bool

    @property
    def files_digest(self) -> str:
        """Digest of all names and files: 64 hex digits."""
        return digest_files(self.files)


class Draft:
    """The unfinished folder. Files are added one by one; one that is there is not made again."""

    def __init__(self, folder: Path, log: Log) -> None:
        self.folder = folder
        self._log = log

    def add(self, name: str, write: Callable[[Path], None]) -> None:
        """Make the file `name` by `write(path)`, unless a run before made it."""
        target = self.folder / name
        if target.exists():
            return
        partial = target.with_name(f"{target.name}{TEMPORARY}")
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            write(partial)
            sync(partial)
            partial.replace(target)
        self._log(name)

    def add_bytes(self, name: str, data: bytes) -> None:
        """Add a small file of these bytes; flushed to disk with the others at the end."""
        target = self.folder / name
        if target.exists() and target.read_bytes() == data:
            return
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            _replace(target, data)

    def add_text(self, name: str, text: str) -> None:
        """Add a text file as UTF-8."""
        self.add_bytes(name, text.encode())

    def add_json(self, name: str, value: Any) -> None:
        """Add a JSON file: keys sorted, no NaN."""
        self.add_text(name, _json(value))


def export(
    folder: Path, plan: Plan, write: Callable[[Draft], None], log: Log = lambda _: None
) -> Exported:
    """Make the export that `plan` describes, or go on with one that was interrupted.

    Args:
        write: adds all files to the draft, in any order that is always the same.

    Raises:
        HoiError: the folder holds something else, or another process exports there.
        DiskFull: no space left; what was finished stays.
    """
    folder = folder.absolute()
    known = read_manifest(folder)
    if known is not None and known["plan"] == plan.as_record():
        return Exported(folder, _verified(folder, known), made=False)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        holds = "an export of other versions or options" if known else "something else"
        raise HoiError(
            f"{folder} holds {holds}", "name another folder, or remove that one before exporting"
        )
    with _locked(folder):
        draft = _draft_folder(folder, plan)
        write(Draft(draft, log))
        files = {name: digest_file_cached(path) for name, path in _content(draft)}
        with writing(folder):
            _replace(draft / FINISHED, _json({"plan": plan.as_record(), "files": files}).encode())
            # All at once: a flush per picture takes minutes on a busy disk.
            os.sync()
            (draft / UNFINISHED).unlink(missing_ok=True)
            if folder.exists():
                folder.rmdir()
            draft.replace(folder)
            sync(folder.parent)
    return Exported(folder, files, made=True)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What `export.json` of a finished export says: plan and files; None where there is none."""
    try:
        found = json.loads((folder / FINISHED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"plan", "files"} <= set(found) else None


def _verified(folder: Path, known: Mapping[str, Any]) -> dict[str, str]:
    """The files of a finished export, checked against its list."""
    files: dict[str, str] = known["files"]
    for name, expected in files.items():
        path = folder / name
        if not path.is_file() or digest_file_cached(path) != expected:
            raise HoiError(
                f"{path} is not the file that was exported", f"remove {folder} and export again"
            )
    return files


def _draft_folder(folder: Path, plan: Plan) -> Path:
    """`<folder>.unfinished` for this plan: the interrupted one, or a fresh one."""
    draft = folder.with_name(f"{folder.name}.unfinished")
    record = {
        "state": "unfinished: run the same export again, it goes on where this one stopped",
        "plan": plan.as_record(),
    }
    if draft.exists():
        found = _plan_of(draft)
        if found is None:
            raise HoiError(
                f"{draft} is in the way and is no unfinished export", "move or remove it"
            )
        if found != plan.as_record():
            shutil.rmtree(draft)
    with writing(draft):
        draft.mkdir(parents=True, exist_ok=True)
        _replace(draft / UNFINISHED, _json(record).encode())
        for path in draft.rglob(f"*{TEMPORARY}"):
            path.unlink()
    return draft


def _plan_of(draft: Path) -> Any:
    """The plan of an unfinished export; None for any other folder. An empty one has any plan."""
    for name in (UNFINISHED, FINISHED):
        try:
            return json.loads((draft / name).read_text(encoding="utf-8"))["plan"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {} if draft.is_dir() and not _content(draft) else None


def _content(folder: Path) -> list[tuple[str, Path]]:
    own = (FINISHED, UNFINISHED)
    return [
        (name, path)
        for name, path in files_below(folder)
        if name not in own and not name.startswith(UPLOAD_CACHE) and TEMPORARY not in name
    ]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    path = folder.with_name(f".{folder.name}.lock")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise HoiError(
                f"another process exports to {folder}", "let it end, or name another folder"
            ) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release(force=True)


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f"{path.name}{TEMPORARY}")
    partial.write_bytes(data)
    partial.replace(path)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
