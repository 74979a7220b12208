"""The hash of the weights that a profile names, without loading them."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest, digest_file_cached
from hoi_assets.settings import ModelRef, digested, models_folder, restore_remedy

# Written by `hoi models fetch` when a repository is whole: its files, their sizes and hashes.
FETCHED_FILE = "fetched.json"
# Weights, configuration and vocabularies; `.model` is SentencePiece's.
DIGESTED_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".json", ".txt", ".model")
# A fingerprint reads smaller files whole, and this many blocks of a larger one.
SAMPLED_FROM_BYTES = 64 << 20
SAMPLED_BLOCKS = 16
BLOCK_BYTES = 64 << 10


def weights_folder(ref: ModelRef) -> Path | None:
    """The local folder of `ref`; None for a hub repository.

    Raises:
        HoiError: no such folder; a hub repository without a pinned revision, or one that is hidden
            by a folder of the same name in the working folder.
    """
    if ref.revision is not None:
        if not re.fullmatch(r"[0-9a-f]{40}", ref.revision):
            raise HoiError(
                f"model {ref.source!r} has revision {ref.revision!r}, which is not a commit",
                "pin `revision` to the 40 hexadecimal digits of a commit, so that it cannot change",
            )
        if Path(ref.source).exists():
            # The libraries would load that folder in its place.
            raise HoiError(
                f"model {ref.source!r} is a hub repository, but {Path.cwd() / ref.source} exists",
                "run from another folder; or to use that one, name it by its whole path and leave "
                "out `revision`",
            )
        return None
    folder = ref.folder
    if folder is None or not folder.is_dir():
        raise HoiError(
            f"model folder {ref.source!r} not found at {folder}",
            f"{restore_remedy(ref.source, 'weights')}; or name another model under `models` of the "
            "profile; for a hub repository give its `revision` (40 hexadecimal digits)",
        )
    return folder


def fetched_folder(ref: ModelRef) -> Path:
    """Where `hoi models fetch` puts a hub repository: `<models folder>/<source>/<revision>`."""
    return models_folder() / ref.source / (ref.revision or "")


def local_folder(ref: ModelRef) -> Path | None:
    """The folder that holds the files of `ref`: its own, or a fetched one; None where they come
    from the hub or its cache.

    A hub repository is the same model wherever its files lie: `model_digest` does not ask.

    Raises:
        HoiError: as `weights_folder`.
    """
    folder = weights_folder(ref)
    if folder is None and ref.variant in fetched_variants(fetched_folder(ref)):
        folder = fetched_folder(ref)
    return folder


def fetched_variants(folder: Path) -> tuple[str | None, ...]:
    """The variants of the weights in a fetched folder, None for plain names; () before it is whole.

    The libraries would read the plain files where those of a variant are missing.
    """
    try:
        facts = json.loads((folder / FETCHED_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    return tuple(facts.get("variants", (None,)))


def model_digest(ref: ModelRef) -> str:
    """Hash of what `ref` names: a folder's weights and configuration, or repository@revision; and
    the dtype. A file is read again only when its size or time changed.

    Raises:
        HoiError: as `weights_folder`.
    """
    return _model_digest(ref, digest_file_cached)


def model_fingerprint(ref: ModelRef) -> str:
    """Like `model_digest`, but quick for weights of gigabytes: large files are sampled.

    For what is shown whenever the definitions load. Equal to `model_digest` when every file is
    below `SAMPLED_FROM_BYTES`. It may miss a change; versions and seeds take `model_digest`.

    Raises:
        HoiError: as `weights_folder`.
    """
    return _model_digest(ref, _file_fingerprint)


def _model_digest(ref: ModelRef, digest_of: Callable[[Path], str]) -> str:
    folder = weights_folder(ref)
    if folder is None:
        contents = f"{ref.source}@{ref.revision}"
    else:
        files = sorted(p for p in folder.rglob("*") if p.suffix in DIGESTED_SUFFIXES)
        contents = digest({p.relative_to(folder).as_posix(): digest_of(p) for p in files})
    options = digested(ref)
    for name in ("source", "revision"):
        del options[name]
    return digest({"contents": contents, **options})


def _file_fingerprint(path: Path) -> str:
    size = path.stat().st_size
    if size < SAMPLED_FROM_BYTES:
        return digest_file_cached(path)
    found = hashlib.sha256(f"{size} bytes\n".encode())
    with path.open("rb") as file:
        for block in range(SAMPLED_BLOCKS):
            file.seek((size - BLOCK_BYTES) * block // (SAMPLED_BLOCKS - 1))
            found.update(file.read(BLOCK_BYTES))
    return found.hexdigest()
