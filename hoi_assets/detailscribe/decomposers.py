"""What decomposes a prompt into components: the built-in rules, or any OpenAI-compatible endpoint.

DetailScribe (arXiv 2504.08714) asks a language model. The rules stand in for one offline: they read
the built-in grammar exactly, and split any other sentence at its clauses.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hoi_assets.detailscribe.components import (
    IS_SHOWN,
    Component,
    build_component,
    find_cycle,
    name_same_thing,
)
from hoi_assets.detailscribe.phrases import (
    ARTICLES_AND_NUMBERS,
    PREPOSITIONS,
    split_phrase,
    word_set,
)
from hoi_assets.grammar.questions import question
from hoi_assets.grammar.sentences import parse
from hoi_assets.llm import prompt_templates
from hoi_assets.llm.reply import OnReply, Reply, UnusableReply, parse_json_object
from hoi_assets.llm.structured_output import StructuredOutput
from hoi_assets.progress import Log
from hoi_assets.settings import Decomposer as DecomposerSettings
from hoi_assets.taxonomy import normalise

MAX_COMPONENTS = 8
TEMPLATES = ("decompose_system.j2", "decompose_user.j2", "again.j2")
TYPICAL_REPLY_TOKENS = 200
STEM_LETTERS = 4
# Of a clause without a verb, so many words are shown.
MAX_SHOWN_WORDS = 12

_WORDS_WITHOUT_MEANING = (
    PREPOSITIONS
    | ARTICLES_AND_NUMBERS
    | word_set("are being for is it other that them there they this which while")
)

Components = tuple[Component, ...]


class Decomposer(Protocol):
    """Decomposes prompts.

    Attributes:
        template_version: version of the templates or rules, for the table.
        identity: what determines the components besides the prompt.
        caches: whether outcomes are worth storing in the reply cache.
    """

    @property
    def template_version(self) -> str: ...

    @property
    def identity(self) -> Mapping[str, Any]: ...

    @property
    def caches(self) -> bool: ...

    def ask(
        self, prompts: Mapping[str, str], on_reply: OnReply[Components], log: Log
    ) -> Mapping[str, Reply[Components]]: ...


def build_decomposer(options: DecomposerSettings) -> Decomposer:
    """The decomposer that the settings name: an endpoint if there is one, else the rules.

    Raises:
        HoiError: endpoint settings that cannot work; no request is sent yet.
    """
    return RuleDecomposer() if options.endpoint is None else EndpointDecomposer(options)


def find_decomposition_problem(prompt: str, components: Sequence[Component]) -> str | None:
    """Why these do not decompose the prompt, as `code: detail`; None if they do.

    >>> cup_on_box = build_component("a cup", "is on", "a box")
    >>> find_decomposition_problem("a cup on a box", [cup_on_box, cup_on_box])
    'repeats: "a cup is on a box"'
    """
    if not components:
        return "empty: no component"
    if len(components) > MAX_COMPONENTS:
        return f"too_many: {len(components)} components, at most {MAX_COMPONENTS}"
    for number, one in enumerate(components):
        if any(_is_repeat(one, earlier) for earlier in components[:number]):
            return f'repeats: "{one.statement}"'
    cycle = find_cycle(components)
    if cycle:
        return f"loops: {cycle}"
    if not any(_shares_a_word(prompt, f"{one.subject} {one.object}") for one in components):
        return "names_nothing: no component names anything of the prompt"
    return None


def _is_repeat(a: Component, b: Component) -> bool:
    return (
        name_same_thing(a.subject, b.subject)
        and a.relation.casefold() == b.relation.casefold()
        and name_same_thing(a.object, b.object)
    )


def _shares_a_word(prompt: str, text: str) -> bool:
    """Whether a word with meaning, or its stem (leaf, leaves), is in the prompt."""
    known = normalise(prompt)
    words = (word for word in normalise(text).split() if word not in _WORDS_WITHOUT_MEANING)
    return any(re.search(rf"\b{re.escape(word[:STEM_LETTERS])}", known) for word in words)


class RuleDecomposer:
    """The built-in grammar; other sentences are split at their clauses, each read by its verb.

    The rules see less than a language model does; a row's `model` says which of the two it was.
    """

    template_version = "1"
    caches = False
    grammar = "tiny-grammar"
    clauses = "clause-rules"

    @property
    def identity(self) -> Mapping[str, Any]:
        """What determines the components besides the prompt."""
        return {"model": self.grammar, "template_version": self.template_version}

    def ask(
        self, prompts: Mapping[str, str], on_reply: OnReply[Components], log: Log
    ) -> Mapping[str, Reply[Components]]:
        """An outcome per prompt, by key."""
        return {key: self._outcome(prompt) for key, prompt in prompts.items()}

    def _outcome(self, prompt: str) -> Reply[Components]:
        triples = parse(prompt)
        if triples is None:
            model, components = self.clauses, split_clauses(prompt)
        else:
            model = self.grammar
            components = tuple(
                build_component(t.subject, t.relation, t.object, question(t)) for t in triples
            )
        problem = find_decomposition_problem(prompt, components)
        return Reply(None if problem else components, problem, model)


def split_clauses(prompt: str) -> Components:
    """Components of any English sentence: its clauses, each split at its verb.

    A clause that begins with a verb takes the first clause's subject. One without a verb is left
    out; if none has a verb, the first clause `is shown`.

    >>> [one.statement for one in split_clauses("A cat sails the sea, holding a mast.")]
    ['a cat sails the sea', 'a cat holding a mast']
    """
    clauses = [_plain(text) for text in re.split(r"[,;:.!?]\s|\bwhile\b", prompt)]
    clauses = [text for text in clauses if text]
    found: list[Component] = []
    for text in clauses:
        subject, relation, object = split_phrase(text)
        # `split_phrase` takes no first word for a verb, so one is put before it.
        led = split_phrase(f"it {text}")
        if led[0] == "it" and led[1] != IS_SHOWN:
            subject, relation, object = found[0].subject if found else clauses[0], *led[1:]
        if relation == IS_SHOWN:
            continue
        one = _build_if_valid(subject, relation, object)
        if one and find_decomposition_problem(prompt, (*found, one)) is None:
            found.append(one)
    if not found and clauses:
        one = _build_if_valid(" ".join(clauses[0].split()[:MAX_SHOWN_WORDS]), IS_SHOWN, "")
        found = [one] if one else []
    return tuple(found[:MAX_COMPONENTS])


def _plain(clause: str) -> str:
    """A clause without signs of the flat form, leading conjunctions, and a capital article."""
    text = " ".join(re.sub(r"[()<>+]", " ", clause).split()).strip(" .,;:!?\"'")
    text = re.sub(r"^(?:and|as|but|where|with) ", "", text)
    first = text.split(" ", 1)[0]
    return text[:1].lower() + text[1:] if first.casefold() in _WORDS_WITHOUT_MEANING else text


def _build_if_valid(subject: str, relation: str, object: str) -> Component | None:
    try:
        return build_component(subject, relation, object)
    except ValidationError:
        return None


# The schema, class names included, is part of the reply cache's keys.
class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    components: tuple[Component, ...] = Field(description="one component each")


class EndpointDecomposer(StructuredOutput[str, Components]):
    """Asks a chat endpoint for components, one call per prompt."""

    caches = True
    section = "decomposer"
    label = "decompositions"
    templates = TEMPLATES
    reply_schema = _Reply
    typical_reply_tokens = TYPICAL_REPLY_TOKENS

    def prompt(self, request: str) -> tuple[str, str]:
        """The system and the user message."""
        system = prompt_templates.render(
            "decompose_system.j2",
            schema=prompt_templates.as_json(self.schema),
            max_components=MAX_COMPONENTS,
        )
        return system, prompt_templates.render("decompose_user.j2", prompt=request)

    def parse(self, request: str, text: str) -> Components:
        """The components in a reply.

        Raises:
            UnusableReply: a reply that breaks the schema, or components that do not fit the prompt.
        """
        try:
            components = _Reply.model_validate(parse_json_object(text)).components
        except ValidationError as error:
            raise UnusableReply(prompt_templates.validation_problem(error), text) from error
        problem = find_decomposition_problem(request, components)
        if problem:
            raise UnusableReply(problem, text)
        return components
