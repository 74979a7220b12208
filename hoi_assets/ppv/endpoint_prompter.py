"""Detailed prompts from a language model behind an OpenAI-compatible chat endpoint."""

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from hoi_assets.llm import prompt_templates as wording
from hoi_assets.llm.budget import Budget
from hoi_assets.llm.client import Chat, Message, Unusable, ask_all, one_json_object, tokens_in
from hoi_assets.ppv.prompter import Keep, Reply, Request
from hoi_assets.ppv.slot_grammar import draw
from hoi_assets.ppv.slots import PromptSlots, slots_class
from hoi_assets.progress import Log
from hoi_assets.settings import Prompter as PrompterSettings
from hoi_assets.taxonomy import Category, Taxonomy

TEMPLATE_NAMES = ("system.j2", "user.j2", "again.j2")
TYPICAL_REPLY_TOKENS = 250


class EndpointPrompter:
    """Asks for slots, one call per detailed prompt; the grammar's values are the suggestion.

    Args:
        budget: see `Chat`.

    Raises:
        HoiError: settings that cannot work, see `Chat`; nothing is asked yet.
    """

    caches = True

    def __init__(
        self, taxonomy: Taxonomy, options: PrompterSettings, budget: Budget | None = None
    ) -> None:
        self.taxonomy = taxonomy
        self.options = options
        self.chat = Chat(options, budget)
        self.model = self.chat.model
        self._level = slots_class(options.vocabulary)

    @cached_property
    def template_version(self) -> str:
        """Hash of the templates and of the schema, 12 hex digits."""
        return wording.version(TEMPLATE_NAMES, self._schema)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What determines a reply beside the request."""
        return {
            "model": self.model,
            "endpoint": self.chat.endpoint,
            "template_version": self.template_version,
            "temperature": self.options.temperature,
            "max_words": self.options.max_words,
        }

    def ask(
        self, category: Category, requests: Sequence[Request], keep: Keep, log: Log
    ) -> list[Reply]:
        """One reply per request, in their order; `keep` is called with each usable one at once.

        Raises:
            EndpointError: the endpoint does not answer the first call, or refuses it.
        """
        if not requests:
            return []
        tokens = sum(tokens_in(self._messages(category, request)) for request in requests)
        estimate = self.chat.estimate(len(requests), tokens, TYPICAL_REPLY_TOKENS * len(requests))
        log(f"{category.key}: {estimate}")

        def done(request: Request, reply: Reply) -> None:
            if reply.slots is not None:
                keep(request, reply)

        return ask_all(
            self.chat,
            requests,
            lambda request, first: self._reply(category, request, first),
            done,
            f"{category.key} prompts",
            log,
        )

    def _reply(self, category: Category, request: Request, first: bool = False) -> Reply:
        answer = self.chat.ask(
            self._messages(category, request),
            self._narrowed(category, request),
            # Rows have their own seed, so that variations of one base prompt differ.
            seed=int(request.prompt_id[:7], 16),
            read=self._read,
            again=wording.again,
            first=first,
        )
        usage = answer.usage
        return Reply(
            slots=answer.value,
            reason=answer.reason,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost_usd=usage.cost_usd,
        )

    @cached_property
    def _schema(self) -> dict[str, Any]:
        schema = self._level.model_json_schema()
        del schema["description"]  # speaks to programmers
        return schema

    def _narrowed(self, category: Category, request: Request) -> dict[str, Any]:
        """The schema with what this request leaves no choice about."""
        schema = copy.deepcopy(self._schema)
        fields = schema["properties"]
        fields["side"]["enum"] = ["both"] if category.hands == 2 else ["left", "right"]
        if self.options.vocabulary == "tiny":
            fields["grip"]["enum"] = [category.grip_phrase]
            fields["object"]["enum"] = [request.base.object]
        return schema

    def _messages(self, category: Category, request: Request) -> list[Message]:
        system = wording.render(
            "system.j2",
            category=category,
            schema=wording.as_json(self._narrowed(category, request)),
            tiny=self.options.vocabulary == "tiny",
            max_words=self.options.max_words,
        )
        user = wording.render(
            "user.j2",
            base=request.base,
            index=request.index,
            suggested=draw(request, category, self.options.seed),
        )
        return [{"role": "system", "content": system}, {"role": "user", "content": user}]

    def _read(self, text: str) -> PromptSlots:
        """Slots from the text of a reply."""
        given = one_json_object(text)
        try:
            return self._level.model_validate(given)
        except ValidationError as error:
            raise Unusable(wording.told(error), text) from error
