"""What calls to an endpoint cost: usage per request, prices, and a cap that holds under threads."""

import threading
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

TOKENS_PER_PRICE = 1_000_000

Number = TypeVar("Number", int, float)


class Charge(NamedTuple):
    """Tokens and US dollars of one call; None where the endpoint or the settings do not say."""

    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None


@dataclass
class Usage:
    """Tokens and US dollars of all calls for one request; None once one of them is unknown.

    Attributes:
        served: the model that answered last, where it is not the requested one.
    """

    input_tokens: int | None = 0
    output_tokens: int | None = 0
    cost_usd: float | None = 0.0
    served: str | None = None

    def add(self, charge: Charge) -> None:
        """Count one more call."""
        self.input_tokens = _sum(self.input_tokens, charge.input_tokens)
        self.output_tokens = _sum(self.output_tokens, charge.output_tokens)
        self.cost_usd = _sum(self.cost_usd, charge.cost_usd)


class Budget:
    """Counts US dollars; no call starts that could exceed the cap.

    Args:
        limit_usd: None means no cap.
        usd_per_million_input_tokens: None means unknown, and then every cost is unknown.
        usd_per_million_output_tokens: as above.
    """

    def __init__(
        self,
        limit_usd: float | None,
        usd_per_million_input_tokens: float | None,
        usd_per_million_output_tokens: float | None,
    ) -> None:
        self.limit_usd = limit_usd
        self._prices = (usd_per_million_input_tokens, usd_per_million_output_tokens)
        self._change = threading.Condition()
        self._spent = 0.0
        self._reserved = 0.0

    @property
    def spent_usd(self) -> float:
        """US dollars spent so far; a call of unknown usage counts with its upper bound."""
        return self._spent

    def cost(self, input_tokens: int | None, output_tokens: int | None) -> float | None:
        """US dollars for so many tokens; None where a price or a number is unknown."""
        price_in, price_out = self._prices
        if None in (input_tokens, output_tokens, price_in, price_out):
            return None
        assert input_tokens is not None and output_tokens is not None
        assert price_in is not None and price_out is not None
        return (input_tokens * price_in + output_tokens * price_out) / TOKENS_PER_PRICE

    def reserve(self, bound_usd: float) -> bool:
        """Set aside the most a call can cost; False where the cap leaves no room for it.

        Waits while calls under way might still leave room.
        """
        with self._change:
            while self.limit_usd is not None and (
                self._spent + self._reserved + bound_usd > self.limit_usd
            ):
                if self._reserved <= 0:
                    return False
                self._change.wait()
            self._reserved += bound_usd
            return True

    def settle(self, bound_usd: float, cost_usd: float) -> None:
        """Replace a reservation by what the call cost."""
        with self._change:
            # Rounding leaves a remainder that would look like a call still under way.
            self._reserved = max(0.0, self._reserved - bound_usd)
            if self._reserved < 1e-12:
                self._reserved = 0.0
            self._spent += cost_usd
            self._change.notify_all()


def _sum(a: Number | None, b: Number | None) -> Number | None:
    return None if a is None or b is None else a + b
