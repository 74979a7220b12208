"""Calls to an OpenAI-compatible endpoint, whatever its server knows and does not.

Some servers ignore `response_format`, some refuse options they do not know, some repeat the key in
their messages. So a refused option is left out, every reply is validated and asked for again with
the reason when it cannot be used, and the key is read from the environment and shown nowhere.
"""

import base64
import io
import json
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit, urlunsplit

from hoi_assets.errors import HoiError
from hoi_assets.llm.budget import Budget
from hoi_assets.progress import Log, track
from hoi_assets.settings import Endpoint

if TYPE_CHECKING:
    from openai import OpenAI
    from PIL import Image

MAX_REPLY_TOKENS = 1024
# English has about four characters a token; three keeps the bound on the safe side.
CHARACTERS_PER_TOKEN = 3
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
QUOTED_CHARACTERS = 200
REASON_CHARACTERS = 400
# Options a server may not know; without them the reply is only more often asked for again.
DROPPABLE = ("response_format", "seed", "temperature", "max_tokens", "max_completion_tokens")
# The newer name of an option, tried where the older one is refused.
RENAMED = {"max_tokens": "max_completion_tokens"}

# `role` and `content`: a text, or the parts of one with pictures among them.
Message = dict[str, Any]
# Tokens in, tokens out, US dollars; None is not known.
Bill = tuple[int | None, int | None, float | None]
Value = TypeVar("Value")
Item = TypeVar("Item")
Result = TypeVar("Result")

_budgets: dict[tuple[Any, ...], Budget] = {}


class EndpointError(HoiError):
    """The endpoint as a whole cannot be used: no answer, no permission, no such model."""


class Unusable(Exception):
    """A reply that cannot be used, and why, in words for the model to read."""

    def __init__(self, problem: str, reply: str) -> None:
        super().__init__(problem)
        self.reply = reply


class _OverBudget(Exception):
    """The cap leaves no room for another call."""


class _Refused(Exception):
    """The server refuses this one request."""


class Transient(Exception):
    """A call that may succeed when repeated."""

    def __init__(self, reason: str, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


@dataclass
class Usage:
    """Tokens and US dollars of one question's calls; None once one of them is not known."""

    input_tokens: int | None = 0
    output_tokens: int | None = 0
    cost_usd: float | None = 0.0

    def add(
        self, input_tokens: int | None, output_tokens: int | None, cost_usd: float | None
    ) -> None:
        """Count one more call."""
        self.input_tokens = _sum(self.input_tokens, input_tokens)
        self.output_tokens = _sum(self.output_tokens, output_tokens)
        self.cost_usd = _sum(self.cost_usd, cost_usd)


@dataclass(frozen=True)
class Answer(Generic[Value]):
    """What was read from a reply, or the reason (`code: detail`) why nothing was."""

    value: Value | None
    reason: str | None
    usage: Usage


class Caller:
    """One endpoint, model and budget; safe to call from several threads.

    Args:
        options: `endpoint` and `model` must be given; see `hoi_assets.settings.Endpoint`.
        section: of the settings that `options` are, for messages.
        prices: US dollars by name of the option that says them; a cap needs all of them.
        budget: counts against the cap; None takes the one this process keeps per section, endpoint,
            model, cap and prices, so that one cap covers all categories of a run.

    Raises:
        HoiError: no model, an endpoint that is no URL, or a cap without prices.
    """

    unusable = "unusable_reply"
    """The code of the reason why a reply was not used."""

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
                f"{section}.endpoint {self.endpoint!r} is no URL",
                "give one such as http://127.0.0.1:8000/v1, or none for the built-in way",
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
        self._dropped: set[str] = set()
        self._lock = threading.Lock()
        self.stopped: str | None = None
        """Why no further calls are made; None while they are."""

    @cached_property
    def _client(self) -> "OpenAI":
        from openai import OpenAI

        # Local servers want no key and the client insists on one.
        return OpenAI(
            base_url=self.options.endpoint,
            api_key=self._key or "none",
            timeout=self.options.timeout_s,
            max_retries=0,
        )

    def answer(
        self, attempt: Callable[[Unusable | None], Value], usage: Usage, first: bool
    ) -> Answer[Value]:
        """Call until a reply can be used, at most `max_attempts` times.

        Args:
            attempt: one call; it is given what was wrong with the reply before, if one was.
            usage: what the calls count.
            first: nothing has been answered yet, so that a failing endpoint is an error.

        Raises:
            EndpointError: only where `first`; later it stops all calls (see `stopped`).
        """
        reason, problem, failing = "", None, False
        for number in range(self.options.max_attempts):
            if self.stopped:
                return Answer(None, self.stopped, usage)
            try:
                return Answer(attempt(problem), None, usage)
            except Unusable as error:
                reason, problem, failing = f"{self.unusable}: {error}", error, False
            except Transient as error:
                reason, failing = str(error), True
                if number + 1 < self.options.max_attempts:
                    pause = FIRST_PAUSE_S * 2**number if error.pause_s is None else error.pause_s
                    time.sleep(min(pause, LONGEST_PAUSE_S))
            except _Refused as error:
                return Answer(None, self._public(f"refused: {error}"), usage)
            except EndpointError as error:
                if first:
                    raise
                self.stopped = self._public(f"endpoint: {error.what}")
                return Answer(None, self.stopped, usage)
            except _OverBudget as error:
                self.stopped = str(error)
                return Answer(None, self.stopped, usage)
        if first and failing:
            raise EndpointError(
                self._public(f"{self.section}.endpoint {self.endpoint}: {reason}"),
                f"start the server or mend {self.section}.endpoint; for a slow one raise "
                f"{self.section}.timeout_s or lower {self.section}.concurrency",
            )
        tries = f" ({self.options.max_attempts} attempts)"
        return Answer(None, self._public(reason) + tries, usage)

    def said_before(self, what: str, cost_usd: float | None) -> str:
        """What will be asked for and what it will cost, in a line to say before the first call."""
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
        bill: Callable[[Any], Bill],
    ) -> Any:
        """One call within the budget; returns the server's response.

        Args:
            create: the client's method; `options` may be left out where the server refuses them.
            bound_usd: the most the call can cost.
            bill: tokens and cost of a response.
        """
        import openai

        if not self.budget.reserve(bound_usd):
            raise _OverBudget(
                f"budget: {self.section}.budget_usd {self.budget.limit_usd} leaves no room for "
                f"a call, {self.budget.spent_usd:.6f} USD spent"
            )
        # A call that got no answer may be billed all the same.
        cost: float = bound_usd
        try:
            response = self._create(create, options)
            billed = bill(response)
            usage.add(*billed)
            cost = bound_usd if billed[2] is None else billed[2]
            return response
        except openai.APITimeoutError as error:
            usage.add(None, None, None)
            raise Transient(f"timeout: no answer in {self.options.timeout_s:g} s") from error
        except openai.APIConnectionError as error:
            cost = 0.0
            raise Transient(f"no_connection: {error.__cause__ or error}") from error
        except openai.APIStatusError as error:
            cost = 0.0
            raise self._status_error(error) from error
        except (openai.APIError, json.JSONDecodeError) as error:
            raise self._foreign(str(error)) from error
        finally:
            self.budget.settle(bound_usd, cost)

    def _create(self, create: Callable[..., Any], options: Mapping[str, Any]) -> Any:
        """The call, without the options this server refused before."""
        import openai

        while True:
            with self._lock:
                dropped = set(self._dropped)
            renamed = {
                new: options[old]
                for old, new in RENAMED.items()
                if old in options and old in dropped
            }
            given = {
                name: value for name, value in {**options, **renamed}.items() if name not in dropped
            }
            try:
                return create(**given)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                refused = [name for name in DROPPABLE if name in given and name in str(error)]
                if not refused:
                    raise
                with self._lock:
                    self._dropped.update(refused[:1])

    def _status_error(self, error: Any) -> Exception:
        status = error.status_code
        said = self._public(str(error.message))[:QUOTED_CHARACTERS]
        place = f"{self.section}.endpoint {self.endpoint} answered {status}"
        if status in (400, 422):
            return _Refused(f"status {status}: {said}")
        if status in (401, 403):
            key = "was sent" if self._key else "is not set"
            return EndpointError(
                f"{place}: {said}",
                f"put a valid key into the environment variable {self.options.api_key_env}, "
                f"which {key}",
            )
        if status in (408, 409, 429) or status >= 500:
            pause = error.response.headers.get("retry-after", "")
            return Transient(
                f"status {status}: {said}", float(pause) if pause.isdecimal() else None
            )
        return EndpointError(
            f"{place} for model {self.model!r}: {said}",
            f"mend {self.section}.model, or {self.section}.endpoint (most end in /v1)",
        )

    def _foreign(self, said: str) -> Exception:
        """Of an answer that is not what such an endpoint gives."""
        return EndpointError(
            f"{self.section}.endpoint {self.endpoint} answered, but not as a chat endpoint: "
            f"{self._public(said)[:QUOTED_CHARACTERS]!r}",
            "give the address of an OpenAI-compatible API (most end in /v1)",
        )

    def _public(self, text: str) -> str:
        """One line without the key, which servers are known to repeat."""
        text = text.replace(self._key, "***") if self._key else text
        return " ".join(text.split())[:REASON_CHARACTERS]


class Chat(Caller):
    """A chat endpoint; args and errors as of `Caller`.

    Args:
        image_tokens: the most the endpoint bills for one picture.
    """

    def __init__(
        self,
        options: Endpoint,
        budget: Budget | None = None,
        section: str = "prompter",
        image_tokens: int = 0,
    ) -> None:
        names = ("usd_per_million_input_tokens", "usd_per_million_output_tokens")
        prices = {name: getattr(options, name) for name in names}
        super().__init__(options, section, prices, budget)
        self.image_tokens = image_tokens

    def ask(
        self,
        messages: Sequence[Message],
        schema: Mapping[str, Any],
        seed: int,
        read: Callable[[str], Value],
        again: Callable[[str], str],
        first: bool = False,
    ) -> Answer[Value]:
        """Ask until a reply can be read, at most `max_attempts` times.

        Args:
            messages: the conversation, each with `role` and `content`.
            schema: JSON schema of the reply, for servers that keep to one.
            read: turns the text of a reply into a value, or raises `Unusable`.
            again: what to say to the model of a problem with its reply.
            first: as for `answer`.

        Raises:
            EndpointError: as `answer` does.
        """
        options, usage = self._options(schema, seed), Usage()

        def attempt(problem: Unusable | None) -> Value:
            talk = list(messages)
            if problem is not None:
                talk += [
                    {"role": "assistant", "content": problem.reply or "(nothing)"},
                    {"role": "user", "content": again(str(problem))},
                ]
            return read(self._text_of_call(talk, options, usage))

        return self.answer(attempt, usage, first)

    def tokens_in(self, messages: Sequence[Message]) -> int:
        """An upper estimate of the tokens of a conversation, its pictures included."""
        return tokens_in(messages, self.image_tokens)

    def estimate(self, calls: int, input_tokens: int, output_tokens: int) -> str:
        """What so many calls will need, in a line to say before the first."""
        return self.said_before(
            f"{calls} calls to {self.model} at {self.endpoint}, "
            f"about {input_tokens + output_tokens} tokens",
            self.budget.cost(input_tokens, output_tokens),
        )

    def _options(self, schema: Mapping[str, Any], seed: int) -> dict[str, Any]:
        return {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "reply", "schema": dict(schema), "strict": True},
            },
            "seed": seed,
            "temperature": self.options.temperature,
            "max_tokens": MAX_REPLY_TOKENS,
        }

    def _text_of_call(
        self, messages: list[Message], options: Mapping[str, Any], usage: Usage
    ) -> str:
        """One call, within the budget; returns the text of the reply."""
        bound = self.budget.cost(self.tokens_in(messages) + 1, MAX_REPLY_TOKENS) or 0.0

        def create(**given: Any) -> Any:
            return self._client.chat.completions.create(
                model=self.model,
                messages=messages,  # type: ignore[arg-type]
                **given,
            )

        return self._text(self.call(create, options, bound, usage, self._bill))

    def _bill(self, response: Any) -> Bill:
        told = getattr(response, "usage", None)
        counts = (getattr(told, "prompt_tokens", None), getattr(told, "completion_tokens", None))
        return (*counts, self.budget.cost(*counts))

    def _text(self, response: Any) -> str:
        choices = getattr(response, "choices", None)
        if not choices:
            raise self._foreign(str(response))
        text = choices[0].message.content or ""
        if choices[0].finish_reason == "length":
            raise Unusable(f"it was cut off after {MAX_REPLY_TOKENS} tokens", text)
        return text


def one_json_object(text: str) -> dict[str, Any]:
    """The one JSON object in a reply; words and code fences round it are let pass.

    Raises:
        Unusable: none, more than one, or one that gives a field twice.
    """
    # Reasoning models think aloud first, in braces at times.
    answer = re.split(r"</think\w*>", text)[-1]
    decoder = json.JSONDecoder(object_pairs_hook=lambda pairs: _distinct(pairs, text))
    found: list[dict[str, Any]] = []
    place = answer.find("{")
    while place >= 0:
        try:
            value, end = decoder.raw_decode(answer, place)
            found.append(value)
        except (json.JSONDecodeError, RecursionError):
            end = place + 1
        place = answer.find("{", end)
    if len(found) != 1:
        raise Unusable(f"it holds {len(found) or 'no'} JSON objects, one is wanted", text)
    return found[0]


def tokens_in(messages: Sequence[Message], image_tokens: int = 0) -> int:
    """An upper estimate of the tokens of a conversation.

    Args:
        image_tokens: the most one picture counts.
    """
    characters = pictures = 0
    for message in messages:
        content = message["content"]
        for part in [{"text": content}] if isinstance(content, str) else content:
            characters += len(part.get("text", ""))
            pictures += "image_url" in part
    return characters // CHARACTERS_PER_TOKEN + pictures * image_tokens


def text_part(text: str) -> dict[str, Any]:
    """Words within a message that also has pictures."""
    return {"type": "text", "text": text}


def image_part(image: "Image.Image") -> dict[str, Any]:
    """A picture within a message, as a PNG data URL: what is judged are the very pixels."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def ask_all(
    caller: Caller,
    items: Sequence[Item],
    ask_one: Callable[[Item, bool], Result],
    done: Callable[[Item, Result], None],
    label: str,
    log: Log,
) -> list[Result]:
    """Ask for all items side by side, as many at once as `concurrency` says; in their order.

    Args:
        ask_one: called with an item and whether it is the first, for `Caller.answer`; the first is
            asked alone, so that a wrong address costs one call and not all of them.
        done: called in the caller's thread with each result as it comes, to keep it.

    Raises:
        EndpointError: the endpoint does not answer the first call, or refuses it.
    """
    if not items:
        return []
    caller.stopped = None
    results: dict[int, Result] = {}

    def take(number: int, result: Result) -> None:
        results[number] = result
        done(items[number], result)

    take(0, ask_one(items[0], True))
    with ThreadPoolExecutor(caller.options.concurrency) as pool:
        asked = {pool.submit(ask_one, items[n], False): n for n in range(1, len(items))}
        try:
            for answered in track(as_completed(asked), label, total=len(asked), log=log):
                take(asked[answered], answered.result())
        except BaseException:
            caller.stopped = "stopped: the run ended"
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if caller.stopped:
        log(f"{label}: {caller.stopped}")
    return [results[n] for n in range(len(items))]


def _distinct(pairs: list[tuple[str, Any]], text: str) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise Unusable(f"field {sorted(twice)[0]!r} is given twice", text)
    return dict(pairs)


def _without_login(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _sum(a: Any, b: Any) -> Any:
    return None if a is None or b is None else a + b
