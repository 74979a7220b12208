"""A cap on what calls to an endpoint may cost, kept exactly though calls run side by side."""

import threading

TOKENS_PER_PRICE = 1_000_000


class Budget:
    """Counts US dollars; no call starts that could overstep the cap.

    Args:
        limit_usd: None is no cap.
        usd_per_million_input_tokens: None is unknown, and so is then every cost.
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
        """What was spent, US dollars; calls whose usage is not known count with their bound."""
        return self._spent

    def cost(self, input_tokens: int | None, output_tokens: int | None) -> float | None:
        """US dollars for so many tokens; None where a price or a number is not known."""
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
        """Replace what was set aside by what the call cost."""
        with self._change:
            # Sums of differences leave dust that would look like a call still under way.
            self._reserved = max(0.0, self._reserved - bound_usd)
            if self._reserved < 1e-12:
                self._reserved = 0.0
            self._spent += cost_usd
            self._change.notify_all()
