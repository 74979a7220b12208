"""The text of a chat completion, or why it has none; no type in the body is trusted."""

from collections.abc import Callable, Mapping
from typing import Any

from hoi_assets.llm.answers import (
    QUOTED_CHARACTERS,
    ErrorBody,
    clean,
    failure_with_status_200,
    one_line,
)
from hoi_assets.llm.reply import UnusableReply
from hoi_assets.llm.retry import RequestFailed

MAX_REPLY_TOKENS = 1024
# Where servers put what a model thought before it answered.
REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")


def read_completion(body: Mapping[str, Any], redacted: Callable[[str], str] = str) -> str:
    """The text of the first choice.

    Args:
        redacted: a text without credentials.

    Raises:
        UnusableReply: cut, empty or malformed; it may be asked again.
        RequestFailed: refused by the model, or filtered by the server; asking again is pointless.
    """
    choices = body["choices"]
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        raise _malformed(f"choices is {_form(choices)}")
    if choice.get("error"):
        error = ErrorBody.of({"error": choice["error"]})
        raise failure_with_status_200(error, {}, redacted(error.message)[:QUOTED_CHARACTERS])
    finish = choice.get("finish_reason")
    message = choice.get("message")
    parts = _parts(message.get("content")) if isinstance(message, dict) else []
    text = redacted(clean("".join(text for kind, text in parts if kind != "refusal")))
    if finish == "content_filter":
        raise RequestFailed("filtered: the server's content filter stopped the reply", final=True)
    if not isinstance(message, dict):
        raise _malformed(f"message is {_form(message)}")
    said_no = message.get("refusal")
    refusals = [said_no] if isinstance(said_no, str) else []
    refusal = " ".join([*refusals, *(text for kind, text in parts if kind == "refusal")]).strip()
    if refusal:
        said = redacted(one_line(refusal))[:QUOTED_CHARACTERS]
        raise RequestFailed(f"refused: by the model: {said}", final=True)
    if finish == "length":
        raise UnusableReply(f"it was cut off after {MAX_REPLY_TOKENS} tokens", text, "cut")
    if not text.strip():
        raise UnusableReply(_why_empty(message), text, "empty")
    return text


def _parts(content: Any) -> list[tuple[str, str]]:
    """Kind and text of each part of a content, which is a text or a list of parts."""
    if isinstance(content, str):
        return [("text", content)]
    found = []
    for part in content if isinstance(content, list) else []:
        if isinstance(part, str):
            found.append(("text", part))
        elif isinstance(part, dict):
            kind = "refusal" if part.get("type") == "refusal" else "text"
            text = part.get("refusal" if kind == "refusal" else "text")
            # Reasoning models list their thoughts as parts of another type.
            if isinstance(text, str) and part.get("type") in ("text", "output_text", "refusal"):
                found.append((kind, text))
    return found


def _why_empty(message: Mapping[str, Any]) -> str:
    if message.get("tool_calls") or message.get("function_call"):
        return "it calls a tool instead of answering"
    if any(message.get(field) for field in REASONING_FIELDS):
        return "it holds reasoning and no answer"
    return "it holds no text"


def _malformed(problem: str) -> UnusableReply:
    return UnusableReply(f"the completion is broken: {problem}", None, "malformed")


def _form(value: Any) -> str:
    """What a broken value is, in JSON's words."""
    if isinstance(value, list):
        return f"[{_form(value[0])}, ...]" if value else "[]"
    return "null" if value is None else f"of type {type(value).__name__}"
