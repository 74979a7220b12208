"""One exchange with an OpenAI-compatible server: a call, and a JSON object or a failure.

Failures are returned, not raised inside the HTTP client's error handling, so that an error has
neither cause nor context: those hold the server's message unmasked, and Dagster stores the whole
chain of an error.
"""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hoi_assets.errors import HoiError
from hoi_assets.llm.answers import (
    QUOTED_CHARACTERS,
    ErrorBody,
    failure_with_status_200,
    has_no_credit,
    json_of,
    one_line,
    request_failure,
)
from hoi_assets.llm.bounded_http import BodyTooLarge, bounded_client
from hoi_assets.llm.credentials import Redactor
from hoi_assets.llm.retry import EndpointError, RequestFailed, TransientError
from hoi_assets.settings import Endpoint

if TYPE_CHECKING:
    import httpx2
    from openai import OpenAI

REASON_CHARACTERS = 400
# Options a server may not know; without them more replies are unusable, nothing worse.
OPTIONAL = (
    "response_format",
    "seed",
    "temperature",
    "max_tokens",
    "max_completion_tokens",
    "top_logprobs",
    "logprobs",
)
# The newer name of an option, tried where the older one is refused.
RENAMED = {"max_tokens": "max_completion_tokens"}
# These write the URL of every call to Python's log.
URL_LOGGERS = ("httpx2", "openai._base_client")


class Exchange:
    """Sends calls to one endpoint; safe to call from several threads.

    Args:
        options: see `hoi_assets.settings.Endpoint`.
        section: the settings' section that `options` come from, for messages.
        api: the kind of endpoint, for messages, e.g. "a chat".
        is_answer: whether a body is an answer of this kind of endpoint, usable or not.
        max_body_bytes: of an answer.
        stopped: whether nobody waits for answers any more.

    Raises:
        HoiError: no endpoint, or a key that no header can hold.
    """

    def __init__(
        self,
        options: Endpoint,
        section: str,
        api: str,
        is_answer: Callable[[Mapping[str, Any]], bool],
        max_body_bytes: int,
        stopped: Callable[[], bool],
    ) -> None:
        self.options = options
        self.section = section
        self.api = api
        self.is_answer = is_answer
        self.max_body_bytes = max_body_bytes
        self.stopped = stopped
        if options.endpoint is None:
            raise HoiError(f"{section}.endpoint is not set", "give the base URL of a server")
        self.address = options.endpoint
        self._key = _read_key(options.api_key_env)
        secrets = filter(None, (self._key, *self.address.secrets))
        self._redactor = Redactor(tuple(secrets))
        self._refused_options: set[str] = set()
        self._lock = threading.Lock()

    @property
    def has_credentials(self) -> bool:
        """Whether calls carry a key, a login or another credential."""
        return bool(self._key or self.address.secrets)

    @cached_property
    def openai(self) -> "OpenAI":
        """The OpenAI client; its methods with a raw response are what `ask` takes."""
        from openai import OpenAI

        return OpenAI(
            base_url=self.address.base_url,
            default_query=self.address.query,
            default_headers=self.address.headers,
            # Local servers need no key, but the client insists on one.
            api_key=self._key or "none",
            http_client=self.http,
            max_retries=0,
        )

    @cached_property
    def http(self) -> "httpx2.Client":
        """The HTTP client below; it sends no credentials of its own.

        What it fetches is logged nowhere: endpoints and signed picture URLs hold credentials.
        """
        for name in URL_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        return bounded_client(self.options.timeout_s, self.max_body_bytes, self.stopped)

    def ask(
        self, create: Callable[..., Any], options: Mapping[str, Any]
    ) -> tuple[dict[str, Any] | Exception, bool]:
        """The server's answer, or why there is none that can be used; and whether it may be billed.

        Args:
            create: a method of `openai` with a raw response.
            options: keyword arguments that are dropped where the server refuses them.
        """
        import openai

        try:
            response = self._create(create, options)
        except openai.APITimeoutError:
            # A call without an answer may be billed all the same.
            return TransientError(f"timeout: no answer in {self.options.timeout_s:g} s"), True
        except BodyTooLarge as error:
            return RequestFailed(f"too_large: {error}"), True
        except openai.APIStatusError as error:
            return self._status_error(error.response, str(error.message)), False
        except Exception as error:
            cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else None
            what = cause or error
            text = self.redacted(str(what) or type(what).__name__)
            return TransientError(f"no_connection: {text}"), False
        body = json_of(response.content)
        if isinstance(body, dict):
            if self.is_answer(body):
                return body, True
            if body.get("error"):
                error_body = ErrorBody.of(body)
                message = self.quoted(error_body.message)
                return failure_with_status_200(error_body, response.headers, message), False
        quoted = self.quoted(response.text)
        reason = f"malformed: answered, but not as {self.api} endpoint: {quoted!r}"
        return TransientError(reason), True

    def redacted(self, text: str) -> str:
        """One line without the credentials, which some servers repeat."""
        return self._redactor.redact(one_line(text))[:REASON_CHARACTERS]

    def quoted(self, text: str) -> str:
        """The beginning of a server's text on one line, without the credentials."""
        return self.redacted(text)[:QUOTED_CHARACTERS]

    def redacted_reply(self, text: str) -> str:
        """A model's reply without the credentials."""
        return self._redactor.redact_reply(text)

    def _create(self, create: Callable[..., Any], options: Mapping[str, Any]) -> "httpx2.Response":
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
                response: httpx2.Response = create(**given).http_response
                return response
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                said = f"{error} {error.response.text}"
                named = [name for name in OPTIONAL if name in given and name in said]
                if not named:
                    raise
                with self._lock:
                    self._refused_options.update(named[:1])

    def _status_error(self, response: "httpx2.Response", message: str) -> Exception:
        status = response.status_code
        error = ErrorBody.of(json_of(response.content))
        message = self.quoted(message)
        place = f"{self.section}.endpoint {self.address.shown} answered {status}"
        if status in (402, 429) and has_no_credit(error):
            return EndpointError(
                f"{place}: {message}",
                f"add credit to the account of {self.options.api_key_env} and run again: "
                "finished rows are kept",
            )
        failure = request_failure(status, error, response.headers, message)
        if failure is not None:
            return failure
        if status in (401, 403):
            key = "was sent" if self._key else "is not set"
            return EndpointError(
                f"{place}: {message}",
                f"put a valid key into the environment variable {self.options.api_key_env}, "
                f"which {key}",
            )
        return EndpointError(
            f"{place} for model {self.options.model!r}: {message}",
            f"correct {self.section}.model, or {self.section}.endpoint (most end in /v1)",
            status,
        )


def _read_key(variable: str) -> str:
    """The key in an environment variable; empty where it is not set."""
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise HoiError(
            f"the environment variable {variable} holds characters that no HTTP header can hold",
            "set it to the endpoint's key, without quotation marks or line breaks",
        )
    return key
