"""A chat endpoint: messages with text and images in, the text of one completion out."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from hoi_assets.llm.answers import count
from hoi_assets.llm.budget import Budget, Charge, Usage
from hoi_assets.llm.client import EndpointClient
from hoi_assets.llm.completion import read_completion
from hoi_assets.llm.prompt_templates import retry_message
from hoi_assets.llm.reasoning import answer_of
from hoi_assets.llm.reply import Reply, UnusableReply
from hoi_assets.settings import Endpoint

if TYPE_CHECKING:
    from PIL import Image

# English has about four characters a token; three gives an upper estimate.
CHARACTERS_PER_TOKEN = 3

# `role` and `content`: a text, or a list of text and image parts.
Message = dict[str, Any]
Value = TypeVar("Value")


class ChatClient(EndpointClient):
    """A chat endpoint; args and errors as for `EndpointClient`.

    Args:
        image_tokens: the most the endpoint bills for one image.
    """

    api = "a chat"

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

    def complete(
        self,
        messages: Sequence[Message],
        schema: Mapping[str, Any],
        seed: int,
        parse: Callable[[str], Value],
        first: bool = False,
    ) -> Reply[Value]:
        """Request a completion until it can be parsed, at most `max_attempts` times.

        Args:
            messages: the conversation; after an unusable reply, that and its problem are appended.
            schema: JSON schema of the reply, for servers that honour one.
            parse: turns the text of a reply into a value, or raises `UnusableReply`.
            first: as for `EndpointClient.request`.

        Raises:
            EndpointError: as `EndpointClient.request` does.
        """
        options = self._options(schema, seed)

        def attempt(unusable: UnusableReply | None, usage: Usage) -> Value:
            conversation = list(messages)
            if unusable is not None and unusable.text is not None:
                conversation += [
                    {"role": "assistant", "content": answer_of(unusable.text) or "(nothing)"},
                    {"role": "user", "content": retry_message(str(unusable))},
                ]
            return parse(self._completion(conversation, options, usage))

        return self.request(attempt, first)

    def estimate_calls(self, calls: int, input_tokens: int, output_tokens: int) -> str:
        """What so many calls will need, as one line for the log."""
        return self.estimate(
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
            "max_tokens": self.options.max_reply_tokens,
            **self.options.given("reasoning_effort", "extra_body"),
        }

    def _completion(self, messages: list[Message], options: Mapping[str, Any], usage: Usage) -> str:
        """One call, within the budget; returns the text of the reply."""
        limit = self.options.max_reply_tokens
        tokens = count_tokens(messages, self.image_tokens) + 1
        bound = self.budget.cost(tokens, limit) or 0.0

        def create(**given: Any) -> Any:
            return self.exchange.openai.chat.completions.with_raw_response.create(
                model=self.model,
                messages=messages,  # type: ignore[arg-type]
                **given,
            )

        answer = self.call(create, options, bound, usage)
        return read_completion(answer, self.exchange.redacted_reply, limit)

    def _charge(self, answer: Mapping[str, Any]) -> Charge:
        usage = answer.get("usage")
        given = usage if isinstance(usage, dict) else {}
        counts = (count(given.get("prompt_tokens")), count(given.get("completion_tokens")))
        return Charge(*counts, self.budget.cost(*counts))

    def _is_answer(self, body: Mapping[str, Any]) -> bool:
        # An error may stand beside `"choices": null`.
        return "choices" in body and not (body.get("error") and not body["choices"])


def count_tokens(messages: Sequence[Message], image_tokens: int = 0) -> int:
    """An upper estimate of the tokens of a conversation.

    Args:
        image_tokens: the most one image counts.
    """
    characters = images = 0
    for message in messages:
        content = message["content"]
        for part in [{"text": content}] if isinstance(content, str) else content:
            characters += len(part.get("text", ""))
            images += "image_url" in part
    return characters // CHARACTERS_PER_TOKEN + images * image_tokens


def text_part(text: str) -> dict[str, Any]:
    """Text in a message that also holds images."""
    return {"type": "text", "text": text}


def image_part(image: "Image.Image") -> dict[str, Any]:
    """An image in a message, as a PNG data URL: lossless, so the model sees the very pixels."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
