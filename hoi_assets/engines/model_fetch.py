"""Gets models from the hub at their pinned revisions, file by file, into plain folders.

A folder is `<models folder>/<source>/<revision>`. It is used once `fetched.json` says that it is
whole; an interrupted file goes on where it stopped.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoi_assets.engines.model_kinds import ALL_KINDS, WEIGHTS, ModelKind
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest_file
from hoi_assets.settings import ModelRef
from hoi_assets.store.disk import replace_bytes, writing
from hoi_assets.store.weights import (
    FETCHED_FILE,
    fetched_folder,
    fetched_variants,
    weights_folder,
)
from hoi_assets.text import shown_bytes

PARTIAL_SUFFIX = ".part"
FILE_MODE = 0o644
WEIGHT_SUFFIXES = (".safetensors", ".bin")

Log = Callable[[str], None]


@dataclass(frozen=True)
class FetchedModel:
    """A model in its folder.

    Attributes:
        bytes: of the files that its loader reads.
        downloaded_bytes: what this call downloaded; less where files were there already.
    """

    entry: str
    source: str
    revision: str
    place: Path
    bytes: int
    downloaded_bytes: int


@dataclass(frozen=True)
class _HubFile:
    """A file of a repository; `hash` is SHA-256 for large files, git's own for small ones."""

    name: str
    size: int
    hash: str
    large: bool


def fetch_models(named: Mapping[str, ModelRef], log: Log) -> list[FetchedModel]:
    """Fetch every hub repository among `named`, each once; folders are left alone.

    Raises:
        HoiError: no access, no such repository, revision or file, no network, no room.
    """
    done = []
    seen: set[tuple[Path, str | None]] = set()
    for entry, ref in named.items():
        if weights_folder(ref) is not None:
            log(f"{entry}: {ref.source} is a folder of yours, nothing to fetch")
            continue
        place = fetched_folder(ref)
        if (place, ref.variant) not in seen:
            done.append(_fetch(entry, ALL_KINDS[entry], ref, place, log))
        seen.add((place, ref.variant))
    return done


class HubUnreachable(HoiError):
    """No answer from the hub; `why` is the network's word for it."""

    def __init__(self, where: str, why: str) -> None:
        remedy = (
            "connect to the network and run `hoi models fetch` again: what was downloaded is kept"
        )
        super().__init__(f"{where} cannot be fetched: {why}", remedy)
        self.why = why


def download_bytes(entry: str, ref: ModelRef) -> int:
    """What fetching a hub repository would download, in bytes; asks the hub once.

    Raises:
        HoiError: as `fetch_models`.
    """
    place = fetched_folder(ref)
    with naming_hub_errors(ref):
        return _left(place, _wanted_files(ALL_KINDS[entry], ref))


def _left(place: Path, files: Iterable[_HubFile]) -> int:
    todo = [file for file in files if not _is_there(place / file.name, file)]
    return sum(max(0, file.size - _partial_size(place / file.name)) for file in todo)


def _fetch(entry: str, kind: ModelKind, ref: ModelRef, place: Path, log: Log) -> FetchedModel:
    assert ref.revision is not None
    with naming_hub_errors(ref):
        files = _wanted_files(kind, ref)
        size = sum(file.size for file in files)
        todo = [file for file in files if not _is_there(place / file.name, file)]
        left = _left(place, files)
        log(f"{entry}: {ref.source}, {shown_bytes(size)}, {shown_bytes(left)} of it to download")
        _require_room(place, left)
        for file in todo:
            _download(ref, file, place / file.name)
    if kind.weights:
        _add_safetensors(kind, place, log)
    _write_fetched(ref, kind, place)
    return FetchedModel(entry, ref.source, ref.revision, place, size, left)


def _wanted_files(kind: ModelKind, ref: ModelRef) -> list[_HubFile]:
    from huggingface_hub import HfApi

    info = HfApi().model_info(ref.source, revision=ref.revision, files_metadata=True)
    if info.sha != ref.revision:
        raise HoiError(
            f"the hub has {info.sha} for {ref.source} at revision {ref.revision}",
            "pin `revision` to a commit of that repository",
        )
    siblings = {one.rfilename: one for one in info.siblings or ()}
    names = kind.wanted(siblings, ref.variant)
    if not names:
        raise HoiError(
            f"{ref.source} at revision {ref.revision} holds no files of {kind.title}",
            "name the repository of such a model; it needs weights under their plain names",
        )
    _require_weights(kind, ref, names, siblings)
    found = []
    for name in names:
        one = siblings[name]
        large = one.lfs is not None
        known = one.lfs.sha256 if one.lfs is not None else one.blob_id
        found.append(_HubFile(name, one.size or 0, known or "", large))
    return found


def _require_weights(
    kind: ModelKind, ref: ModelRef, names: Sequence[str], siblings: Iterable[str]
) -> None:
    """Refuse a repository of which a part has weights, but none under names that are read."""
    if not kind.weights or kind.any_parts or set(kind.extra) & set(names):
        return
    read = {_folder_of(name) for name in names if name.endswith(WEIGHT_SUFFIXES)}
    for name in sorted(siblings):
        inside = _folder_of(name) in (kind.parts or ("",))
        if inside and name.endswith(WEIGHT_SUFFIXES) and _folder_of(name) not in read:
            wanted = "plain names" if ref.variant is None else f"the variant {ref.variant!r}"
            raise HoiError(
                f"{ref.source} at revision {ref.revision} has {name}, and no weights of {wanted} "
                "beside it",
                "set the model's `variant` in the profile, e.g. fp16, or name another repository",
            )


def _folder_of(name: str) -> str:
    return name.rpartition("/")[0]


def _is_there(path: Path, file: _HubFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size


def _partial(path: Path) -> Path:
    return path.with_name(path.name + PARTIAL_SUFFIX)


def _partial_size(path: Path) -> int:
    partial = _partial(path)
    return partial.stat().st_size if partial.is_file() else 0


def _require_room(place: Path, needed: int) -> None:
    existing = next(folder for folder in (place, *place.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise HoiError(
            f"{place} needs {shown_bytes(needed)}, {shown_bytes(free)} are free there",
            "set HOI_MODELS to a folder on a larger disk",
        )


def _download(ref: ModelRef, file: _HubFile, path: Path) -> None:
    """Download one file, or the rest of it, and check its hash.

    The library's own download begins each file anew after a kill; this one goes on.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    partial = _partial(path)
    if _partial_size(path) > file.size:
        partial.unlink()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as out:
            http_get(
                hf_hub_url(ref.source, file.name, revision=ref.revision),
                out,
                resume_size=out.tell(),
                headers=build_hf_headers(),
                expected_size=file.size,
                displayed_filename=file.name,
            )
        if _hash_of(partial, file) != file.hash:
            partial.unlink()
            raise HoiError(
                f"{file.name} of {ref.source} arrived damaged: its hash is not the hub's",
                "run `hoi models fetch` again: that file is downloaded anew",
            )
        partial.replace(path)


def _hash_of(path: Path, file: _HubFile) -> str:
    if file.large:
        return digest_file(path)
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _add_safetensors(kind: ModelKind, place: Path, log: Log) -> None:
    """Write `.bin` weights as safetensors beside them, which are what is loaded."""
    from hoi_assets.engines.model_convert import SAFETENSORS, write_safetensors

    folders = [place / part for part in kind.parts] if kind.parts else [place]
    for folder in folders:
        names = [path.name for path in folder.glob("*") if WEIGHTS.fullmatch(path.name)]
        forms = {match[1] for name in names if (match := WEIGHTS.fullmatch(name))}
        if forms == {"bin"} and not kind.parts:
            log(f"{place}: writing its .bin weights as {SAFETENSORS}")
            write_safetensors(folder, folder)


def _write_fetched(ref: ModelRef, kind: ModelKind, place: Path) -> None:
    paths = [path for path in place.rglob("*") if path.is_file() and path.name != FETCHED_FILE]
    there = [path.relative_to(place).as_posix() for path in paths]
    variants = sorted({*fetched_variants(place), ref.variant}, key=lambda one: one or "")
    names = sorted({name for variant in variants for name in kind.wanted(there, variant)})
    facts: dict[str, Any] = {
        "source": ref.source,
        "revision": ref.revision,
        "variants": variants,
        "files": {
            name: {
                "bytes": (place / name).stat().st_size,
                "sha256": digest_file(place / name),
            }
            for name in names
        },
    }
    data = (json.dumps(facts, indent=2, sort_keys=True) + "\n").encode()
    replace_bytes(place / FETCHED_FILE, data, place, durable=True, mode=FILE_MODE)


@contextmanager
def naming_hub_errors(ref: ModelRef) -> Iterator[None]:
    """Turn what the hub's library raises into a HoiError that says what to do."""
    import httpx2
    from huggingface_hub import errors, get_token

    token = "is set" if get_token() else "is not set"
    page = f"{_hub()}/{ref.source}"
    where = f"{ref.source} at revision {ref.revision}"
    try:
        yield
    except HoiError:
        raise
    except errors.GatedRepoError as error:
        raise HoiError(
            f"{ref.source} is gated: the hub gives it only to who accepted its licence",
            f"accept the licence on {page} with your account, and set HF_TOKEN to a token of that "
            f"account (a token {token})",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise HoiError(
            f"the hub has no {where}", f"pin `revision` to a commit listed on {page}/commits/main"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise HoiError(
            f"the hub has no {ref.source}, or it is private",
            f"correct its name in the profile; for a private one set HF_TOKEN (a token {token})",
        ) from error
    except errors.EntryNotFoundError as error:
        raise HoiError(
            f"{where} lacks a file: {str(error).strip().splitlines()[-1]}",
            "run again; if it stays, pin another revision",
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise HoiError("HF_HUB_OFFLINE is set", "unset it to fetch models") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        raise HoiError(
            f"{_hub()} answered {status} for {where}",
            f"put a valid token into HF_TOKEN (a token {token})"
            if status in (401, 403)
            else "try again later: what was downloaded is kept",
        ) from error
    except (httpx2.HTTPError, OSError) as error:
        raise HubUnreachable(where, str(error).strip() or type(error).__name__) from error


def _hub() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)
