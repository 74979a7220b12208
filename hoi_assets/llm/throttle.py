"""How fast an endpoint is called: one pause and one limit of concurrency for all its callers.

An endpoint that answers "busy" is left alone by everyone, first briefly, then longer, or for as
long as it asks. The limit of calls in flight halves with each such answer and grows by one per
round of successes (additive increase, multiplicative decrease).
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

POLL_S = 0.5


@dataclass(frozen=True)
class Pace:
    """Intervals in seconds.

    Attributes:
        first_pause_s: after the first busy answer; doubles with each further one.
        longest_pause_s: the most that it grows to.
        longest_asked_s: the most that is waited where the server asks for a pause.
        patience_s: how long an endpoint may stay busy until it counts as failing.
    """

    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    longest_asked_s: float = 300.0
    patience_s: float = 1800.0


PACE = Pace()

_throttles: dict[str, "Throttle"] = {}
_throttles_lock = threading.Lock()


def throttle_of(endpoint: str, concurrency: int) -> "Throttle":
    """The throttle that this process shares among all callers of an endpoint.

    Args:
        concurrency: calls in flight that a caller may make at once.
    """
    with _throttles_lock:
        throttle = _throttles.setdefault(endpoint, Throttle(PACE))
    throttle.allow(concurrency)
    return throttle


@dataclass(frozen=True)
class BusyNote:
    """What a busy answer led to.

    Attributes:
        pause_s: the pause it started; None where one is under way.
        busy_s: how long the endpoint has been busy without a success in between.
        cut_from_s: the pause the server asked for, where that exceeds the cap.
    """

    pause_s: float | None
    busy_s: float
    cut_from_s: float | None = None


class Throttle:
    """Safe for several threads; a call is made between `enter` and `leave` or `leave_busy`."""

    def __init__(self, pace: Pace, clock: Callable[[], float] = time.monotonic) -> None:
        self.pace = pace
        self._clock = clock
        self._change = threading.Condition()
        self._ceiling = 1
        self._limit = 1.0
        self._in_flight = 0
        self._resumes_at = 0.0
        self._busy_since: float | None = None
        self._busy_answers = 0
        # Counts the pauses: answers to calls made before a pause do not start another.
        self._round = 0

    @property
    def limit(self) -> int:
        """Calls that may be in flight now."""
        return int(self._limit)

    def allow(self, concurrency: int) -> None:
        """A caller that makes up to `concurrency` calls at once."""
        with self._change:
            if concurrency > self._ceiling:
                self._limit += concurrency - self._ceiling
                self._ceiling = concurrency
                self._change.notify_all()

    def enter(self, stopped: Callable[[], bool]) -> int | None:
        """Wait until a call may be made; its ticket, or None once `stopped`."""
        with self._change:
            while not stopped():
                pause_s = self._resumes_at - self._clock()
                if pause_s <= 0 and self._in_flight < self.limit:
                    self._in_flight += 1
                    return self._round
                self._change.wait(min(pause_s, POLL_S) if pause_s > 0 else POLL_S)
            return None

    def leave(self, answered: bool) -> None:
        """A call ended; `answered` where the endpoint served it."""
        with self._change:
            self._in_flight -= 1
            if answered:
                self._busy_since, self._busy_answers = None, 0
                self._limit = min(float(self._ceiling), self._limit + 1 / self._limit)
            self._change.notify_all()

    def leave_busy(self, ticket: int, asked_s: float | None) -> BusyNote:
        """A call was answered with "busy".

        Args:
            ticket: what `enter` gave.
            asked_s: how long the server asks to wait, in seconds.
        """
        with self._change:
            self._in_flight -= 1
            now = self._clock()
            long_ago = now > self._resumes_at + self.pace.longest_asked_s
            if self._busy_since is None or long_ago:
                self._busy_since, self._busy_answers = now, 0
            pause_s = min(asked_s or 0.0, self.pace.longest_asked_s)
            starts = ticket == self._round
            if starts:
                if asked_s is None or self._busy_answers:
                    # Also where the server asks for less again and again.
                    doublings = min(self._busy_answers, 60)
                    grown_s = self.pace.first_pause_s * 2**doublings
                    pause_s = max(pause_s, min(grown_s, self.pace.longest_pause_s))
                self._busy_answers += 1
                self._round += 1
                self._limit = max(1.0, self._limit // 2)
            self._resumes_at = max(self._resumes_at, now + pause_s)
            self._change.notify_all()
            cut = asked_s if asked_s and asked_s > self.pace.longest_asked_s else None
            return BusyNote(pause_s if starts else None, now - self._busy_since, cut)
