"""Calls to an OpenAI-compatible endpoint, within a budget, with retries and shared pauses.

Every reply is validated and requested again with the problem where it cannot be used. `exchange`
makes one call, `throttle` says when, `batch` requests many.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from hoi_assets.errors import HoiError
from hoi_assets.llm.answers import is_same_model
from hoi_assets.llm.bounded_http import MIB
from hoi_assets.llm.budget import Budget, Charge, Usage
from hoi_assets.llm.exchange import Exchange
from hoi_assets.llm.reply import Reply, UnusableReply
from hoi_assets.llm.retry import (
    BudgetExceeded,
    Busy,
    EndpointError,
    RequestFailed,
    Stopped,
    TransientError,
    back_off_s,
)
from hoi_assets.llm.throttle import throttle_of
from hoi_assets.settings import Endpoint

Value = TypeVar("Value")

_budgets: dict[tuple[Any, ...], Budget] = {}


class EndpointClient(ABC):
    """One endpoint, model and budget; safe to call from several threads.

    Args:
        options: `endpoint` and `model` must be given; see `hoi_assets.settings.Endpoint`.
        section: the settings' section that `options` come from, for messages.
        prices: US dollars by name of the option that holds them; a cap needs all of them.
        budget: counts against the cap; None takes the one that this process shares per section,
            endpoint, model, cap and prices, so that one cap covers all categories of a run.

    Raises:
        HoiError: no endpoint, no model, a key that no header can hold, or a cap
            without prices.
    """

    unusable_code: ClassVar[str] = "unusable_reply"
    """Reason code of a request without a usable reply, where the reply names no other."""
    api: ClassVar[str]
    """The kind of endpoint, for messages."""
    max_body_bytes: ClassVar[int] = 16 * MIB

    def __init__(
        self,
        options: Endpoint,
        section: str,
        prices: Mapping[str, float | None],
        budget: Budget | None = None,
    ) -> None:
        self.section = section
        self.exchange = Exchange(
            options,
            section,
            self.api,
            self._is_answer,
            self.max_body_bytes,
            lambda: self.stop_reason is not None,
        )
        self.endpoint = self.exchange.address.shown
        if not options.model:
            raise HoiError(
                f"{section}.endpoint is {self.endpoint}, {section}.model is not set",
                f"name the model the endpoint serves in {section}.model",
            )
        if options.budget_usd is not None and None in prices.values():
            raise HoiError(
                f"{section}.budget_usd is {options.budget_usd} and a price of "
                f"{options.model} is not known",
                f"set {section}.{' and '.join(prices)} "
                "(0 for your own server), or leave the cap out",
            )
        self.options = options
        self.model: str = options.model
        shared = (section, self.endpoint, options.model, options.budget_usd, *prices.values())
        self.budget = budget or _budgets.setdefault(
            shared,
            Budget(
                options.budget_usd,
                options.usd_per_million_input_tokens,
                options.usd_per_million_output_tokens,
            ),
        )
        self.throttle = throttle_of(self.endpoint, options.concurrency)
        self._lock = threading.Lock()
        self.served: Counter[str] = Counter()
        """Answers by the model that gave them, where it was not the requested one."""
        self.notes: deque[str] = deque()
        """Lines for the log; the thread that started the calls takes them."""
        self.stop_reason: str | None = None
        """Why no further calls are made; None while they are."""

    def request(
        self, attempt: Callable[[UnusableReply | None, Usage], Value], first: bool
    ) -> Reply[Value]:
        """Call until a reply is usable, at most `max_attempts` times.

        While the endpoint is busy the request waits; that is no attempt.

        Args:
            attempt: makes one call; takes the unusable reply before it, if any, and the usage to
                count the call in.
            first: no call of this batch has succeeded yet, so a failing endpoint is an error.

        Raises:
            EndpointError: only where `first`; later it stops all calls (see `stop_reason`).
        """
        usage = Usage()

        def failed(reason: str, final: bool = False) -> Reply[Value]:
            return self._reply(None, reason, usage, final)

        reason, unusable, failing = "", None, False
        number = 0
        while number < self.options.max_attempts:
            if self.stop_reason:
                return failed(self.stop_reason)
            try:
                return self._reply(attempt(unusable, usage), None, usage)
            except UnusableReply as error:
                code = error.state or self.unusable_code
                reason, unusable, failing = f"{code}: {error}", error, False
            except TransientError as error:
                reason, failing = str(error), not error.of_request
                if number + 1 < self.options.max_attempts:
                    time.sleep(back_off_s(number))
            except Busy:
                continue
            except RequestFailed as error:
                return failed(self.exchange.redacted(str(error)), error.final)
            except EndpointError as error:
                if first:
                    raise
                self.stop_reason = self.exchange.redacted(f"endpoint: {error.what}")
                return failed(self.stop_reason)
            except BudgetExceeded as error:
                self.stop_reason = str(error)
                return failed(self.stop_reason)
            except Stopped:
                return failed(self.stop_reason or "stopped: the run ended")
            number += 1
        reason = self.exchange.redacted(reason)
        if first and failing:
            raise EndpointError(
                f"{self.section}.endpoint {self.endpoint}: {reason}",
                f"start the server or correct {self.section}.endpoint (most end in /v1); for a "
                f"slow one raise {self.section}.timeout_s or lower {self.section}.concurrency",
            )
        return failed(f"{reason} ({self.options.max_attempts} attempts)")

    def _reply(
        self, value: Value | None, reason: str | None, usage: Usage, final: bool = False
    ) -> Reply[Value]:
        tokens = (usage.input_tokens, usage.output_tokens)
        return Reply(value, reason, usage.served or self.model, *tokens, usage.cost_usd, final)

    def estimate(self, what: str, cost_usd: float | None) -> str:
        """What a batch will call for and what it will cost, as one line for the log."""
        line = what + (", price unknown" if cost_usd is None else f", about {cost_usd:.4f} USD")
        if self.budget.limit_usd is not None:
            left = self.budget.limit_usd - self.budget.spent_usd
            line += f", {left:.4f} USD left of the cap"
            if cost_usd is not None and cost_usd > left:
                line += ": it will stop at the cap"
        return line

    def call(
        self,
        create: Callable[..., Any],
        options: Mapping[str, Any],
        bound_usd: float,
        usage: Usage,
    ) -> dict[str, Any]:
        """One call within the budget; returns the JSON object of the server's answer.

        Args:
            create: a method of the OpenAI client with a raw response.
            options: keyword arguments that are dropped where the server refuses them.
            bound_usd: the most the call can cost.

        Raises:
            BudgetExceeded, TransientError, Busy, RequestFailed, EndpointError, Stopped
        """
        ticket = self.throttle.enter(lambda: self.stop_reason is not None)
        if ticket is None:
            raise Stopped
        found: dict[str, Any] | Exception = Stopped()
        try:
            found = self._billed_call(create, options, bound_usd, usage)
        finally:
            if not isinstance(found, Busy):
                self.throttle.leave(answered=isinstance(found, dict))
        if isinstance(found, Busy):
            self._pause_all(found, ticket)
        if isinstance(found, Exception):
            raise found
        return found

    def _billed_call(
        self,
        create: Callable[..., Any],
        options: Mapping[str, Any],
        bound_usd: float,
        usage: Usage,
    ) -> dict[str, Any] | Exception:
        if not self.budget.reserve(bound_usd):
            return BudgetExceeded(
                f"budget: {self.section}.budget_usd {self.budget.limit_usd} leaves no room for "
                f"a call, {self.budget.spent_usd:.6f} USD spent"
            )
        cost: float = bound_usd
        try:
            found, billed = self.exchange.ask(create, options)
            if isinstance(found, dict):
                charge = self._charge(found)
            else:
                charge = Charge(None, None, None) if billed else Charge(0, 0, 0.0)
            usage.add(charge)
            cost = bound_usd if charge.cost_usd is None else charge.cost_usd
        finally:
            self.budget.settle(bound_usd, cost)
        if isinstance(found, dict):
            self._note_model(found.get("model"), usage)
        return found

    @abstractmethod
    def _charge(self, answer: Mapping[str, Any]) -> Charge:
        """Tokens and cost of an answer."""

    @abstractmethod
    def _is_answer(self, body: Mapping[str, Any]) -> bool:
        """Whether a body is an answer of this kind of endpoint, usable or not."""

    def _pause_all(self, busy: Busy, ticket: int) -> None:
        """Let all calls to the endpoint pause.

        Raises:
            EndpointError: it has been busy for longer than anybody waits.
        """
        note = self.throttle.leave_busy(ticket, busy.asked_s)
        patience_s = self.throttle.pace.patience_s
        if note.busy_s > patience_s:
            raise EndpointError(
                f"{self.section}.endpoint {self.endpoint} has been busy for {note.busy_s:.0f} s: "
                f"{busy}",
                f"run again later, finished rows are kept; or lower {self.section}.concurrency",
            )
        if note.pause_s is not None:
            cap = f" (asked for {note.cut_from_s:g} s, the cap)" if note.cut_from_s else ""
            self.notes.append(
                f"{self.section}.endpoint {self.endpoint} is busy: {busy}; all calls pause "
                f"{note.pause_s:.3g} s{cap}, busy for {note.busy_s:.0f} s of at most "
                f"{patience_s:.0f} s"
            )

    def _note_model(self, served: Any, usage: Usage) -> None:
        """Record that another model than the requested one answered."""
        if isinstance(served, str) and served and not is_same_model(self.model, served):
            usage.served = self.exchange.quoted(served)
            with self._lock:
                self.served[usage.served] += 1
