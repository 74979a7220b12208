"""Hostile weights: pickles that would run code, safetensors headers that lie."""

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import polars as pl

from hoi_assets.engines.clip_score import load_clip
from hoi_assets.engines.image_reward import PUBLISHED_CHECKPOINT, load_image_reward
from hoi_assets.engines.vilt.verifier import load_verifier
from hoi_assets.errors import HoiError
from hoi_assets.publishing.contents import contents
from hoi_assets.settings import ROOT
from hoi_assets.store.versions import Store
from proofs.bounds import Attack
from proofs.hostile_files import sparse

TINY = ROOT / "data/models/tiny"


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def _copy(name: str, folder: Path) -> Path:
    shutil.copytree(TINY / name, folder / name)
    for path in (folder / name).rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder / name


def _refuses(load: Callable[[Path], object], folder: Path, trap: Path) -> str:
    try:
        load(folder)
    except HoiError:
        return "code ran" if trap.exists() else ""
    return "code ran" if trap.exists() else "it was loaded"


def _pickled(
    model: str, name: str, load: Callable[[Path], object], zipped: bool
) -> Callable[[Path], str]:
    """The model's weights are a pickle that runs code."""

    def run(folder: Path) -> str:
        import torch

        model_folder, trap = _copy(model, folder), folder / "ran"
        (model_folder / "model.safetensors").unlink()
        if zipped:
            torch.save({"weights": Trap(trap)}, model_folder / name)
        else:
            (model_folder / name).write_bytes(pickle.dumps(Trap(trap)))
        return _refuses(load, model_folder, trap)

    return run


def _header(header: object, size: int | None = None, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + body


def _tensor(dtype: str, shape: list[int], offsets: list[int]) -> dict[str, object]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


HEADERS = {
    "length of 2^63": _header({}, 2**63),
    "length of 2^64 - 1": _header({}, 2**64 - 1),
    "length beyond the file": _header({}, 10_000),
    "no JSON": _header(b"{" * 100),
    "100000 levels": _header(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "shape of 2^62": _header(_tensor("F32", [2**31, 2**31], [0, 4]), body=bytes(4)),
    "shape that overflows to nothing": _header(_tensor("F32", [2**32, 2**32], [0, 0])),
    "offsets before the start": _header(_tensor("F32", [1], [-4, 0]), body=bytes(4)),
    "offsets beyond the end": _header(_tensor("F32", [1], [2**40, 2**40 + 4]), body=bytes(4)),
    "unknown type": _header(_tensor("PICKLE", [1], [0, 4]), body=bytes(4)),
    "a hole": _header(_tensor("F32", [1], [4, 8]), body=bytes(8)),
    "a tensor twice": _header(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        body=bytes(4),
    ),
    "no header": b"",
    "a pickle": pickle.dumps(Trap(Path("/nonexistent/ran"))),
}
TWICE = "a tensor twice"


def _headers(name: str) -> Callable[[Path], str]:
    """No loader takes it, and no gate."""

    def run(folder: Path) -> str:
        model, trap = _copy("vilt", folder), folder / "ran"
        (model / "model.safetensors").write_bytes(HEADERS[name])
        fault = _refuses(load_verifier, model, trap)
        staged = folder / "staged"
        staged.mkdir()
        (staged / "model.safetensors").write_bytes(HEADERS[name])
        found = contents(staged, {}, Store(folder / "home").images)
        # Readers take the last of two; it is a sound file of one tensor.
        sound = found.filter(pl.col("problem").is_null()).height and name != TWICE
        return fault or ("the gate took it" if sound else "")

    return run


def _large(folder: Path) -> str:
    model = _copy("vilt", folder)
    sparse(model / "model.safetensors", start=_header({}, 2**31 - 9))
    return _refuses(load_verifier, model, folder / "ran")


MODELS = (
    *(
        Attack(
            f"pickle as weights: {model}, {'zip' if zipped else 'plain'}",
            _pickled(model, name, load, zipped),
        )
        for model, name, load in (
            ("vilt", "pytorch_model.bin", load_verifier),
            ("clip", "pytorch_model.bin", load_clip),
            ("image_reward", PUBLISHED_CHECKPOINT, load_image_reward),
        )
        for zipped in (True, False)
    ),
    *(Attack(f"safetensors: {name}", _headers(name)) for name in HEADERS),
    Attack("safetensors of 2 GiB, all header", _large),
)
