"""A prompt's components: by the built-in grammar, or by any OpenAI-compatible endpoint."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hoi_assets.detailscribe.components import (
    ARTICLES_AND_NUMBERS,
    PREPOSITIONS,
    SHOWN,
    Component,
    component,
    dependencies,
    looped,
    same,
    split_phrase,
    to_flat,
    word_set,
)
from hoi_assets.grammar.questions import question
from hoi_assets.grammar.sentences import parse
from hoi_assets.hashing import digest
from hoi_assets.llm import prompt_templates as wording
from hoi_assets.llm.client import Unusable, one_json_object
from hoi_assets.llm.reply_cache import Cache, Keep, Outcome, found_or_asked
from hoi_assets.llm.structured_output import Asker
from hoi_assets.progress import Log
from hoi_assets.settings import Decomposer as DecomposerSettings
from hoi_assets.taxonomy import ID_LENGTH, normalise

if TYPE_CHECKING:
    import polars as pl

REPLY_KIND = "decomposition"
MAX_COMPONENTS = 8
TEMPLATES = ("decompose_system.j2", "decompose_user.j2", "again.j2")
TYPICAL_REPLY_TOKENS = 200
STEM_LETTERS = 4

_EMPTY_WORDS = (
    PREPOSITIONS
    | ARTICLES_AND_NUMBERS
    | word_set("are being for is it other that them there they this which while")
)

Components = tuple[Component, ...]


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    components: tuple[Component, ...] = Field(description="one component each")


@dataclass(frozen=True)
class DecomposedRow:
    """A benchmark row's components, or the reason why there are none.

    Attributes:
        components: in order, so that one comes after those it builds on; empty where it failed.
        reason: `code: detail` of a failed row.
        cost_usd: None where a price or the number of tokens is not known.
    """

    row_id: str
    prompt: str
    components: Components
    status: Literal["accepted", "failed"]
    reason: str | None
    model: str
    template_version: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None


class Decomposer(Protocol):
    """Takes prompts apart. `identity` is what determines the components beside the prompt."""

    @property
    def template_version(self) -> str: ...

    @property
    def identity(self) -> Mapping[str, Any]: ...

    @property
    def caches(self) -> bool: ...

    def ask(
        self, prompts: Mapping[str, str], keep: Keep[Components], log: Log
    ) -> Mapping[str, Outcome[Components]]: ...


def make_decomposer(options: DecomposerSettings) -> Decomposer:
    """The decomposer that the settings choose: an endpoint where one is named, else the rules.

    Raises:
        HoiError: settings of the endpoint that cannot work; nothing is asked yet.
    """
    return RuleDecomposer() if options.endpoint is None else EndpointDecomposer(options)


def decompose(
    prompts: Iterable[tuple[str, str]],
    decomposer: Decomposer,
    cache: Cache | None = None,
    log: Log = print,
) -> list[DecomposedRow]:
    """The components of each (row_id, prompt), in their order. Equal prompts are asked once.

    Args:
        cache: replies kept by the hash of prompt and decomposer; one found is not asked for again.

    Raises:
        HoiError: the endpoint cannot be used at all; nothing was asked in vain.
    """
    rows = list(prompts)
    keys = {prompt: _key(prompt, decomposer.identity) for _, prompt in rows}
    outcomes = found_or_asked(
        cache if decomposer.caches else None,
        REPLY_KIND,
        {key: prompt for prompt, key in keys.items()},
        lambda missing, keep: decomposer.ask(missing, keep, log),
        dump=lambda components: [one.model_dump() for one in components],
        load=lambda records: tuple(Component.model_validate(record) for record in records),
        log=log,
    )
    made = [_row(row_id, prompt, outcomes[keys[prompt]], decomposer) for row_id, prompt in rows]
    failed = sum(row.status == "failed" for row in made)
    log(f"{len(made)} prompts decomposed, {failed} failed")
    return made


def _key(prompt: str, identity: Mapping[str, Any]) -> str:
    return digest({"prompt": prompt, "decomposer": dict(identity)})[:ID_LENGTH]


def _row(
    row_id: str, prompt: str, outcome: Outcome[Components], decomposer: Decomposer
) -> DecomposedRow:
    return DecomposedRow(
        row_id=row_id,
        prompt=prompt,
        components=outcome.value or (),
        status="failed" if outcome.value is None else "accepted",
        reason=outcome.reason,
        model=outcome.model,
        template_version=decomposer.template_version,
        input_tokens=outcome.input_tokens,
        output_tokens=outcome.output_tokens,
        cost_usd=outcome.cost_usd,
    )


def decompositions_table(rows: Sequence[DecomposedRow]) -> "pl.DataFrame":
    """One line per prompt: row_id, prompt, flat form, how many components, status, reason, cost."""
    import polars as pl

    schema: dict[str, Any] = {
        "row_id": pl.String,
        "prompt": pl.String,
        "flat": pl.String,
        "components": pl.Int64,
        "status": pl.String,
        "reason": pl.String,
        "model": pl.String,
        "template_version": pl.String,
        "input_tokens": pl.Int64,
        "output_tokens": pl.Int64,
        "cost_usd": pl.Float64,
    }
    records = [
        {**vars(row), "flat": to_flat(row.components), "components": len(row.components)}
        for row in rows
    ]
    return pl.DataFrame([{name: r[name] for name in schema} for r in records], schema=schema)


def components_table(rows: Sequence[DecomposedRow]) -> "pl.DataFrame":
    """One line per component: row_id, component (from 0), its fields, and those it depends on."""
    import polars as pl

    schema: dict[str, Any] = {
        "row_id": pl.String,
        "component": pl.Int64,
        **{name: pl.String for name in Component.model_fields},
        "depends_on": pl.List(pl.Int64),
    }
    records = [
        {"row_id": row.row_id, "component": number, **one.model_dump(), "depends_on": list(needs)}
        for row in rows
        for number, (one, needs) in enumerate(
            zip(row.components, dependencies(row.components), strict=True)
        )
    ]
    return pl.DataFrame(records, schema=schema)


def read_components(table: "pl.DataFrame") -> dict[str, Components]:
    """Components by row_id, from a table that `components_table` made."""
    found: dict[str, list[Component]] = {}
    for record in table.sort("row_id", "component").iter_rows(named=True):
        fields = {name: record[name] for name in Component.model_fields}
        found.setdefault(record["row_id"], []).append(Component(**fields))
    return {row_id: tuple(components) for row_id, components in found.items()}


def problem(prompt: str, components: Sequence[Component]) -> str | None:
    """The first reason why these are no decomposition of the prompt, as `code: detail`; else None.

    >>> problem("a cup on a box", [component("a cup", "is on", "a box")] * 2)
    'repeats: "a cup is on a box"'
    """
    if not components:
        return "empty: no component"
    if len(components) > MAX_COMPONENTS:
        return f"too_many: {len(components)} components, at most {MAX_COMPONENTS}"
    for number, one in enumerate(components):
        if any(_alike(one, earlier) for earlier in components[:number]):
            return f'repeats: "{one.statement}"'
    loop = looped(components)
    if loop:
        return f"loops: {loop}"
    if not any(_names_part_of(prompt, f"{one.subject} {one.object}") for one in components):
        return "names_nothing: no component names anything of the prompt"
    return None


def _alike(a: Component, b: Component) -> bool:
    return (
        same(a.subject, b.subject)
        and a.relation.casefold() == b.relation.casefold()
        and same(a.object, b.object)
    )


def _names_part_of(prompt: str, said: str) -> bool:
    """Whether a word with meaning, or its beginning (leaf, leaves), stands in the prompt."""
    known = normalise(prompt)
    telling = (word for word in normalise(said).split() if word not in _EMPTY_WORDS)
    return any(re.search(rf"\b{re.escape(word[:STEM_LETTERS])}", known) for word in telling)


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
        """What determines the components beside the prompt."""
        return {"model": self.grammar, "template_version": self.template_version}

    def ask(
        self, prompts: Mapping[str, str], keep: Keep[Components], log: Log
    ) -> Mapping[str, Outcome[Components]]:
        """An outcome per prompt, by key."""
        return {key: self._outcome(prompt) for key, prompt in prompts.items()}

    def _outcome(self, prompt: str) -> Outcome[Components]:
        triples = parse(prompt)
        if triples is None:
            model, found = self.clauses, by_clauses(prompt)
        else:
            model, found = (
                self.grammar,
                tuple(component(t.subject, t.relation, t.object, question(t)) for t in triples),
            )
        wrong = problem(prompt, found)
        return Outcome(None if wrong else found, wrong, model)


def by_clauses(prompt: str) -> Components:
    """Components of any English sentence: its clauses, each split at its verb.

    A clause that begins with a verb takes the first clause's subject; one without a verb is left
    out, and where none has one, the first is kept as what is shown.

    >>> [one.statement for one in by_clauses("A cat sails the sea, holding a mast.")]
    ['a cat sails the sea', 'a cat holding a mast']
    """
    texts = [_plain(text) for text in re.split(r"[,;:.!?]\s|\bwhile\b", prompt)]
    texts = [text for text in texts if text]
    found: list[Component] = []
    for text in texts:
        subject, relation, object = split_phrase(text)
        # A first word that is a verb is seen once something stands before it.
        led = split_phrase(f"it {text}")
        if led[0] == "it" and led[1] != SHOWN:
            subject, relation, object = found[0].subject if found else texts[0], *led[1:]
        if relation == SHOWN:
            continue
        one = _short_enough(subject, relation, object)
        if one and problem(prompt, (*found, one)) is None:
            found.append(one)
    if not found and texts:
        one = _short_enough(" ".join(texts[0].split()[:12]), SHOWN, "")
        found = [one] if one else []
    return tuple(found[:MAX_COMPONENTS])


def _plain(clause: str) -> str:
    """A clause without signs the flat form needs, leading conjunctions, and a capital article."""
    text = " ".join(re.sub(r"[()<>+]", " ", clause).split()).strip(" .,;:!?\"'")
    text = re.sub(r"^(?:and|as|but|where|with) ", "", text)
    first = text.split(" ", 1)[0]
    return text[:1].lower() + text[1:] if first.casefold() in _EMPTY_WORDS else text


def _short_enough(subject: str, relation: str, object: str) -> Component | None:
    try:
        return component(subject, relation, object)
    except ValidationError:
        return None


class EndpointDecomposer(Asker[str, Components]):
    """Asks for components, one call per prompt."""

    caches = True
    section = "decomposer"
    label = "decompositions"
    templates = TEMPLATES
    reply = _Reply
    typical_reply_tokens = TYPICAL_REPLY_TOKENS

    def words(self, request: str) -> tuple[str, str]:
        """What the system and the user say."""
        system = wording.render(
            "decompose_system.j2",
            schema=wording.as_json(self.schema),
            max_components=MAX_COMPONENTS,
        )
        return system, wording.render("decompose_user.j2", prompt=request)

    def read(self, request: str, text: str) -> Components:
        """The components of a reply."""
        return _read(request, text)


def _read(prompt: str, text: str) -> Components:
    """Components from the text of a reply."""
    try:
        components = _Reply.model_validate(one_json_object(text)).components
    except ValidationError as error:
        raise Unusable(wording.told(error), text) from error
    wrong = problem(prompt, components)
    if wrong:
        raise Unusable(wrong, text)
    return components
