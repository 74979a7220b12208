"""Structured output: one call per request, the reply validated against a schema."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel

from hoi_assets.llm import prompt_templates
from hoi_assets.llm.batch import request_all
from hoi_assets.llm.budget import Budget
from hoi_assets.llm.chat import CHARACTERS_PER_TOKEN, ChatClient, Message, image_part, text_part
from hoi_assets.llm.reply import OnReply, Reply
from hoi_assets.progress import Log
from hoi_assets.settings import REPLY_OPTIONS, Endpoint

if TYPE_CHECKING:
    from PIL import Image

Request = TypeVar("Request")
Value = TypeVar("Value")


class StructuredOutput(ABC, Generic[Request, Value]):
    """One kind of request: its prompt, its reply's schema, and how a reply is parsed.

    A subclass names the settings' section, a label for the log, its templates (with `again.j2`),
    the pydantic model of a reply, and the length of a typical reply for the cost estimate.

    Args:
        options: the settings' section called `section`.
        budget: see `EndpointClient`.
        image_tokens: the most that is billed for one image; 0 where none is shown.

    Raises:
        HoiError: settings that cannot work, see `EndpointClient`; nothing is requested yet.
    """

    section: ClassVar[str]
    label: ClassVar[str]
    templates: ClassVar[tuple[str, ...]]
    reply_schema: type[BaseModel]
    typical_reply_tokens: ClassVar[int]

    def __init__(
        self, options: Endpoint, budget: Budget | None = None, image_tokens: int = 0
    ) -> None:
        self.chat = ChatClient(options, budget, section=self.section, image_tokens=image_tokens)
        self.schema = self.reply_schema.model_json_schema()

    @abstractmethod
    def prompt(self, request: Request) -> tuple[str, str]:
        """The system message and the user message."""

    @abstractmethod
    def parse(self, request: Request, text: str) -> Value:
        """The value in the text of a reply.

        Raises:
            UnusableReply: there is none; the request is repeated with the problem.
        """

    @property
    def pictures(self) -> int:
        """Pictures in one request, for the estimate of costs."""
        return 1

    def image(self, request: Request) -> "Image.Image | None":
        """The image the model is shown."""
        return None

    def schema_of(self, request: Request) -> Mapping[str, Any]:
        """JSON schema of the request's reply: `schema`, or a narrower one."""
        return self.schema

    @cached_property
    def template_version(self) -> str:
        """Hash of the templates and of the schema, 12 hex digits."""
        return prompt_templates.template_version(self.templates, self.schema)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What determines a value besides the request."""
        return {
            "model": self.chat.model,
            "endpoint": self.chat.endpoint,
            "template_version": self.template_version,
            "temperature": self.chat.options.temperature,
            "seed": self.chat.options.seed,
            **self.chat.options.given(*REPLY_OPTIONS),
        }

    def expected_tokens(self, requests: Iterable[Request]) -> tuple[int, int]:
        """Tokens of the requests (an upper estimate) and of typical replies."""
        lengths = [len("".join(self.prompt(request))) for request in requests]
        images = len(lengths) * self.pictures * self.chat.image_tokens
        replies = len(lengths) * self.typical_reply_tokens
        return sum(lengths) // CHARACTERS_PER_TOKEN + images, replies

    def ask(
        self, requests: Mapping[str, Request], on_reply: OnReply[Value], log: Log
    ) -> Mapping[str, Reply[Value]]:
        """A reply per request, by key; `on_reply` is called with each as it arrives.

        A key is a hash in hex; its first digits are the seed of the request's call.

        Raises:
            EndpointError: the endpoint does not answer the first call, or refuses it.
        """
        if not requests:
            return {}
        tokens, replies = self.expected_tokens(requests.values())
        log(f"{self.label}: {self.chat.estimate_calls(len(requests), tokens, replies)}")
        results = request_all(
            self.chat,
            list(requests.items()),
            lambda item, first: self._reply(*item, first),
            lambda item, reply: on_reply(item[0], reply),
            self.label,
            log,
        )
        return dict(zip(requests, results, strict=True))

    def _reply(self, key: str, request: Request, first: bool) -> Reply[Value]:
        return self.chat.complete(
            self._messages(request),
            self.schema_of(request),
            seed=int(key[:7], 16),
            parse=lambda text: self.parse(request, text),
            first=first,
        )

    def _messages(self, request: Request) -> list[Message]:
        system, user = self.prompt(request)
        image = self.image(request)
        content = user if image is None else [image_part(image), text_part(user)]
        return [{"role": "system", "content": system}, {"role": "user", "content": content}]
