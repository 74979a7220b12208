"""Calls to an OpenAI-compatible endpoint, within a budget and with retries.

Some servers ignore `response_format`, some refuse options they do not know, some repeat the API key
in their messages. So a refused option is dropped, every reply is validated and requested again with
the problem where it cannot be used, and the key is read from the environment and shown nowhere.
"""

import json
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import urlsplit, urlunsplit

from hoi_assets.errors import HoiError
from hoi_assets.llm.budget import Budget, Charge, Usage
from hoi_assets.llm.reply import Reply, UnusableReply
from hoi_assets.llm.retry import (
    BudgetExceeded,
    EndpointError,
    RequestRefused,
    TransientError,
    back_off_s,
)
from hoi_assets.progress import Log, track
from hoi_assets.settings import Endpoint

if TYPE_CHECKING:
    from openai import OpenAI

QUOTED_CHARACTERS = 200
REASON_CHARACTERS = 400
# Options a server may not know; without them more replies are unusable, nothing worse.
OPTIONAL = ("response_format", "seed", "temperature", "max_tokens", "max_completion_tokens")
# The newer name of an option, tried where the older one is refused.
RENAMED = {"max_tokens": "max_completion_tokens"}

Value = TypeVar("Value")
Item = TypeVar("Item")
Result = TypeVar("Result")

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
        HoiError: no model, an endpoint that is no URL, or a cap without prices.
    """

    unusable_code: ClassVar[str] = "unusable_reply"
    """Reason code of a request without a usable reply."""

    def __init__(
        self,
        options: Endpoint,
        section: str,
        prices: Mapping[str, float | None],
        budget: Budget | None = None,
    ) -> None:
        self.section = section
        self.endpoint = _without_login(options.endpoint or "")
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise HoiError(
                f"{section}.endpoint {self.endpoint!r} is not a URL",
                "give one such as http://127.0.0.1:8000/v1, or leave it out",
            )
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
        self._key = os.environ.get(options.api_key_env, "")
        self._refused_options: set[str] = set()
        self._lock = threading.Lock()
        self.stop_reason: str | None = None
        """Why no further calls are made; None while they are."""

    @cached_property
    def _openai(self) -> "OpenAI":
        from openai import OpenAI

        # Local servers need no key, but the client insists on one.
        return OpenAI(
            base_url=self.options.endpoint,
            api_key=self._key or "none",
            timeout=self.options.timeout_s,
            max_retries=0,
        )

    def request(
        self, attempt: Callable[[UnusableReply | None, Usage], Value], first: bool
    ) -> Reply[Value]:
        """Call until a reply is usable, at most `max_attempts` times.

        Args:
            attempt: makes one call; takes the unusable reply before it, if any, and the usage to
                count the call in.
            first: no call of this batch has succeeded yet, so a failing endpoint is an error.

        Raises:
            EndpointError: only where `first`; later it stops all calls (see `stop_reason`).
        """
        usage = Usage()

        def failed(reason: str) -> Reply[Value]:
            return Reply(None, reason, self.model, **vars(usage))

        reason, unusable, failing = "", None, False
        for number in range(self.options.max_attempts):
            if self.stop_reason:
                return failed(self.stop_reason)
            try:
                value = attempt(unusable, usage)
                return Reply(value, None, self.model, **vars(usage))
            except UnusableReply as error:
                reason, unusable, failing = f"{self.unusable_code}: {error}", error, False
            except TransientError as error:
                reason, failing = str(error), True
                if number + 1 < self.options.max_attempts:
                    time.sleep(back_off_s(number, error))
            except RequestRefused as error:
                return failed(self._redacted(f"refused: {error}"))
            except EndpointError as error:
                if first:
                    raise
                self.stop_reason = self._redacted(f"endpoint: {error.what}")
                return failed(self.stop_reason)
            except BudgetExceeded as error:
                self.stop_reason = str(error)
                return failed(self.stop_reason)
        if first and failing:
            raise EndpointError(
                self._redacted(f"{self.section}.endpoint {self.endpoint}: {reason}"),
                f"start the server or correct {self.section}.endpoint; for a slow one raise "
                f"{self.section}.timeout_s or lower {self.section}.concurrency",
            )
        return failed(f"{self._redacted(reason)} ({self.options.max_attempts} attempts)")

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
    ) -> Any:
        """One call within the budget; returns the server's response.

        Args:
            create: the OpenAI client's method.
            options: keyword arguments that are dropped where the server refuses them.
            bound_usd: the most the call can cost.

        Raises:
            BudgetExceeded, TransientError, RequestRefused, EndpointError
        """
        import openai

        if not self.budget.reserve(bound_usd):
            raise BudgetExceeded(
                f"budget: {self.section}.budget_usd {self.budget.limit_usd} leaves no room for "
                f"a call, {self.budget.spent_usd:.6f} USD spent"
            )
        # A call without an answer may be billed all the same.
        cost: float = bound_usd
        try:
            response = self._create(create, options)
            charge = self._charge(response)
            usage.add(charge)
            cost = bound_usd if charge.cost_usd is None else charge.cost_usd
            return response
        except openai.APITimeoutError as error:
            usage.add(Charge(None, None, None))
            raise TransientError(f"timeout: no answer in {self.options.timeout_s:g} s") from error
        except openai.APIConnectionError as error:
            cost = 0.0
            raise TransientError(f"no_connection: {error.__cause__ or error}") from error
        except openai.APIStatusError as error:
            cost = 0.0
            raise self._status_error(error) from error
        except (openai.APIError, json.JSONDecodeError) as error:
            raise self._wrong_api(str(error)) from error
        finally:
            self.budget.settle(bound_usd, cost)

    def _create(self, create: Callable[..., Any], options: Mapping[str, Any]) -> Any:
        """The call, without the options this server refused before."""
        import openai

        while True:
            with self._lock:
                refused = set(self._refused_options)
            renamed = {
                new: options[old]
                for old, new in RENAMED.items()
                if old in options and old in refused
            }
            given = {
                name: value for name, value in {**options, **renamed}.items() if name not in refused
            }
            try:
                return create(**given)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                named = [name for name in OPTIONAL if name in given and name in str(error)]
                if not named:
                    raise
                with self._lock:
                    self._refused_options.update(named[:1])

    @abstractmethod
    def _charge(self, response: Any) -> Charge:
        """Tokens and cost of a response."""

    @abstractmethod
    def _wrong_api(self, body: str) -> Exception:
        """The error for an answer that no endpoint of this kind gives."""

    def _status_error(self, error: Any) -> Exception:
        status = error.status_code
        message = self._redacted(str(error.message))[:QUOTED_CHARACTERS]
        place = f"{self.section}.endpoint {self.endpoint} answered {status}"
        if status in (400, 422):
            return RequestRefused(f"status {status}: {message}")
        if status in (401, 403):
            key = "was sent" if self._key else "is not set"
            return EndpointError(
                f"{place}: {message}",
                f"put a valid key into the environment variable {self.options.api_key_env}, "
                f"which {key}",
            )
        if status in (408, 409, 429) or status >= 500:
            pause = error.response.headers.get("retry-after", "")
            return TransientError(
                f"status {status}: {message}", float(pause) if pause.isdecimal() else None
            )
        return EndpointError(
            f"{place} for model {self.model!r}: {message}",
            f"correct {self.section}.model, or {self.section}.endpoint (most end in /v1)",
        )

    def _redacted(self, text: str) -> str:
        """One line without the API key, which some servers repeat."""
        text = text.replace(self._key, "***") if self._key else text
        return " ".join(text.split())[:REASON_CHARACTERS]


def request_all(
    client: EndpointClient,
    items: Sequence[Item],
    request: Callable[[Item, bool], Result],
    on_result: Callable[[Item, Result], None],
    label: str,
    log: Log,
) -> list[Result]:
    """Request all items, up to `concurrency` at once; results in the items' order.

    Args:
        request: takes an item and whether it is the first (see `EndpointClient.request`); the first
            goes alone, so that a wrong address costs one call and not all of them.
        on_result: called in this thread with each result as it arrives.
        label: what is requested, for the log.

    Raises:
        EndpointError: the endpoint does not answer the first call, or refuses it.
    """
    if not items:
        return []
    client.stop_reason = None
    results: dict[int, Result] = {}

    def take(number: int, result: Result) -> None:
        results[number] = result
        on_result(items[number], result)

    take(0, request(items[0], True))
    with ThreadPoolExecutor(client.options.concurrency) as pool:
        pending = {pool.submit(request, items[n], False): n for n in range(1, len(items))}
        try:
            for done in track(as_completed(pending), label, total=len(pending), log=log):
                take(pending[done], done.result())
        except BaseException:
            client.stop_reason = "stopped: the run ended"
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if client.stop_reason:
        log(f"{label}: {client.stop_reason}")
    return [results[n] for n in range(len(items))]


def _without_login(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
