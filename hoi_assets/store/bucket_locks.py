"""Locks of a home in a bucket: one object each, written on conditions, that expire.

A lock's object says who holds it. It is taken by a conditional write, renewed by a thread while the
block runs, and marked as free at its end. A lock that was not renewed for `ttl_s` seconds is taken
over; its age is the server's time less the time at which the server wrote it, so that no machine's
clock matters. A dead process of this machine is known as dead at once.
"""

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from hoi_assets.errors import HoiError
from hoi_assets.store.bucket import Bucket, Content
from hoi_assets.store.bucket_errors import Conflict
from hoi_assets.store.disk import is_alive

TTL_S = 60.0
RENEWALS_PER_TTL = 4
FIRST_POLL_S, LAST_POLL_S = 0.02, 1.0


@dataclass(frozen=True)
class _Record:
    """What a lock's object holds. `renewal` makes each content, and so each ETag, another one."""

    token: str
    who: str
    machine: str
    pid: int
    renewal: int = 0
    free: bool = False

    def data(self) -> bytes:
        return json.dumps(asdict(self)).encode()


@dataclass
class _Held:
    record: _Record
    etag: str
    renewing: threading.Lock
    lost_to: str | None = None


class BucketLocks:
    """See the module.

    Args:
        ttl_s: seconds without renewal after which a lock is free for others.
    """

    def __init__(self, bucket: Bucket, ttl_s: float = TTL_S) -> None:
        self.bucket = bucket
        self.ttl_s = ttl_s
        self._held: dict[str, _Held] = {}

    @contextmanager
    def holding(self, key: str, what: str, timeout_s: float) -> Iterator[None]:
        """Hold the lock of that key for the block.

        Args:
            what: is locked, for messages.
            timeout_s: how long to wait for another holder.

        Raises:
            HoiError: it was held for longer; names the holder.
        """
        held = self._acquire(key, what, timeout_s)
        self._held[key] = held
        ended = threading.Event()
        thread = threading.Thread(target=self._renew_until, args=(key, held, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            del self._held[key]
            self._release(key, held)

    def require(self, key: str, what: str) -> None:
        """Renew the lock of that key now, where this process holds it.

        Raises:
            HoiError: another process took it over, as this one did not renew it in time.
        """
        held = self._held.get(key)
        if held is None:
            return
        self._renew(key, held)
        if held.lost_to is not None:
            raise HoiError(
                f"the lock of {what} was lost to {held.lost_to}: this process did not renew it for "
                f"more than {self.ttl_s:g} s",
                "run again: what the other process published is in force, and nothing is lost",
            )

    def _acquire(self, key: str, what: str, timeout_s: float) -> _Held:
        own = _Record(uuid.uuid4().hex, _who(), _machine(), os.getpid())
        deadline = time.monotonic() + timeout_s
        pause = FIRST_POLL_S
        while True:
            found = self.bucket.get(key)
            holder = None if found is None else _record(found)
            if holder is not None and holder.token == own.token and found is not None:
                # The write arrived, its answer did not.
                return _Held(own, found.etag, threading.Lock())
            if found is None or holder is None or self._is_free(found, holder):
                with contextlib.suppress(Conflict):
                    etag = None if found is None else found.etag
                    etag = self.bucket.put(key, own.data(), etag, absent=found is None)
                    return _Held(own, etag, threading.Lock())
            elif time.monotonic() >= deadline:
                raise HoiError(
                    f"{what} is in use by {holder.who} since more than {timeout_s:g} s",
                    "wait until it ends, or stop that process, then run again; a dead one's lock "
                    f"expires after {self.ttl_s:g} s",
                )
            # Those that lost a race go on at different times.
            time.sleep(pause * (0.5 + os.getpid() % 8 / 8))
            pause = min(pause * 1.5, LAST_POLL_S)

    def _is_free(self, found: Content, holder: _Record) -> bool:
        died_here = holder.machine == _machine() and not is_alive(holder.pid)
        return holder.free or found.age_s > self.ttl_s or died_here

    def _renew_until(self, key: str, held: _Held, ended: threading.Event) -> None:
        while not ended.wait(self.ttl_s / RENEWALS_PER_TTL) and held.lost_to is None:
            # A server that is away for less than the lock's life does no harm; `require` tells what
            # lasts.
            with contextlib.suppress(HoiError):
                self._renew(key, held)

    def _renew(self, key: str, held: _Held) -> None:
        with held.renewing:
            if held.lost_to is not None:
                return
            old = held.record
            record = _Record(old.token, old.who, old.machine, old.pid, old.renewal + 1)
            try:
                held.etag = self.bucket.put(key, record.data(), held.etag)
            except Conflict:
                found = self.bucket.get(key)
                now = None if found is None else _record(found)
                if found is None or now is None or now.token != old.token:
                    held.lost_to = "another process" if now is None else now.who
                    return
                held.etag = found.etag  # an earlier write whose answer was lost
            held.record = record

    def _release(self, key: str, held: _Held) -> None:
        if held.lost_to is not None:
            return
        old = held.record
        free = _Record(old.token, old.who, old.machine, old.pid, old.renewal + 1, free=True)
        # Not released, it expires; an error of the block is worth more than one of this write.
        with contextlib.suppress(HoiError):
            self.bucket.put(key, free.data(), held.etag)


def _record(found: Content) -> _Record | None:
    """None where it is no lock's object: nobody holds it then."""
    try:
        return _Record(**json.loads(found.data))
    except (ValueError, TypeError):
        return None


def _who() -> str:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return f"process {os.getpid()} on {os.uname().nodename} (started holding {since})"


@cache
def _machine() -> str:
    """Names the processes among which a process id is unique: a boot, and a container's ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return f"{os.uname().nodename}/{uuid.uuid4().hex}"  # equal to no other one's
