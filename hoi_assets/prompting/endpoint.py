"""Detailed prompts from a language model behind an OpenAI-compatible chat endpoint."""

import copy
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
from pydantic import ValidationError

from hoi_assets.progress import Say, track
from hoi_assets.prompting.budget import Budget
from hoi_assets.prompting.chat import Chat, Message, Unusable, one_json_object, tokens_in
from hoi_assets.prompting.grammar import draw
from hoi_assets.prompting.request import Keep, Reply, Request
from hoi_assets.prompting.slots import PromptSlots, slots_class
from hoi_assets.settings import Prompter as PrompterSettings
from hoi_assets.store.hashing import digest
from hoi_assets.taxonomy import Category, Taxonomy

TEMPLATES = Path(__file__).parent / "templates"
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
        texts = [(TEMPLATES / name).read_text(encoding="utf-8") for name in TEMPLATE_NAMES]
        return digest([texts, self._schema])[:12]

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
        self, category: Category, requests: Sequence[Request], keep: Keep, say: Say
    ) -> list[Reply]:
        """One reply per request, in their order; `keep` is called with each usable one at once.

        Raises:
            EndpointError: the endpoint does not answer the first call, or refuses it.
        """
        if not requests:
            return []
        self.chat.stopped = None
        self._say_estimate(category, requests, say)
        replies: dict[str, Reply] = {}

        def done(request: Request, reply: Reply) -> None:
            replies[request.prompt_id] = reply
            if reply.slots is not None:
                keep(request, reply)

        # Alone and first, so that a wrong address costs one call and not all of them.
        done(requests[0], self._reply(category, requests[0], first=True))
        with ThreadPoolExecutor(self.options.concurrency) as pool:
            asked = {pool.submit(self._reply, category, r): r for r in requests[1:]}
            try:
                label = f"{category.key} prompts"
                for answered in track(as_completed(asked), label, total=len(asked), say=say):
                    done(asked[answered], answered.result())
            except BaseException:
                self.chat.stopped = "stopped: the run ended"
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if self.chat.stopped:
            say(f"{category.key}: {self.chat.stopped}")
        return [replies[request.prompt_id] for request in requests]

    def _reply(self, category: Category, request: Request, first: bool = False) -> Reply:
        answer = self.chat.ask(
            self._messages(category, request),
            self._narrowed(category, request),
            # Rows have their own seed, so that variations of one base prompt differ.
            seed=int(request.prompt_id[:7], 16),
            read=self._read,
            again=lambda problem: self._say("again.j2", problem=problem),
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

    def _say_estimate(self, category: Category, requests: Sequence[Request], say: Say) -> None:
        budget = self.chat.budget
        input_tokens = sum(tokens_in(self._messages(category, request)) for request in requests)
        output_tokens = TYPICAL_REPLY_TOKENS * len(requests)
        cost = budget.cost(input_tokens, output_tokens)
        price = "price unknown" if cost is None else f"about {cost:.4f} USD"
        line = (
            f"{category.key}: {len(requests)} calls to {self.model} at {self.chat.endpoint}, "
            f"about {input_tokens + output_tokens} tokens, {price}"
        )
        if budget.limit_usd is not None:
            left = budget.limit_usd - budget.spent_usd
            line += f", {left:.4f} USD left of the cap"
            if cost is not None and cost > left:
                line += ": it will stop at the cap"
        say(line)

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

    @cached_property
    def _templates(self) -> jinja2.Environment:
        return jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            undefined=jinja2.StrictUndefined,
            autoescape=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def _say(self, template: str, **values: Any) -> str:
        return self._templates.get_template(template).render(**values)

    def _messages(self, category: Category, request: Request) -> list[Message]:
        system = self._say(
            "system.j2",
            category=category,
            schema=json.dumps(self._narrowed(category, request)),
            tiny=self.options.vocabulary == "tiny",
            max_words=self.options.max_words,
        )
        user = self._say(
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
            problems = [
                f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}"
                for found in error.errors(include_url=False, include_context=False)
            ]
            raise Unusable("; ".join(problems), text) from error
