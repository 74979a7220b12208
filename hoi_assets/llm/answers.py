"""What an endpoint's answer means: which failure a status or an error body stands for.

Some servers report errors with status 200, and whatever a server says may hold anything at all:
nothing here trusts a type.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hoi_assets.llm.retry import Busy, RequestFailed, TransientError, asked_pause_s

QUOTED_CHARACTERS = 200
BUSY = frozenset({429, 503, 529})
# Codes and types of errors, as OpenAI, Azure and OpenRouter name them.
FILTERED = re.compile(r"content_filter|content_policy|moderation|flagged_input|safety_violation")
TOO_LARGE = re.compile(r"context_length|too_large|string_above_max|max_tokens_exceeded")
NO_CREDIT = re.compile(r"insufficient_quota|billing|credit")
# What may follow a model's name without making it another model.
SAME_MODEL = re.compile(r"[-@:](?:v?\d[\d.-]*|latest)")


@dataclass(frozen=True)
class ErrorBody:
    """The error in an answer's body.

    Attributes:
        message: for people, on one line; empty where the body has none.
        labels: code, type and flags of the error, lower case.
        status: the HTTP status that the body names; None where it names none.
    """

    message: str
    labels: str
    status: int | None

    @staticmethod
    def of(body: Any) -> "ErrorBody":
        """The error in a body of any shape."""
        error = body.get("error", body) if isinstance(body, dict) else body
        if not isinstance(error, dict):
            return ErrorBody("" if error is None else one_line(error), "", None)
        metadata = error.get("metadata")
        flags = list(metadata) if isinstance(metadata, dict) else []
        inner = error.get("innererror")
        codes = [error.get("code"), error.get("type"), *flags]
        codes += [inner.get("code")] if isinstance(inner, dict) else []
        labels = " ".join(str(code) for code in codes if code).lower()
        status = next(
            (s for s in (count(error.get("code")), count(error.get("status"))) if s and s >= 400),
            None,
        )
        message = error.get("message", error.get("detail"))
        return ErrorBody(one_line(error if message is None else message), labels, status)


def json_of(content: bytes) -> Any:
    """The JSON value in a body; None where there is none that can be read."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def has_no_credit(error: ErrorBody) -> bool:
    """Whether waiting is pointless, because the account is used up."""
    return bool(NO_CREDIT.search(error.labels))


def request_failure(
    status: int, error: ErrorBody, headers: Mapping[str, str], message: str
) -> Exception | None:
    """What a status says about the one request; None where it concerns the whole endpoint.

    Args:
        message: what may be shown of the error.
    """
    detail = f"status {status}: {message}"
    if 400 <= status < 500 and FILTERED.search(error.labels):
        return RequestFailed(f"filtered: {detail}", final=True)
    if status == 413 or (status in (400, 422) and TOO_LARGE.search(error.labels)):
        return RequestFailed(f"too_large: {detail}")
    if status in (400, 422):
        return RequestFailed(f"refused: {detail}")
    if status in BUSY:
        return Busy(detail, asked_pause_s(headers))
    if status in (408, 409) or status >= 500:
        return TransientError(detail)
    return None


def failure_with_status_200(
    error: ErrorBody, headers: Mapping[str, str], message: str
) -> Exception:
    """What an error in a body of status 200 says: always about the one request, unless busy."""
    if error.status is not None and error.status < 500:
        found = request_failure(error.status, error, headers, message)
        return found or RequestFailed(f"refused: status {error.status} in the body: {message}")
    if FILTERED.search(error.labels):
        return RequestFailed(f"filtered: {message}", final=True)
    if TOO_LARGE.search(error.labels):
        return RequestFailed(f"too_large: {message}")
    if "rate_limit" in error.labels or "overloaded" in error.labels:
        return Busy(f"busy: {message}", asked_pause_s(headers))
    return TransientError(f"error: an error with status 200: {message}", of_request=True)


def count(value: Any) -> int | None:
    """A number of tokens as servers write them: 12, 12.0 or "12"; None for anything else.

    >>> [count(value) for value in (12, "12", 12.0, True, -1, "many", None, {})]
    [12, 12, 12, None, None, None, None, None]
    """
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 12:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < 10**12 else None


def is_same_model(requested: str, served: str) -> bool:
    """Whether a served model is the requested one, perhaps with its date or its vendor.

    >>> [is_same_model("gpt-4o", name) for name in ("gpt-4o-2024-08-06", "openai/gpt-4o")]
    [True, True]
    >>> [is_same_model("gpt-4o", name) for name in ("gpt-4o-mini", "llama-3")]
    [False, False]
    """
    a, b = (name.lower().rstrip("/").rpartition("/")[2] for name in (requested, served))
    short, long = sorted((a, b), key=len)
    rest = long.removeprefix(short)
    return a == b or (rest != long and SAME_MODEL.fullmatch(rest) is not None)


def clean(text: str) -> str:
    """A text that can be stored and sent: halves of surrogate pairs become "?"."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def one_line(value: Any) -> str:
    """Any value as one line of text; signs that would steer a terminal become "?"."""
    words = " ".join(clean(str(value)).split())
    return "".join(sign if sign.isprintable() else "?" for sign in words)
