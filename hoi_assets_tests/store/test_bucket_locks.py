"""Locks of a home in a bucket: held by one, left by the dead, judged by the server's clock."""

import datetime
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from hoi_assets.errors import HoiError
from hoi_assets.store import bucket_locks
from hoi_assets.store.bucket import Bucket
from hoi_assets.store.bucket_locks import BucketLocks
from hoi_assets_tests.s3_server import BucketHome
from hoi_assets_tests.store.test_bucket_home import publish_number

FORK = multiprocessing.get_context("fork")
KEY, PLACE = "locks/computing/detailed_prompts/hook.json", ("detailed_prompts", "hook")
TTL_S = 2.0


def _hold(home: BucketHome, ready: Path, machine: str | None = None) -> None:
    """Hold the place's lock until killed; as a process of another machine where one is named."""
    if machine is not None:
        bucket_locks._machine = lambda: machine  # type: ignore[assignment]
    with BucketLocks(Bucket(home.url), TTL_S).holding(KEY, "detailed_prompts/hook", 5):
        ready.touch()
        time.sleep(120)


def held_by_another(home: BucketHome, folder: Path, machine: str | None = None) -> int:
    """Start a process that holds the lock; returns its id."""
    child = FORK.Process(target=_hold, args=(home, folder / "ready", machine), daemon=True)
    child.start()
    deadline = time.monotonic() + 30
    while not (folder / "ready").exists():
        assert time.monotonic() < deadline and child.is_alive()
        time.sleep(0.02)
    assert child.pid is not None
    return child.pid


def test_held_lock_is_renewed_and_names_its_holder(bucket_home: BucketHome, tmp_path: Path) -> None:
    pid = held_by_another(bucket_home, tmp_path, "another machine")
    store = bucket_home.store()
    with (
        pytest.raises(HoiError, match=f"process {pid} on .* since more than"),
        store.lock(*PLACE, timeout_s=TTL_S * 2),
    ):
        pass
    os.kill(pid, signal.SIGKILL)


def test_lock_of_a_dead_node_expires(bucket_home: BucketHome, tmp_path: Path) -> None:
    pid = held_by_another(bucket_home, tmp_path, "another machine")
    os.kill(pid, signal.SIGKILL)
    locks = BucketLocks(Bucket(bucket_home.url), TTL_S)
    start = time.monotonic()
    with pytest.raises(HoiError, match="expires after 2 s"), locks.holding(KEY, "it", 0):
        pass
    with locks.holding(KEY, "it", 10):
        # Both of the server's times are whole seconds.
        assert TTL_S - 1.5 < time.monotonic() - start < 10


def test_lock_of_a_dead_process_of_this_machine_is_free_at_once(
    bucket_home: BucketHome, tmp_path: Path
) -> None:
    pid = held_by_another(bucket_home, tmp_path)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    store = bucket_home.store()
    assert store.remote is not None and store.remote.locks.ttl_s > 30
    with store.lock(*PLACE, timeout_s=1):
        pass


def test_clock_that_is_minutes_off_changes_nothing(
    bucket_home: BucketHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import botocore.auth

    real = botocore.auth.get_current_datetime
    pid = held_by_another(bucket_home, tmp_path, "another machine")
    for minutes in (-10, 10):

        def shifted(*given: object, by: int = minutes, **named: object) -> datetime.datetime:
            return real(*given, **named) + datetime.timedelta(minutes=by)

        monkeypatch.setattr(botocore.auth, "get_current_datetime", shifted)
        monkeypatch.setattr(time, "time", lambda by=minutes: time.monotonic() + by * 60)
        locks = BucketLocks(Bucket(bucket_home.url), TTL_S)
        with pytest.raises(HoiError, match="is in use by"), locks.holding(KEY, "it", 0):
            pass
    os.kill(pid, signal.SIGKILL)


def _publish_after_a_pause(home: BucketHome, ready: Path, told: Path) -> None:
    bucket_locks._machine = lambda: "another machine"  # type: ignore[assignment]
    store = home.store("paused")
    assert store.remote is not None
    store.remote.locks.ttl_s = TTL_S
    try:
        with store.lock(*PLACE, timeout_s=5):
            ready.touch()
            while not ready.with_suffix(".go").exists():
                time.sleep(0.05)
            publish_number(store, 1)
    except HoiError as error:
        told.write_text(str(error), encoding="utf-8")


def test_paused_process_that_lost_its_lock_publishes_nothing(
    bucket_home: BucketHome, tmp_path: Path
) -> None:
    ready, told = tmp_path / "ready", tmp_path / "told"
    child = FORK.Process(target=_publish_after_a_pause, args=(bucket_home, ready, told))
    child.start()
    while not ready.exists():
        time.sleep(0.02)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGSTOP)
    store = bucket_home.store("a")
    assert store.remote is not None
    store.remote.locks.ttl_s = TTL_S
    with store.lock(*PLACE, timeout_s=30):
        publish_number(store, 2)
        ready.with_suffix(".go").touch()
        os.kill(child.pid, signal.SIGCONT)
        child.join(60)
    assert "was lost to process" in told.read_text(encoding="utf-8")
    assert [one.json("number") for one in store.history(*PLACE)] == [2]
    with store.lock(*PLACE, timeout_s=0):
        pass
