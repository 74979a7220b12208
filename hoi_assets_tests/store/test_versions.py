import json
import multiprocessing
import os
import pickle
import random
import signal
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hoi_assets.errors import HoiError
from hoi_assets.store.disk import DiskFull, temporary_path
from hoi_assets.store.versions import Published, Store
from hoi_assets_tests.store.conftest import file_size_limit, publish, table

FORK = multiprocessing.get_context("fork")


def test_published_content_is_what_readers_get(store: Store) -> None:
    with store.stage("verifier") as staging:
        staging.write_table("rows", pl.DataFrame({"x": [1, 2]}))
        staging.write_json("thresholds", {"fidelity": 0.7})
        staging.write_text("notes/README.md", "é")
        staging.write_bytes("loss.png", b"\x89PNG")
        published = store.publish(staging, {"code_version": "1", "shape": (1, 2)}, "run 1")
    found = store.require("verifier")
    assert found == published == store.current("verifier")
    assert found.table("rows")["x"].to_list() == [1, 2]
    assert found.json("thresholds") == {"fidelity": 0.7}
    assert found.file("notes/README.md").read_text(encoding="utf-8") == "é"
    assert (found.inputs, found.run_id) == ({"code_version": "1", "shape": [1, 2]}, "run 1")
    assert not list(store.staging.iterdir())


def test_older_versions_stay_readable_and_history_is_kept(store: Store) -> None:
    first, second = publish(store, rows={"x": [1]}), publish(store, rows={"x": [2]})
    assert store.current("detailed_prompts", "hook") == second
    assert store.history("detailed_prompts", "hook") == [first, second]
    old = store.version("detailed_prompts", "hook", first.version)
    assert old.table("rows")["x"].to_list() == [1]


def test_renamed_columns_of_older_versions_are_read_by_their_current_names(store: Store) -> None:
    old = publish(store, "refined_images", "functional", rows={"passes": [56], "held": [2]})
    assert old.table("rows").columns == ["denoiser_evaluations", "satisfied"]
    old.verify()


def test_equal_content_is_one_version_and_the_pointer_moves_back(store: Store) -> None:
    first = publish(store, rows={"x": [1]}, inputs={"seed": 1})
    publish(store, rows={"x": [2]})
    inode = first.file("rows.parquet").stat().st_ino
    again = publish(store, rows={"x": [1]}, inputs={"seed": 2})
    assert again.version == first.version
    assert store.require("detailed_prompts", "hook").inputs == {"seed": 2}
    assert first.file("rows.parquet").stat().st_ino == inode


def test_partitions_and_assets_are_those_with_a_version_in_force(store: Store) -> None:
    for asset, partition in [("a", "tripod"), ("a", "hook"), ("b", None)]:
        publish(store, asset, partition)
    with store.stage("c") as staging:
        staging.write_text("x", "x")
        store.quarantine(staging, {})
    assert store.partitions("a") == ["hook", "tripod"]
    assert store.partitions("b") == store.partitions("c") == []
    assert store.assets() == ["a", "b"]
    assert [p.name for p in store.all_current()] == ["a/hook", "a/tripod", "b"]


def test_require_names_what_to_materialise(store: Store) -> None:
    assert store.current("category_loras", "hook") is None
    with pytest.raises(HoiError, match="materialise category_loras for hook first"):
        store.require("category_loras", "hook")


def test_unknown_version_and_unknown_file_name_what_there_is(store: Store) -> None:
    published = publish(store)
    with pytest.raises(HoiError, match=f"known: {published.version}"):
        store.version("detailed_prompts", "hook", "0" * 16)
    with pytest.raises(HoiError, match=r"it has: rows\.parquet"):
        published.table("log")


def test_published_files_are_read_only_and_alteration_is_found(store: Store) -> None:
    published = publish(store)
    path = published.file("rows.parquet")
    assert path.stat().st_mode & 0o222 == 0
    published.verify()
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(HoiError, match=f"{published.version} was altered"):
        published.verify()

    publish(store).verify()
    assert len(list((store.home / "quarantine" / "detailed_prompts" / "hook").iterdir())) == 1


def test_added_file_counts_as_alteration(store: Store) -> None:
    published = publish(store)
    (published.path / "extra.txt").write_text("x", encoding="utf-8")
    with pytest.raises(HoiError, match="was altered"):
        published.verify()


def test_failing_block_leaves_nothing_behind_and_the_last_version_in_force(store: Store) -> None:
    good = publish(store)
    with pytest.raises(RuntimeError), store.stage("detailed_prompts", "hook") as staging:
        staging.write_text("half", "half")
        raise RuntimeError
    assert store.require("detailed_prompts", "hook") == good
    assert not list(store.staging.iterdir())


def test_nothing_staged_is_not_published(store: Store) -> None:
    with store.stage("verifier") as staging, pytest.raises(HoiError, match="nothing was staged"):
        store.publish(staging, {}, None)
    assert store.current("verifier") is None


def test_quarantined_content_is_kept_with_evidence_and_never_in_force(store: Store) -> None:
    good = publish(store)
    for observed in (3, 4):
        with store.stage("detailed_prompts", "hook") as staging:
            staging.write_table("rows", pl.DataFrame({"x": [7]}))
            folder = store.quarantine(staging, {"expectation": "rows >= 8", "observed": observed})
    evidence = json.loads((folder / "evidence.json").read_text(encoding="utf-8"))
    assert evidence["observed"] == 4
    assert pl.read_parquet(folder / "content" / "rows.parquet")["x"].to_list() == [7]
    assert store.require("detailed_prompts", "hook") == good
    assert store.history("detailed_prompts", "hook") == [good]
    assert len(list(folder.parent.iterdir())) == 1
    assert not list(store.staging.iterdir())


@pytest.mark.parametrize("name", ["../up", "/etc/x", "a/../../b", "."])
def test_file_names_stay_inside_the_version(store: Store, name: str) -> None:
    with store.stage("verifier") as staging, pytest.raises(HoiError, match="leaves"):
        staging.write_text(name, "x")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "_", "a,b"])
def test_names_that_cannot_be_folders_are_refused(store: Store, name: str) -> None:
    with pytest.raises(HoiError, match="cannot name a folder"):
        store.stage("verifier", name)


def test_added_folder_holds_files_not_links(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "weights").write_bytes(b"w")
    (source / "link").symlink_to(source / "sub" / "weights")
    with store.stage("verifier") as staging:
        staging.add_folder("model", source)
        published = store.publish(staging, {}, None)
    (source / "sub" / "weights").write_bytes(b"changed")
    published.verify()
    assert published.file("model/link").read_bytes() == b"w"
    assert not published.file("model/link").is_symlink()


def test_damaged_pointer_says_what_to_do(store: Store) -> None:
    publish(store)
    path = store.home / "assets" / "detailed_prompts" / "hook" / "current.json"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(HoiError, match=r"current\.json is not readable"):
        store.current("detailed_prompts", "hook")


def test_line_cut_short_in_the_log_is_dropped_by_the_next_publication(store: Store) -> None:
    first = publish(store)
    log = store.home / "assets" / "detailed_prompts" / "hook" / "publications.jsonl"
    with log.open("ab") as file:
        file.write(b'{"asset": "detai')
    assert store.history("detailed_prompts", "hook") == [first]
    second = publish(store, rows={"x": [2]})
    assert store.history("detailed_prompts", "hook") == [first, second]


def test_store_can_be_sent_to_another_process(store: Store) -> None:
    published = publish(store)
    _ = store.ledger, store.images
    assert pickle.loads(pickle.dumps(store)).require("detailed_prompts", "hook") == published


# Several processes -------------------------------------------------------------------------------


def _publish_number(store: Store, number: int) -> Published:
    """Three files that say the same number, written one after the other."""
    with store.stage("line", "hook") as staging:
        for name in ("one", "two", "three"):
            staging.write_text(name, str(number) * 2000)
        return store.publish(staging, {"number": number}, None)


def _publish_for_ever(home: Path, start: int, begun: Any) -> None:
    store = Store(home)
    number = start
    while True:
        _publish_number(store, number)
        begun.set()
        number += 1


def _contents(published: Published) -> set[str]:
    return {(published.path / name).read_text("utf-8") for name in ("one", "two", "three")}


def _read_until(home: Path, versions: int, most_s: float, results: Any) -> None:
    store = Store(home)
    seen: set[str] = set()
    end = time.monotonic() + most_s
    while len(seen) < versions and time.monotonic() < end:
        published = store.require("line", "hook")
        if _contents(published) != {str(published.inputs["number"]) * 2000}:
            results.put("half")
            return
        seen.add(published.version)
    results.put(len(seen))


def test_readers_see_the_old_version_or_the_new_never_a_half(store: Store) -> None:
    _publish_number(store, 0)
    results = FORK.Queue()
    readers = [
        FORK.Process(target=_read_until, args=(store.home, 5, 60, results)) for _ in range(2)
    ]
    for reader in readers:
        reader.start()
    number = 0
    while any(reader.is_alive() for reader in readers):
        number += 1
        _publish_number(store, number)
    answers = [results.get(timeout=10) for _ in readers]
    assert answers == [5, 5]


def test_writer_killed_at_any_moment_leaves_a_whole_version_in_force(store: Store) -> None:
    _publish_number(store, 0)
    chance = random.Random(0)
    for attempt in range(1, 16):
        begun = FORK.Event()
        writer = FORK.Process(target=_publish_for_ever, args=(store.home, attempt * 1000, begun))
        writer.start()
        assert begun.wait(30)
        time.sleep(chance.uniform(0, 0.02))
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join(10)

        after = Store(store.home)
        assert not list(after.staging.glob("line-*"))
        current = after.require("line", "hook")
        current.verify()
        assert current in after.history("line", "hook")
        assert _contents(current) == {str(current.inputs["number"]) * 2000}
        for path in current.path.parent.iterdir():
            assert len(list(path.iterdir())) == 3
    versions = {p.version for p in store.history("line", "hook")}
    assert len(versions) > 15
    for version in versions:
        store.version("line", "hook", version).verify()
    assert _publish_number(store, 7).version == store.require("line", "hook").version


def _stage_and_wait(home: Path, ready: Any) -> None:
    staging = Store(home).stage("line", "hook")
    staging.write_text("one", "1")
    ready.put(staging.path)
    time.sleep(60)


def test_staging_of_the_living_is_kept_and_of_the_dead_removed(store: Store) -> None:
    ready = FORK.Queue()
    process = FORK.Process(target=_stage_and_wait, args=(store.home, ready))
    process.start()
    path = ready.get(timeout=20)
    Store(store.home)
    assert path.is_dir()
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(10)
    Store(store.home)
    assert not list(store.staging.iterdir())


def _publish_some(home: Path, start: int) -> None:
    store = Store(home)
    for number in range(start, start + 15):
        _publish_number(store, number)


def test_publishers_of_one_place_at_once_lose_no_publication(store: Store) -> None:
    writers = [FORK.Process(target=_publish_some, args=(store.home, n * 100)) for n in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    history = store.history("line", "hook")
    assert {p.inputs["number"] for p in history} == {*range(15), *range(100, 115)}
    assert store.current("line", "hook") == history[-1]


def test_removal_cut_short_by_a_kill_is_finished_by_the_next_store(store: Store) -> None:
    (store.staging / "0123.pruned").mkdir()
    (store.staging / "0123.pruned" / "rows.parquet").write_bytes(b"x")
    Store(store.home)
    assert not list(store.staging.iterdir())


def test_old_half_written_files_are_removed_and_young_ones_kept(store: Store) -> None:
    for name, age_s in (("old.tmp", 7200), ("young.tmp", 0)):
        (store.staging / name).write_bytes(b"half")
        os.utime(store.staging / name, (time.time() - age_s,) * 2)
    Store(store.home)
    assert [path.name for path in store.staging.iterdir()] == ["young.tmp"]


def _write_half(home: Path, ready: Any) -> None:
    partial = temporary_path(Store(home).staging)
    for path in (partial, partial.with_name(f"{partial.name}.wal")):
        path.write_bytes(b"half")
    ready.put(1)
    time.sleep(60)


def test_half_written_files_of_the_dead_are_removed_and_those_of_the_living_kept(
    store: Store,
) -> None:
    ready = FORK.Queue()
    process = FORK.Process(target=_write_half, args=(store.home, ready))
    process.start()
    ready.get(timeout=20)
    for path in store.staging.iterdir():
        os.utime(path, (0, 0))  # the clock was set: no reason to take a living process's file
    Store(store.home)
    assert len(list(store.staging.iterdir())) == 2
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(10)
    Store(store.home)
    assert not list(store.staging.iterdir())


def test_half_written_file_from_the_future_is_removed(store: Store) -> None:
    (store.staging / "old.tmp").write_bytes(b"half")
    os.utime(store.staging / "old.tmp", (time.time() + 7200,) * 2)
    Store(store.home)
    assert not list(store.staging.iterdir())


def _hold(home: Path, ready: Any) -> None:
    with Store(home).lock("candidate_images", "hook"):
        ready.put(os.getpid())
        time.sleep(60)


def test_lock_names_its_holder_and_ends_with_it(store: Store) -> None:
    ready = FORK.Queue()
    process = FORK.Process(target=_hold, args=(store.home, ready))
    process.start()
    pid = ready.get(timeout=20)
    with (
        pytest.raises(HoiError, match=f"candidate_images/hook is being made by process {pid} on"),
        store.lock("candidate_images", "hook", timeout_s=0.1),
    ):
        pass
    with store.lock("candidate_images", "tripod", timeout_s=0.1), store.lock("verifier"):
        pass
    os.kill(pid, signal.SIGKILL)
    process.join(10)
    with store.lock("candidate_images", "hook", timeout_s=0.1):
        pass


def test_lock_excludes_within_one_process_and_is_let_go_after_an_error(store: Store) -> None:
    with pytest.raises(RuntimeError), store.lock("verifier"):
        with pytest.raises(HoiError, match="being made by"), store.lock("verifier", timeout_s=0.1):
            pass
        raise RuntimeError
    with store.lock("verifier", timeout_s=0.1):
        pass


# Full disk ---------------------------------------------------------------------------------------


def test_full_disk_while_staging_harms_nothing_published(store: Store) -> None:
    good = publish(store)
    with (
        file_size_limit(16_384),
        store.stage("detailed_prompts", "hook") as staging,
        pytest.raises(DiskFull, match=r"disk full while writing .*rows\.parquet"),
    ):
        staging.write_table("rows", table(20_000))
    assert store.require("detailed_prompts", "hook") == good
    good.verify()
    assert not list(store.staging.iterdir())


def test_full_disk_while_copying_a_folder_is_named(store: Store, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"w" * 100_000)
    with file_size_limit(16_384), store.stage("verifier") as staging, pytest.raises(DiskFull):
        staging.add_folder("model", tmp_path / "model")


def test_full_disk_while_publishing_leaves_the_last_version_and_a_whole_log(store: Store) -> None:
    good = publish(store)
    with (
        store.stage("detailed_prompts", "hook") as staging,
        file_size_limit(16_384),
        pytest.raises(DiskFull),
    ):
        staging.write_text("small", "x")
        store.publish(staging, {"long": "x" * 50_000}, None)
    assert store.require("detailed_prompts", "hook") == good
    assert store.history("detailed_prompts", "hook") == [good]
    again = publish(store, rows={"x": [2]})
    assert store.history("detailed_prompts", "hook") == [good, again]


def test_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for home in (tmp_path / "file" / "home", tmp_path / "file"):
        with pytest.raises(HoiError, match=f"cannot write {home}"):
            Store(home)
