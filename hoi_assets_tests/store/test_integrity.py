"""What is read is what was published; everything else is refused, with the file and the remedy."""

import io
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from hoi_assets.store.catalogue import catalogue_path, query
from hoi_assets.store.integrity import Damaged
from hoi_assets.store.places import manifest_file
from hoi_assets.store.pruning import prune
from hoi_assets.store.versions import Published, Store
from hoi_assets_tests.damage import damage
from hoi_assets_tests.store.conftest import publish

MODEL = "model/model.safetensors"


def publish_model(store: Store) -> Published:
    with store.stage("verifier") as staging:
        staging.write_table("rows", pl.DataFrame({"status": ["rejected"]}))
        staging.write_json("thresholds", {"fidelity": 0.7})
        staging.write_bytes(MODEL, b"weights" * 1000)
        return store.publish(staging, {}, None)


def edit_table(published: Published) -> None:
    """All accepted, as someone would do it: size and time as they were."""
    path = published.path / "rows.parquet"
    before, data = path.stat(), io.BytesIO()
    pl.DataFrame({"status": ["accepted"]}).write_parquet(data)
    path.chmod(0o644)
    path.write_bytes(data.getvalue()[: before.st_size].ljust(before.st_size, b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def thresholds(published: Published) -> object:
    return published.json("thresholds")


def rows(published: Published) -> object:
    return published.table("rows")


Read, Harm = Callable[[Published], object], Callable[[Published], object]
READERS: list[tuple[str, Read, Harm]] = [
    ("rows.parquet is not the file", rows, edit_table),
    ("thresholds.json is not", thresholds, lambda p: damage(p.path / "thresholds.json")),
    (f"{MODEL} is not", lambda p: p.file("model"), lambda p: damage(p.path / MODEL)),
    (f"{MODEL} is not", lambda p: p.file(MODEL), lambda p: damage(p.path / MODEL)),
    ("rows.parquet is missing", rows, lambda p: (p.path / "rows.parquet").unlink()),
    ("model/x was added", thresholds, lambda p: (p.path / "model" / "x").touch()),
]


@pytest.mark.parametrize(("file", "read", "harm"), READERS)
def test_damaged_version_is_refused_naming_file_version_and_remedy(
    store: Store, file: str, read: Read, harm: Harm
) -> None:
    published = publish_model(store)
    time.sleep(0.1)  # older than the clock's tick, so that the first reading is remembered
    read(published)
    read(published)
    harm(published)
    with pytest.raises(Damaged) as refused:
        read(store.require("verifier"))
    assert f"verifier version {published.version} was altered: {file}" in refused.value.what
    assert "hoi run --force" in refused.value.remedy


def test_undamaged_files_are_read_once_by_a_process(store: Store) -> None:
    published = publish_model(store)
    time.sleep(0.1)
    published.verify()
    opened = []
    real = Path.open
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", lambda p, *a, **k: opened.append(p) or real(p, *a, **k))
        published.verify()
    assert not [path for path in opened if path.is_relative_to(published.path)]


@pytest.mark.parametrize("of_manifest", ["absent", "damaged"])
def test_version_without_a_manifest_is_checked_as_a_whole(store: Store, of_manifest: str) -> None:
    published = publish_model(store)
    manifest = manifest_file(published.path)
    if of_manifest == "absent":
        manifest.unlink()
    else:
        damage(manifest)
    assert published.json("thresholds") == {"fidelity": 0.7}
    damage(published.path / MODEL)
    with pytest.raises(Damaged, match=f"{published.version} was altered: one of its files"):
        published.json("thresholds")


def test_publishing_again_replaces_damaged_files_and_keeps_them_aside(store: Store) -> None:
    published = publish_model(store)
    damage(published.path / MODEL)
    publish_model(store)
    assert store.require("verifier").file(MODEL).read_bytes() == b"weights" * 1000
    (aside,) = (store.home / "quarantine" / "verifier" / "_").iterdir()
    assert (aside / MODEL).read_bytes() != b"weights" * 1000


def test_pruned_versions_leave_no_manifest(store: Store) -> None:
    first, second = publish(store, rows={"x": [1]}), publish(store, rows={"x": [2]})
    prune(store)
    assert not manifest_file(first.path).exists() and manifest_file(second.path).exists()


@pytest.mark.parametrize(
    "harm", [edit_table, lambda p: (p.path / "rows.parquet").unlink()], ids=["edited", "deleted"]
)
def test_catalogue_is_not_built_from_damaged_tables(store: Store, harm: Harm) -> None:
    published = publish_model(store)
    status = "select status from verifier"
    assert query(store, status)["status"].to_list() == ["rejected"]
    harm(published)
    # What was built from sound tables still holds; nothing new is built from damaged ones.
    assert query(store, status)["status"].to_list() == ["rejected"]
    catalogue_path(store).unlink()
    with pytest.raises(Damaged, match=r"rows\.parquet"):
        query(store, status)
    assert not catalogue_path(store).exists()


def test_damaged_catalogue_is_built_anew(store: Store) -> None:
    numbers = list(range(100_000))
    publish(store, rows={"x": numbers, "text": [f"{n * 7919 % 100_003}" for n in numbers]})
    count = "select sum(x) as x, count(distinct text) as texts from detailed_prompts"
    wanted = query(store, count)
    path = catalogue_path(store)
    sound = path.read_bytes()
    for place in range(len(sound) // 10, len(sound), len(sound) // 4):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        assert query(store, count).equals(wanted)


def test_damaged_picture_is_refused_and_drawn_again_once_deleted(store: Store) -> None:
    picture = Image.effect_noise((32, 32), 40).convert("RGB")
    digest = store.images.put(picture)
    damage(store.images.path(digest))
    with pytest.raises(Damaged, match=digest) as refused:
        store.images.open(digest)
    assert "delete that file" in refused.value.remedy
    store.images.path(digest).unlink()
    assert store.images.missing([digest]) == [digest]
    assert store.images.put(picture) == digest
    assert store.images.open(digest) == picture


def test_home_that_was_moved_is_still_sound(store: Store, tmp_path: Path) -> None:
    publish_model(store)
    moved = Store(shutil.move(store.home, tmp_path / "moved"))
    moved.require("verifier").verify()
