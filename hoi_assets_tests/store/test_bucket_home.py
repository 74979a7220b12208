"""A home in a bucket: what one machine publishes is what another reads, or nothing."""

import multiprocessing
import os
import pickle
import signal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from hoi_assets.errors import HoiError
from hoi_assets.store import pruning_bucket
from hoi_assets.store.catalogue import query
from hoi_assets.store.integrity import Damaged
from hoi_assets.store.lineage import lineage
from hoi_assets.store.orphans import orphans
from hoi_assets.store.places import manifest_file
from hoi_assets.store.pointers import BucketPointers
from hoi_assets.store.pruning import prune
from hoi_assets.store.trained import trained
from hoi_assets.store.versions import Published, Store
from hoi_assets_tests.s3_server import BucketHome
from hoi_assets_tests.store.conftest import publish

FORK = multiprocessing.get_context("fork")
ODD = "notes/100% é #1 it's + = & ?.md"


def picture(number: int) -> Image.Image:
    noise = np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def publish_number(store: Store, number: int) -> Published:
    """Without polars, whose threads do not survive a fork."""
    with store.stage("detailed_prompts", "hook") as staging:
        staging.write_json("number", number)
        return store.publish(staging, {}, run_id="run")


def object_of(published: Published, name: str) -> str:
    """The key of a version's file."""
    assert published.remote is not None
    return published.remote.key(published.path / name)


def test_another_machine_reads_what_was_published_and_copies_only_that(
    bucket_home: BucketHome, tmp_path: Path
) -> None:
    here = bucket_home.store("a", "tiny")
    digest = here.images.put(picture(1))
    with here.stage("category_loras", "hook") as staging:
        staging.write_table("rows", pl.DataFrame({"image": [digest]}))
        staging.write_json("thresholds", {"fidelity": 0.7})
        staging.write_text(ODD, "é")
        published = here.publish(staging, {"seed": 1}, "run 1", {"verifier": "ab"})
    there = bucket_home.store("b", "tiny")
    found = there.require("category_loras", "hook")
    assert found == Published(**{**vars(published), "path": found.path})
    assert there.home != here.home and not found.path.exists()
    assert found.table("rows")["image"].to_list() == [digest]
    assert [path.name for path in found.path.iterdir()] == ["rows.parquet"]
    assert found.file(ODD).read_text(encoding="utf-8") == "é"
    assert found.json("thresholds") == {"fidelity": 0.7}
    assert np.array_equal(np.asarray(there.images.open(digest)), np.asarray(picture(1)))
    assert there.images.missing([digest, "0" * 64]) == ["0" * 64]
    assert there.partitions("category_loras") == ["hook"] and there.assets() == ["category_loras"]
    assert there.history("category_loras", "hook") == [found]
    folder = Store(tmp_path / "a folder")
    with folder.stage("category_loras", "hook") as staging:
        staging.write_table("rows", pl.DataFrame({"image": [digest]}))
        staging.write_json("thresholds", {"fidelity": 0.7})
        staging.write_text(ODD, "é")
        assert folder.publish(staging, {}, None).version == published.version
    with pytest.raises(HoiError, match="belongs to the profile 'tiny'"):
        bucket_home.store("b", "full")
    assert pickle.loads(pickle.dumps(there)).require("category_loras", "hook") == found


def test_a_new_version_is_seen_at_once_and_older_ones_stay_readable(
    bucket_home: BucketHome,
) -> None:
    here, there = bucket_home.store("a"), bucket_home.store("b")
    assert there.current("detailed_prompts", "hook") is None
    first = publish(here, rows={"x": [1]})
    assert there.require("detailed_prompts", "hook").table("rows")["x"].to_list() == [1]
    publish(there, rows={"x": [2]})
    assert here.require("detailed_prompts", "hook").table("rows")["x"].to_list() == [2]
    old = here.version("detailed_prompts", "hook", first.version)
    assert old.table("rows")["x"].to_list() == [1]
    publish(here, rows={"x": [1]})
    assert [one.table("rows")["x"][0] for one in there.history("detailed_prompts", "hook")] == [
        1,
        2,
        1,
    ]


def _race(home: BucketHome, number: int, barrier: object) -> None:
    store = home.store(f"racer {number}")
    barrier.wait()  # type: ignore[attr-defined]
    publish_number(store, number)


def test_of_eight_racing_machines_each_publication_is_kept_and_one_is_in_force(
    bucket_home: BucketHome,
) -> None:
    bucket_home.store()
    barrier = FORK.Barrier(8)
    racers = [FORK.Process(target=_race, args=(bucket_home, n, barrier)) for n in range(8)]
    for one in racers:
        one.start()
    for one in racers:
        one.join(60)
    assert [one.exitcode for one in racers] == [0] * 8
    store = bucket_home.store("reader")
    history = store.history("detailed_prompts", "hook")
    assert sorted(one.json("number") for one in history) == list(range(8))
    assert store.current("detailed_prompts", "hook") == history[-1]


def test_without_a_lock_no_publication_overwrites_another(bucket_home: BucketHome) -> None:
    store = bucket_home.store()
    one = publish(store)
    pointers = store.pointers
    assert isinstance(pointers, BucketPointers)

    def append(number: int) -> None:
        record = Published(**{**vars(one), "run_id": f"run {number}"})
        pointers.publish(record)

    racers = [FORK.Process(target=append, args=(number,)) for number in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    names = [found.run_id for found in store.history("detailed_prompts", "hook")]
    assert sorted(names[1:]) == [f"run {number}" for number in range(8)]


def _publish_and_die(home: BucketHome) -> None:
    store = home.store("a")
    # Between the objects and the pointer.
    BucketPointers.publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment, method-assign]
    publish_number(store, 2)


def test_killed_between_objects_and_pointer_nothing_is_reachable_and_prune_removes_it(
    bucket_home: BucketHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish(bucket_home.store(), rows={"x": [1]})
    child = FORK.Process(target=_publish_and_die, args=(bucket_home,))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    left = [key for key in bucket_home.keys("assets/") if first.version not in key]
    assert len(left) == 2
    store = bucket_home.store("b")
    current = store.require("detailed_prompts", "hook")
    assert current.version == first.version
    assert store.history("detailed_prompts", "hook") == [current]
    # It may be an upload that is going on: it is left alone for a day.
    assert prune(store) == []
    assert set(left) < set(bucket_home.keys("assets/"))
    monkeypatch.setattr(pruning_bucket, "GRACE_S", -1.0)
    assert len(prune(store, dry_run=True)) == 1
    assert len(prune(store)) == 1
    assert not set(left) & set(bucket_home.keys("assets/"))
    assert store.require("detailed_prompts", "hook").table("rows")["x"].to_list() == [1]
    # The dead process's lock does not stop its machine.
    assert publish(bucket_home.store("a"), rows={"x": [2]}).is_stored()


@pytest.mark.parametrize("harm", ["other bytes", "missing"])
def test_damaged_object_is_refused_with_the_remedy_and_publishing_again_heals_it(
    bucket_home: BucketHome, harm: str
) -> None:
    published = publish(bucket_home.store("a"), rows={"x": [1]})
    key = object_of(published, "rows.parquet")
    if harm == "missing":
        bucket_home.delete(key)
    else:
        bucket_home.write(key, b"PAR1 of something else")
    there = bucket_home.store("b")
    found = there.require("detailed_prompts", "hook")
    with pytest.raises(Damaged, match="was altered") as told:
        found.table("rows")
    assert bucket_home.url in told.value.what and "hoi run --force" in told.value.remedy
    assert found.is_stored() == (harm != "missing")
    publish(bucket_home.store("c"), rows={"x": [1]})
    assert found.table("rows")["x"].to_list() == [1]


def test_altered_manifest_is_refused(bucket_home: BucketHome) -> None:
    published = publish(bucket_home.store("a"), rows={"x": [1]})
    bucket_home.write(
        f"assets/detailed_prompts/hook/manifests/{published.version}.json", b'{"rows.parquet":"0"}'
    )
    with pytest.raises(Damaged):
        bucket_home.store("b").require("detailed_prompts", "hook").table("rows")


def test_copy_that_was_damaged_here_is_fetched_again(bucket_home: BucketHome) -> None:
    here = bucket_home.store("a")
    digest = here.images.put(picture(2))
    published = publish(here, rows={"x": [1]})
    there = bucket_home.store("b")
    found = there.require("detailed_prompts", "hook")
    for path in (found.file("rows.parquet"), there.images.path(digest)):
        path.chmod(0o644)
        path.write_bytes(b"spoilt")
    assert found.table("rows")["x"].to_list() == [1]
    assert there.images.open(digest).size == (24, 24)
    assert published.table("rows").height == 1


def test_damaged_image_object_is_named_and_drawn_again(bucket_home: BucketHome) -> None:
    digest = bucket_home.store("a").images.put(picture(3))
    (key,) = bucket_home.keys("images/")
    bucket_home.write(key, b"no picture")
    there = bucket_home.store("b")
    with pytest.raises(Damaged, match="altered") as told:
        there.images.open(digest)
    assert key in told.value.what and "delete that object" in told.value.remedy
    assert bucket_home.store("c").images.put(picture(3)) == digest
    assert there.images.open(digest).size == (24, 24)
    bucket_home.delete(key)
    assert bucket_home.store("d").images.missing([digest]) == [digest]
    with pytest.raises(HoiError, match="missing images are redrawn"):
        bucket_home.store("d").images.open(digest)


def test_prune_trace_and_sql_over_a_bucket(bucket_home: BucketHome) -> None:
    here = bucket_home.store("a")
    root = publish(here, "taxonomy", None, rows={"x": [0]})
    made = [publish(here, rows={"x": [n]}, parents={"taxonomy": root.version}) for n in range(1, 4)]
    publish(here, "taxonomy", None, rows={"x": [9]})
    publish(here, partition="gone", rows={"x": [5]})
    there = bucket_home.store("b")
    sql = "select x from detailed_prompts where partition = 'hook'"
    assert query(there, sql)["x"].to_list() == [3]
    assert [one.name for one in lineage(there, "detailed_prompts", "hook", made[2].version)] == [
        "detailed_prompts/hook",
        "taxonomy",
    ]
    planned = prune(there, dry_run=True)
    assert [path.name for path in planned] == sorted(one.version for one in made[:2])
    assert prune(there) == planned
    kept = {one.key for one in _versions(there)}
    assert {made[2].version, root.version} <= kept and not {one.name for one in planned} & kept
    with pytest.raises(HoiError, match="was pruned"):
        here.version("detailed_prompts", "hook", made[0].version)
    assert orphans(there, ["hook"]) == [("detailed_prompts", "gone")]
    prune(there, known=["hook"])
    assert here.current("detailed_prompts", "gone") is None
    assert here.partitions("detailed_prompts") == ["hook"]
    publish(here, rows={"x": [4]})
    assert query(there, sql)["x"].to_list() == [4]


class _Named:
    def __init__(self, key: str) -> None:
        self.key = key


def _versions(store: Store) -> list[_Named]:
    assert store.remote is not None
    keys = [one.key for one in store.remote.bucket.list("assets/")]
    return [_Named(key.split("/")[4]) for key in keys if "/versions/" in key]


def test_rejected_output_is_evidence_for_all_and_read_by_none(bucket_home: BucketHome) -> None:
    here = bucket_home.store("a")
    with here.stage("verifier") as staging:
        staging.write_table("rows", pl.DataFrame({"x": [1]}))
        here.quarantine(staging, {"summary": "too few rows"})
    there = bucket_home.store("b")
    assert there.current("verifier") is None and there.places() == []
    keys = bucket_home.keys("quarantine/")
    assert [Path(key).name for key in keys] == ["rows.parquet", "evidence.json"]
    assert not bucket_home.keys("assets/") and not bucket_home.keys("pointers/")


def test_what_one_machine_trained_is_not_trained_again(bucket_home: BucketHome) -> None:
    calls = []

    def train(work: Path, result: Path) -> None:
        calls.append(work)
        (result / "weights.safetensors").write_bytes(b"weights")

    for machine in ("a", "b", "a"):
        folder = trained(bucket_home.store(machine), "lora", "abc", train)
        assert (folder / "weights.safetensors").read_bytes() == b"weights"
    assert len(calls) == 1
    bucket_home.write("trained/lora/abc/weights.safetensors", b"other")
    with pytest.raises(Damaged, match="altered") as told:
        trained(bucket_home.store("c"), "lora", "abc", train)
    assert "trained/lora/abc.json" in told.value.remedy


def test_copies_beyond_the_limit_go_the_least_recently_used_first(
    bucket_home: BucketHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = bucket_home.store("a")
    digests = [here.images.put(picture(number)) for number in range(10, 18)]
    published = publish(here, rows={"x": list(range(1000))})
    remote = here.remote
    assert remote is not None
    for age, digest in enumerate(digests):
        path = here.images._local(digest)
        os.utime(path, (1e9 - age * 60, 1e9 - age * 60))
    size = path.stat().st_size
    monkeypatch.setenv("HOI_CACHE_GB", str(size * 5 / 1e9))
    monkeypatch.setattr(remote.cache, "recent_s", 3600.0)
    assert remote.cache.sweep() > 0
    here_now = [digest for digest in digests if here.images._local(digest).exists()]
    assert here_now and here_now == digests[: len(here_now)]
    assert published.path.exists()  # used just now
    assert all(here.images.open(digest).size == (24, 24) for digest in digests)
    monkeypatch.setattr(remote.cache, "recent_s", -1.0)
    monkeypatch.setenv("HOI_CACHE_GB", "0.000000001")
    remote.cache.sweep()
    assert not published.path.exists() and manifest_file(published.path).exists()
    monkeypatch.setattr(remote.cache, "recent_s", 3600.0)
    assert here.require("detailed_prompts", "hook").table("rows").height == 1000
    monkeypatch.setenv("HOI_CACHE_GB", "lots")
    with pytest.raises(HoiError, match="HOI_CACHE_GB is 'lots'"):
        remote.cache.sweep()
