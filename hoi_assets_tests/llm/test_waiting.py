"""A busy endpoint is left alone by everybody, for as long as it asks, and no row is lost.

Intervals are scaled: `PACE` makes a storm of 10 minutes last a second.
"""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from hoi_assets.llm import throttle
from hoi_assets.llm.retry import EndpointError, asked_pause_s
from hoi_assets.llm.throttle import Pace, Throttle
from hoi_assets_tests.llm.chat_server import Answer, Request, Server
from hoi_assets_tests.llm.colours import RED, Asked, Serve, ask, good

SCALE = 600
REAL = Pace()
PACE = Pace(
    first_pause_s=REAL.first_pause_s / SCALE,
    longest_pause_s=REAL.longest_pause_s / SCALE,
    longest_asked_s=REAL.longest_asked_s / SCALE,
    patience_s=REAL.patience_s / SCALE,
)
STORM_S = 600 / SCALE
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _scaled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(throttle, "PACE", PACE)
    yield


def busy(retry_after: str | None = None, status: int = 429) -> Answer:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return Answer(status=status, body='{"error": {"message": "slow down"}}', headers=headers)


def at_once(server: Server, count: int, **more: int) -> Asked:
    return ask(server.url, count, concurrency=8, max_attempts=1, timeout_s=30, **more)


@pytest.mark.parametrize(
    ("retry_after", "status"), [(None, 429), ("0", 429), ("later", 429), (None, 503)]
)
def test_every_row_survives_a_storm_of_ten_minutes_with_few_requests(
    serve: Serve, retry_after: str | None, status: int
) -> None:
    def storm(request: Request, number: int) -> Answer:
        in_storm = number >= 12 and time.monotonic() - server.times[12] < STORM_S
        return busy(retry_after, status) if in_storm else good(request, number)

    server = serve(storm)
    asked = at_once(server, 40)
    assert asked.codes == ["ok"] * 40
    refused = len(server.requests) - 40
    # Those in flight when it began, then one at a time with pauses that double up to 30 s.
    assert 5 <= refused <= 50
    assert any("is busy: status 429" in line or "status 503" in line for line in asked.logged)


def test_one_busy_answer_lets_all_calls_pause_as_long_as_it_asks(serve: Serve) -> None:
    asked_s = 0.4
    server = serve(
        lambda request, number: busy(str(asked_s)) if number == 4 else Answer(RED, delay_s=0.1)
    )
    # Below the cap of this scaled pace.
    assert asked_s < PACE.longest_asked_s
    assert at_once(server, 60).codes == ["ok"] * 60
    # Without a shared pause, eight at a time, most would have been asked meanwhile.
    later = [t for t in server.times if t - server.times[4] >= asked_s]
    assert len(later) >= 30


def test_the_pause_is_shared_by_all_sections_that_use_the_endpoint(serve: Serve) -> None:
    server = serve(lambda request, number: busy("0.4") if number == 0 else good(request, number))
    first = threading.Thread(target=ask, args=(server.url, 1))
    first.start()
    while not server.requests:
        time.sleep(0.01)
    time.sleep(0.2)
    ask(server.url, 1, model="another")
    first.join()
    assert len(server.times) == 3
    assert min(server.times[1:]) - server.times[0] >= 0.4


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "-1"}, 0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
        ({"retry-after": format_datetime(NOON, usegmt=True), "date": "garbage"}, 0),
        *(
            (
                {
                    "retry-after": format_datetime(NOON + timedelta(seconds=s), usegmt=True),
                    "date": format_datetime(NOON, usegmt=True),
                },
                max(0, s),
            )
            for s in (90, 0, -90)
        ),
    ],
)
def test_retry_after_is_read_in_both_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_pause_s(headers) == seconds


def test_retry_after_as_a_date_is_waited_for(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "PACE", REAL)

    def dated(request: Request, number: int) -> Answer:
        if number:
            return good(request, number)
        # Whole seconds: the pause is between one and two.
        until = datetime.now(UTC) + timedelta(seconds=2)
        return busy(format_datetime(until.replace(microsecond=0), usegmt=True))

    server = serve(dated)
    assert ask(server.url, 1).codes == ["ok"]
    assert 0.7 < server.times[1] - server.times[0] < 5


def test_a_longer_pause_than_the_cap_is_cut_and_the_log_says_so(serve: Serve) -> None:
    server = serve(lambda request, number: good(request, number) if number else busy("86400"))
    asked = ask(server.url, 1)
    assert asked.codes == ["ok"]
    (line,) = [line for line in asked.logged if "is busy" in line]
    assert "asked for 86400 s, the cap" in line and f"pause {PACE.longest_asked_s:.3g} s" in line
    assert PACE.longest_asked_s <= server.times[1] - server.times[0] < 10


def test_concurrency_adapts_to_what_the_endpoint_takes(serve: Serve) -> None:
    takes = 2
    refused = []

    def limited(request: Request, number: int) -> Answer:
        if server.busy > takes:
            refused.append(number)
            return busy("0")
        return Answer(RED, delay_s=0.03)

    server = serve(limited)
    assert at_once(server, 70).codes == ["ok"] * 70
    assert 0 < len(refused) <= 60


def test_an_endpoint_that_stays_busy_ends_the_batch_and_keeps_what_is_done(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "PACE", Pace(0.04, 0.2, 0.4, patience_s=1.6))
    server = serve(lambda request, number: busy() if number >= 3 else good(request, number))
    asked = ask(server.url, 10)
    assert asked.codes == ["ok"] * 3 + ["endpoint"] * 7
    assert len(server.requests) < 40
    with pytest.raises(EndpointError, match="has been busy for"):
        ask(serve(lambda request, number: busy()).url, 2)


def test_used_up_credit_is_no_storm(serve: Serve) -> None:
    body = '{"error": {"code": "insufficient_quota", "message": "pay"}}'
    server = serve(lambda request, number: Answer(status=429, body=body))
    with pytest.raises(EndpointError, match="add credit"):
        ask(server.url, 4)
    assert len(server.requests) == 1


def test_the_real_pace_makes_few_requests_in_ten_minutes() -> None:
    now = [0.0]
    shared = Throttle(REAL, clock=lambda: now[0])
    shared.allow(8)
    calls = 0
    while now[0] < 600:
        tickets = [shared.enter(lambda: False) for _ in range(shared.limit)]
        calls += len(tickets)
        notes = [shared.leave_busy(ticket, None) for ticket in tickets if ticket is not None]
        assert [note.pause_s is not None for note in notes] == [True] + [False] * (len(notes) - 1)
        assert notes[0].pause_s is not None and notes[0].pause_s <= REAL.longest_pause_s
        now[0] += notes[0].pause_s
    assert shared.limit == 1 and calls < 45
    for _ in range(60):
        assert shared.enter(lambda: False) is not None
        shared.leave(answered=True)
    assert shared.limit == 8


def test_patience_begins_anew_when_the_endpoint_was_long_let_alone() -> None:
    now = [0.0]
    shared = Throttle(REAL, clock=lambda: now[0])

    def busy_for() -> float:
        ticket = shared.enter(lambda: False)
        assert ticket is not None
        return shared.leave_busy(ticket, None).busy_s

    assert busy_for() == 0
    now[0] += REAL.longest_pause_s
    assert busy_for() == REAL.longest_pause_s
    now[0] += REAL.longest_asked_s + 2 * REAL.longest_pause_s
    assert busy_for() == 0
