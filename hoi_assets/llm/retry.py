"""Why a call to an endpoint failed, and how long to wait before the next attempt."""

from hoi_assets.errors import HoiError

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


class EndpointError(HoiError):
    """The endpoint as a whole cannot be used: no answer, no permission, no such model."""


class TransientError(Exception):
    """A call that may succeed when repeated.

    Args:
        reason: `code: detail`.
        pause_s: how long the server asks to wait, in seconds; None where it does not say.
    """

    def __init__(self, reason: str, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


class RequestRefused(Exception):
    """The server refuses this one request; repeating it is pointless."""


class BudgetExceeded(Exception):
    """The cap leaves no room for another call."""


def back_off_s(attempt: int, error: TransientError) -> float:
    """Seconds to wait after the failed `attempt` (from 0): exponential, or as the server asks.

    >>> [back_off_s(attempt, TransientError("timeout")) for attempt in (0, 1, 2, 9)]
    [0.5, 1.0, 2.0, 30.0]
    """
    pause_s = FIRST_PAUSE_S * 2**attempt if error.pause_s is None else error.pause_s
    return min(pause_s, LONGEST_PAUSE_S)
