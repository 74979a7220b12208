"""Why a call to an endpoint failed, and what that means for the request and for all others."""

import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from hoi_assets.errors import HoiError

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


class EndpointError(HoiError):
    """The endpoint as a whole cannot be used: no answer, no permission, no such model.

    Args:
        status: HTTP status of the answer; None where there was none, or it does not matter.
    """

    def __init__(self, what: str, remedy: str, status: int | None = None) -> None:
        super().__init__(what, remedy)
        self.status = status


class TransientError(Exception):
    """A call that may succeed when repeated.

    Args:
        reason: `code: detail`.
        of_request: says nothing about the endpoint as a whole, even if no call has succeeded yet.
    """

    def __init__(self, reason: str, of_request: bool = False) -> None:
        super().__init__(reason)
        self.of_request = of_request


class Busy(Exception):
    """The endpoint takes no calls for now; not an attempt of the request.

    Args:
        reason: `code: detail`.
        asked_s: how long the server asks to wait, in seconds; None where it does not say.
    """

    def __init__(self, reason: str, asked_s: float | None = None) -> None:
        super().__init__(reason)
        self.asked_s = asked_s


class RequestFailed(Exception):
    """This one request fails, and asking again would give the same.

    Args:
        reason: `code: detail`.
        final: the model's own answer, such as a refusal; it is cached like a value.
    """

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class BudgetExceeded(Exception):
    """The cap leaves no room for another call."""


class Stopped(Exception):
    """The run has ended; no further call is made."""


def back_off_s(attempt: int) -> float:
    """Seconds to wait after the failed `attempt` (from 0).

    >>> [back_off_s(attempt) for attempt in (0, 1, 2, 9)]
    [0.5, 1.0, 2.0, 30.0]
    """
    return min(FIRST_PAUSE_S * 2**attempt, LONGEST_PAUSE_S)


def asked_pause_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a `Retry-After` header asks for; None without a readable one.

    An HTTP date counts from the answer's own `Date`, so that the clocks need not agree.

    >>> asked_pause_s({"retry-after": "7"})
    7.0
    >>> sent, until = "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:30 GMT"
    >>> asked_pause_s({"retry-after": until, "date": sent})
    30.0
    """
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        until = _timestamp(text)
        if until is None:
            return None
        now = _timestamp(headers.get("date", ""))
        seconds = until - (time.time() if now is None else now)
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _timestamp(http_date: str) -> float | None:
    try:
        moment: datetime = parsedate_to_datetime(http_date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
