"""Detailed prompts from a language model behind an OpenAI-compatible chat endpoint."""

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from hoi_assets.llm import prompt_templates
from hoi_assets.llm.budget import Budget
from hoi_assets.llm.reply import UnusableReply, parse_json_object
from hoi_assets.llm.structured_output import StructuredOutput
from hoi_assets.ppv.prompter import WISH_TEMPLATE, PromptRequest
from hoi_assets.ppv.slot_grammar import suggested_values
from hoi_assets.ppv.slots import PromptSlots, slots_class
from hoi_assets.settings import REPLY_OPTIONS
from hoi_assets.settings import Prompter as PrompterSettings


class EndpointPrompter(StructuredOutput[PromptRequest, PromptSlots]):
    """Asks for slots, one call per detailed prompt; the grammar's values are the suggestion."""

    caches = True
    section = "prompter"
    label = "detailed prompts"
    templates = ("system.j2", "user.j2", "again.j2")
    typical_reply_tokens = 250

    def __init__(self, options: PrompterSettings, budget: Budget | None = None) -> None:
        self.options = options
        self.reply_schema = slots_class(options.vocabulary)
        super().__init__(options, budget)
        self.model = self.chat.model
        # The docstring in it is for programmers.
        del self.schema["description"]

    @property
    def identity(self) -> Mapping[str, Any]:
        """What determines a reply besides the request, whose key holds the seed."""
        return {
            "model": self.model,
            "endpoint": self.chat.endpoint,
            "template_version": self.template_version,
            "temperature": self.options.temperature,
            "max_words": self.options.max_words,
            **self.options.given(*REPLY_OPTIONS),
        }

    def schema_of(self, request: PromptRequest) -> dict[str, Any]:
        """The schema, narrowed where the request leaves no choice."""
        schema = copy.deepcopy(self.schema)
        fields = schema["properties"]
        fields["side"]["enum"] = ["both"] if request.category.hands == 2 else ["left", "right"]
        if self.options.vocabulary == "tiny":
            fields["grip"]["enum"] = [request.category.grip_phrase]
            fields["object"]["enum"] = [request.base.object]
            for slot, word in request.wish.slots().items() if request.wish else ():
                fields[slot] = {"type": "string", "enum": [word]}
        return schema

    def prompt(self, request: PromptRequest) -> tuple[str, str]:
        """The system message and the user message."""
        system = prompt_templates.render(
            "system.j2",
            category=request.category,
            schema=prompt_templates.as_json(self.schema_of(request)),
            tiny=self.options.vocabulary == "tiny",
            max_words=self.options.max_words,
        )
        user = prompt_templates.render(
            "user.j2",
            base=request.base,
            index=request.index,
            suggested=suggested_values(request, self.options.seed),
        )
        if request.wish is not None:
            user = f"{user}\n{prompt_templates.render(WISH_TEMPLATE, wish=request.wish)}"
        return system, user

    def parse(self, request: PromptRequest, text: str) -> PromptSlots:
        """The slots in the text of a reply."""
        fields = parse_json_object(text)
        try:
            return slots_class(self.options.vocabulary).model_validate(fields)
        except ValidationError as error:
            raise UnusableReply(prompt_templates.validation_problem(error), text) from error
