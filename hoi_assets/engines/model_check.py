"""Whether the models that a profile names are on this machine and load; offline.

A model is read by its own loader on torch's meta device: files, class, names, shapes and tokenizer
are checked as in a run, without reading the numbers.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hoi_assets.engines.model_kinds import (
    ALL_KINDS,
    IMAGE_REWARD_CHECKPOINT,
    PIPELINE_INDEX,
    WEIGHTS,
    ModelKind,
)
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest_file
from hoi_assets.settings import ModelRef
from hoi_assets.store.weights import FETCHED_FILE, local_folder, weights_folder

FETCH_REMEDY = "get it with `hoi models fetch`"
VERIFIER_HEAD = "classifier.3.weight"  # of ViltForQuestionAnswering

Origin = Literal["folder", "fetched", "hub cache", "missing"]


@dataclass(frozen=True)
class ModelState:
    """What was found of one model.

    Attributes:
        entry: its name under `models`.
        title: what it is, in words.
        origin: where its files come from; `place` is their folder, null where missing.
        file_bytes: size of the files that its loader reads.
        memory_bytes: of its weights once loaded in `dtype`; null where it does not load.
        parameters: their number; null as above.
        problem, remedy: why it cannot be used, and what to do; null where all is well.
        notes: what a user should know although nothing is wrong.
    """

    entry: str
    title: str
    source: str
    revision: str | None
    dtype: str
    origin: Origin
    place: str | None = None
    file_bytes: int | None = None
    memory_bytes: int | None = None
    parameters: int | None = None
    problem: str | None = None
    remedy: str | None = None
    notes: tuple[str, ...] = ()


def check_models(named: Mapping[str, ModelRef], hashes: bool = False) -> Iterator[ModelState]:
    """The state of each model, as `model_kinds.chosen_models` names them; nothing is downloaded.

    Args:
        hashes: read fetched files whole, and compare their hashes with the hub's.
    """
    for entry, ref in named.items():
        yield _check(entry, ALL_KINDS[entry], ref, hashes)


def _check(entry: str, kind: ModelKind, ref: ModelRef, hashes: bool) -> ModelState:
    facts: dict[str, Any] = {
        "entry": entry,
        "title": kind.title,
        "source": ref.source,
        "revision": ref.revision,
        "dtype": ref.dtype,
    }
    try:
        origin, place = _find(kind, ref)
        facts |= {"origin": origin, "place": None if place is None else str(place)}
        if place is None:
            raise HoiError(
                f"{ref.source} at revision {ref.revision} is not on this machine", FETCH_REMEDY
            )
        files = kind.wanted(_names_in(place), ref.variant)
        facts["file_bytes"] = sum((place / name).stat().st_size for name in files)
        if origin == "fetched":
            _check_fetched(place, hashes)
        facts |= _load_shapes(kind, ref)
        facts["notes"] = tuple(_notes(entry, place, files))
    except HoiError as error:
        facts |= {"problem": error.what, "remedy": error.remedy}
    return ModelState(**{"origin": "missing", **facts})


def _find(kind: ModelKind, ref: ModelRef) -> tuple[Origin, Path | None]:
    own, folder = weights_folder(ref), local_folder(ref)
    if folder is not None:
        return ("fetched" if own is None else "folder"), folder
    from huggingface_hub import try_to_load_from_cache

    names = (PIPELINE_INDEX,) if kind.parts else ("config.json", *kind.extra[:1])
    for name in names:
        found = try_to_load_from_cache(ref.source, name, revision=ref.revision)
        if isinstance(found, str):
            return "hub cache", Path(found).parent
    return "missing", None


def _names_in(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _check_fetched(folder: Path, hashes: bool) -> None:
    """Compare a fetched folder with what was noted when it was fetched.

    Raises:
        HoiError: names the first file that is missing or changed.
    """
    noted = json.loads((folder / FETCHED_FILE).read_text(encoding="utf-8"))["files"]
    for name, facts in noted.items():
        path = folder / name
        if not path.is_file():
            what = "is missing"
        elif path.stat().st_size != facts["bytes"]:
            what = f"has {path.stat().st_size} bytes, not {facts['bytes']}"
        elif hashes and digest_file(path) != facts["sha256"]:
            what = "was changed: its hash is not that of the fetched file"
        else:
            continue
        raise HoiError(f"{path} {what}", f"remove that file, then {FETCH_REMEDY}")


def _load_shapes(kind: ModelKind, ref: ModelRef) -> dict[str, int]:
    from hoi_assets.engines.device import silence_libraries
    from hoi_assets.engines.model_cache import size_bytes
    from hoi_assets.engines.pretrained import shapes_only

    silence_libraries()
    with shapes_only(), _offline():
        loaded = kind.load(ref)
    if not kind.weights:
        return {}
    modules = loaded.modules
    parameters = {id(one): one for module in modules for one in module.parameters()}
    return {
        "memory_bytes": size_bytes(modules),
        "parameters": sum(one.numel() for one in parameters.values()),
    }


def _notes(entry: str, place: Path, files: list[str]) -> Iterator[str]:
    """What differs from the plainest case, from the headers of the files alone."""
    from safetensors import safe_open

    if IMAGE_REWARD_CHECKPOINT in files:
        yield f"{IMAGE_REWARD_CHECKPOINT} is read as released"
    weights = [name for name in files if (match := WEIGHTS.fullmatch(Path(name).name)) and match]
    if any(name.endswith(".bin") for name in weights):
        yield "weights are .bin, read with weights_only; `hoi models convert` makes safetensors"
    if entry != "verifier":
        return
    for name in weights:
        if name.endswith(".safetensors"):
            with safe_open(place / name, framework="numpy") as file:
                if VERIFIER_HEAD in file.keys():  # noqa: SIM118
                    labels = file.get_slice(VERIFIER_HEAD).get_shape()[0]
                    if labels == 2:
                        return
    yield "has not the verifier's two heads: fresh ones are drawn with seed 0, then trained"


@contextmanager
def _offline() -> Iterator[None]:
    """No call to the hub inside the block, whatever the environment says."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
