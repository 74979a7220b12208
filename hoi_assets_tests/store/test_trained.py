"""Trainings are found again by their key, and go on where they were broken off."""

import shutil
import time
from pathlib import Path

import pytest

from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef
from hoi_assets.store.integrity import Damaged
from hoi_assets.store.trained import trained
from hoi_assets.store.versions import Store
from hoi_assets.store.weights import model_digest, model_fingerprint
from hoi_assets_tests.damage import damage


def test_same_key_is_trained_once(tmp_path: Path) -> None:
    store, calls = Store(tmp_path), []

    def train(work: Path, result: Path) -> None:
        calls.append(1)
        (result / "weights").write_text("w", encoding="utf-8")

    first = trained(store, "lora", "k", train)
    assert trained(store, "lora", "k", train) == first
    assert (first / "weights").read_text(encoding="utf-8") == "w"
    assert len(calls) == 1


def test_broken_training_leaves_no_result_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def broken(work: Path, result: Path) -> None:
        (work / "checkpoint").write_text("step 3", encoding="utf-8")
        (result / "half").write_text("", encoding="utf-8")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        trained(store, "lora", "k", broken)
    seen: list[str] = []

    def resumed(work: Path, result: Path) -> None:
        seen.append((work / "checkpoint").read_text(encoding="utf-8"))
        (result / "weights").write_text("w", encoding="utf-8")

    folder = trained(store, "lora", "k", resumed)
    assert seen == ["step 3"]
    assert [path.name for path in folder.iterdir()] == ["weights"]


def test_work_left_by_a_kill_after_the_last_step_is_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def train(work: Path, result: Path) -> None:
        (result / "weights").write_text("w", encoding="utf-8")

    folder = trained(store, "lora", "k", train)
    work = tmp_path / "training" / "lora" / "k"
    (work / "checkpoint-4").mkdir(parents=True)
    assert trained(store, "lora", "k", train) == folder
    assert not work.exists()


def test_damaged_training_is_refused_and_repeated_once_deleted(tmp_path: Path) -> None:
    store, key = Store(tmp_path), "4f"

    def train(work: Path, result: Path) -> None:
        (result / "lora").mkdir()
        (result / "lora" / "weights.safetensors").write_bytes(b"weights")

    folder = trained(store, "lora", key, train)
    damage(folder / "lora" / "weights.safetensors")
    with pytest.raises(Damaged, match=r"lora/weights\.safetensors is not the file") as refused:
        trained(store, "lora", key, train)
    assert str(folder) in refused.value.what and "delete that folder" in refused.value.remedy
    shutil.rmtree(folder)
    again = trained(store, "lora", key, train)
    assert (again / "lora" / "weights.safetensors").read_bytes() == b"weights"


def test_training_of_an_earlier_release_is_used_and_checked_from_then_on(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = tmp_path / "trained" / "lora" / "4f"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"weights")

    def train(work: Path, result: Path) -> None:
        raise AssertionError("trained anew")

    assert trained(store, "lora", "4f", train) == folder
    damage(folder / "weights.safetensors")
    with pytest.raises(Damaged):
        trained(store, "lora", "4f", train)


def test_model_digest_follows_weights_and_dtype(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"1")
    (tmp_path / "README.md").write_text("card", encoding="utf-8")
    ref = ModelRef(source=str(tmp_path))
    before = model_digest(ref)
    (tmp_path / "README.md").write_text("another card", encoding="utf-8")
    assert model_digest(ref) == before
    assert model_digest(ModelRef(source=str(tmp_path), dtype="float16")) != before
    (tmp_path / "model.safetensors").write_bytes(b"22")
    assert model_digest(ref) != before


def test_small_weights_have_their_digest_as_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"1")
    ref = ModelRef(source=str(tmp_path))
    assert model_fingerprint(ref) == model_digest(ref)


@pytest.mark.parametrize("place", [0.0, 0.4, 1.0])
def test_fingerprint_of_gigabytes_is_quick_and_follows_the_weights(
    tmp_path: Path, place: float
) -> None:
    size = 48 << 30  # a sparse file: no disk space, but a minute to hash
    weights = tmp_path / "model.safetensors"
    with weights.open("wb") as file:
        file.truncate(size)
    ref = ModelRef(source=str(tmp_path))
    started = time.perf_counter()
    before = model_fingerprint(ref)
    assert time.perf_counter() - started < 5
    with weights.open("r+b") as file:
        file.seek(int((size - (64 << 10)) * place))
        file.write(b"trained on")
    changed = model_fingerprint(ref)
    assert changed != before
    with weights.open("ab") as file:
        file.truncate(size + 1)
    assert model_fingerprint(ref) not in (before, changed)


def test_missing_weights_name_folder_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(HoiError, match="hoi models fetch"):
        model_digest(ModelRef(source=str(tmp_path / "absent")))


def test_hub_model_needs_a_commit_as_revision() -> None:
    with pytest.raises(HoiError, match="not a commit"):
        model_digest(ModelRef(source="someone/model", revision="main"))


def test_hub_model_is_not_taken_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = ModelRef(source="someone/model", revision="0" * 40)
    before = model_digest(ref)
    (tmp_path / "someone" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HoiError, match="is a hub repository, but"):
        model_digest(ref)
    monkeypatch.chdir(tmp_path / "someone")
    assert model_digest(ref) == before
