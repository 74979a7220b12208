"""Asks an endpoint for structured output, one call per request, each reply kept as it comes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel

from hoi_assets.llm import prompt_templates as wording
from hoi_assets.llm.budget import Budget
from hoi_assets.llm.client import (
    CHARACTERS_PER_TOKEN,
    Chat,
    Message,
    ask_all,
    image_part,
    text_part,
)
from hoi_assets.llm.reply_cache import Keep, Outcome
from hoi_assets.progress import Log
from hoi_assets.settings import Endpoint

if TYPE_CHECKING:
    from PIL import Image

Request = TypeVar("Request")
Value = TypeVar("Value")


class Asker(ABC, Generic[Request, Value]):
    """What one kind of request says, and how its replies are read.

    Args:
        options: the settings' section called `section`.
        budget: see `Chat`.
        image_tokens: the most that is billed for one picture; 0 where none is shown.

    Raises:
        HoiError: settings that cannot work, see `Chat`; nothing is asked yet.
    """

    section: ClassVar[str]
    label: ClassVar[str]
    templates: ClassVar[tuple[str, ...]]
    reply: ClassVar[type[BaseModel]]
    typical_reply_tokens: ClassVar[int]

    def __init__(
        self, options: Endpoint, budget: Budget | None = None, image_tokens: int = 0
    ) -> None:
        self.chat = Chat(options, budget, section=self.section, image_tokens=image_tokens)
        self.schema = self.reply.model_json_schema()

    @abstractmethod
    def words(self, request: Request) -> tuple[str, str]:
        """What the system and the user say."""

    @abstractmethod
    def read(self, request: Request, text: str) -> Value:
        """The value in the text of a reply.

        Raises:
            Unusable: there is none; the endpoint is told why and asked again.
        """

    def image(self, request: Request) -> "Image.Image | None":
        """The picture that is shown."""
        return None

    @cached_property
    def template_version(self) -> str:
        """Hash of the templates and of the schema, 12 hex digits."""
        return wording.version(self.templates, self.schema)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What determines a value beside the request."""
        return {
            "model": self.chat.model,
            "endpoint": self.chat.endpoint,
            "template_version": self.template_version,
            "temperature": self.chat.options.temperature,
            "seed": self.chat.options.seed,
        }

    def ask(
        self, requests: Mapping[str, Request], keep: Keep[Value], log: Log
    ) -> Mapping[str, Outcome[Value]]:
        """An outcome per request, by key; `keep` is called with each at once.

        Raises:
            EndpointError: the endpoint does not answer the first call, or refuses it.
        """
        if not requests:
            return {}
        characters = sum(len("".join(self.words(request))) for request in requests.values())
        tokens = characters // CHARACTERS_PER_TOKEN + len(requests) * self.chat.image_tokens
        replies = self.typical_reply_tokens * len(requests)
        log(f"{self.label}: {self.chat.estimate(len(requests), tokens, replies)}")
        outcomes = ask_all(
            self.chat,
            list(requests.items()),
            lambda item, first: self._outcome(*item, first),
            lambda item, outcome: keep(item[0], outcome),
            self.label,
            log,
        )
        return dict(zip(requests, outcomes, strict=True))

    def _outcome(self, key: str, request: Request, first: bool) -> Outcome[Value]:
        answer = self.chat.ask(
            self._messages(request),
            self.schema,
            seed=int(key[:7], 16),
            read=lambda text: self.read(request, text),
            again=wording.again,
            first=first,
        )
        return Outcome.of(answer, self.chat.model)

    def _messages(self, request: Request) -> list[Message]:
        system, user = self.words(request)
        image = self.image(request)
        content = user if image is None else [image_part(image), text_part(user)]
        return [{"role": "system", "content": system}, {"role": "user", "content": content}]
