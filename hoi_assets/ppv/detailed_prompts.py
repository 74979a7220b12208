"""From base prompts to detailed prompts: request the slots, check them, make the table."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import polars as pl

from hoi_assets.llm.reply import Reply
from hoi_assets.llm.reply_cache import ReplyCache
from hoi_assets.ppv.prompt_checks import NearDuplicatePrompts, prompt_problem
from hoi_assets.ppv.prompter import Prompter, PromptRequest
from hoi_assets.ppv.slot_grammar import NOT_DRAWABLE, GrammarPrompter
from hoi_assets.ppv.slots import PromptSlots, slots_class
from hoi_assets.progress import Log
from hoi_assets.settings import Prompter as PrompterSettings
from hoi_assets.store.ledger import Ledger
from hoi_assets.store.tables import Column, Table
from hoi_assets.taxonomy import Category, Taxonomy

REPLY_KIND = "prompt_reply"
SLOT_COLUMNS = (
    Column("object", pl.String, "slot: the object", nullable=True),
    Column("colour", pl.String, "slot: the object's colour", nullable=True),
    Column("material", pl.String, "slot: the object's material", nullable=True),
    Column("skin_tone", pl.String, "slot: tone of the skin", nullable=True),
    Column("side", pl.String, "slot: left, right or both", nullable=True),
    Column("view", pl.String, "slot: where the camera stands", nullable=True),
    Column("light", pl.String, "slot: the light", nullable=True),
    Column("background", pl.String, "slot: what is behind the hand", nullable=True),
)
DETAILED_PROMPT_ROWS = Table(
    "rows",
    "one detailed prompt of a base prompt, accepted or not",
    (
        Column("prompt_id", pl.String, "hash of all that determines the reply, 16 hex digits"),
        Column("base_prompt_id", pl.String, "the base prompt, 16 hex digits"),
        Column("base_prompt", pl.String, "text of the base prompt"),
        Column("category", pl.String, "hand-pose category"),
        Column("index", pl.Int64, "number among the base prompt's, from 0; of round r from 1000 r"),
        Column("prompt", pl.String, "the detailed prompt; empty where there is none"),
        Column("negative_prompt", pl.String, "what must not be in the image; may be empty"),
        Column("slots", pl.String, "all slots, as JSON"),
        Column("status", pl.String, "accepted, rejected or failed"),
        Column("reason", pl.String, "`code: detail` unless accepted", nullable=True),
        Column("model", pl.String, "language model, or slot-grammar"),
        Column("template_version", pl.String, "hash of prompt templates and reply schema"),
        Column("input_tokens", pl.Int64, "of all attempts; null where unknown", nullable=True),
        Column("output_tokens", pl.Int64, "of all attempts; null where unknown", nullable=True),
        Column("cost_usd", pl.Float64, "of all attempts; null where unknown", "USD", nullable=True),
        *SLOT_COLUMNS,
    ),
    key=("prompt_id",),
)


@dataclass(frozen=True)
class DetailedPrompt:
    """One detailed prompt and how it ended.

    Attributes:
        prompt_id: 16 hex digits, the hash of what determines it; a failed row keeps it when it is
            requested again.
        prompt: empty where no reply was usable.
        slots: None where no reply was usable.
        reason: `code: detail` unless accepted.
        cost_usd: None where a price or the number of tokens is unknown.
    """

    prompt_id: str
    base_prompt_id: str
    base_prompt: str
    category: str
    index: int
    prompt: str
    negative_prompt: str
    slots: dict[str, Any] | None
    status: Literal["accepted", "rejected", "failed"]
    reason: str | None
    model: str
    template_version: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None

    def as_record(self) -> dict[str, Any]:
        """A row of `DETAILED_PROMPT_ROWS`."""
        slots = self.slots or {}
        record = asdict(self)
        record["slots"] = json.dumps(slots, sort_keys=True)
        return {**record, **{column.name: slots.get(column.name) for column in SLOT_COLUMNS}}


def detailed_prompts_table(prompts: Sequence[DetailedPrompt]) -> pl.DataFrame:
    """The table `DETAILED_PROMPT_ROWS`."""
    return DETAILED_PROMPT_ROWS.frame(prompt.as_record() for prompt in prompts)


def make_prompter(options: PrompterSettings) -> Prompter:
    """The prompter that the settings choose: an endpoint where one is named, else the grammar.

    Raises:
        HoiError: endpoint settings that cannot work; nothing is requested yet.
    """
    if options.endpoint is None:
        return GrammarPrompter(options)
    from hoi_assets.ppv.endpoint_prompter import EndpointPrompter

    return EndpointPrompter(options)


def detail_prompts(
    category: Category,
    taxonomy: Taxonomy,
    prompter: Prompter,
    options: PrompterSettings,
    cache: Ledger | None = None,
    log: Log = print,
    more: Sequence[PromptRequest] = (),
) -> list[DetailedPrompt]:
    """`per_base_prompt` detailed prompts for each base prompt of a category, checked; then `more`.

    Rows come in the order of base prompts and index, then in that of `more`. Each depends on its
    own base prompt; only which of two near-duplicates is rejected depends on others.

    Args:
        taxonomy: what the other categories are, for the checks.
        cache: replies by prompt_id; a reply found there is not requested again.
        more: what rounds ask for, see `round_plan.py`.

    Raises:
        HoiError: the endpoint cannot be used at all; no call was wasted.
    """
    requests = [
        PromptRequest(category, base, index)
        for base in category.base_prompts
        for index in range(options.per_base_prompt)
    ]
    requests += more
    identity = prompter.identity
    keys = [request.key(options.seed, identity) for request in requests]
    replies = _replies(
        dict(zip(keys, requests, strict=True)),
        prompter,
        options,
        cache,
        log=lambda line: log(f"{category.key}: {line}"),
    )
    accepted = NearDuplicatePrompts(options.near_duplicate_similarity)
    prompts = [
        _checked(key, request, replies[key], taxonomy, prompter, options, accepted)
        for key, request in zip(keys, requests, strict=True)
    ]
    count = Counter(prompt.status for prompt in prompts)
    ends = ", ".join(f"{count[end]} {end}" for end in ("accepted", "rejected", "failed"))
    log(f"{category.key}: {len(prompts)} detailed prompts, {ends}")
    return prompts


def _replies(
    requests: dict[str, PromptRequest],
    prompter: Prompter,
    options: PrompterSettings,
    cache: Ledger | None,
    log: Log,
) -> dict[str, Reply[PromptSlots]]:
    def upgrade(stored: dict[str, Any]) -> dict[str, Any]:
        # Homes hold replies of two formats; the older one names slots, not the model.
        if "slots" not in stored:
            return stored
        record = {name: value for name, value in stored.items() if name not in ("slots", "refused")}
        return {**record, "value": stored["slots"], "model": prompter.model}

    replies = ReplyCache[PromptSlots](
        cache if prompter.caches else None,
        REPLY_KIND,
        encode=lambda slots: slots.model_dump(),
        decode=slots_class(options.vocabulary).model_validate,
        log=log,
        upgrade=upgrade,
    )
    return replies.get_or_request(
        requests, lambda missing, on_reply: prompter.ask(missing, on_reply, log)
    )


def _checked(
    prompt_id: str,
    request: PromptRequest,
    reply: Reply[PromptSlots],
    taxonomy: Taxonomy,
    prompter: Prompter,
    options: PrompterSettings,
    accepted: NearDuplicatePrompts,
) -> DetailedPrompt:
    """The reply as a row; an acceptable one is added to `accepted`."""
    slots, reason, text = reply.value, reply.reason, ""
    status: Literal["accepted", "rejected", "failed"]
    if slots is None:
        # Requesting it again cannot help, unlike after a failure.
        hopeless = reply.final or (reason or "").startswith(f"{NOT_DRAWABLE}:")
        status = "rejected" if hopeless else "failed"
    else:
        text = slots.caption()
        reason = prompt_problem(
            slots, text, request.base, request.category, taxonomy, options.max_words
        )
        if reason is None:
            original = accepted.find(slots.spoken())
            reason = f"near_duplicate: of {original}" if original else None
        status = "rejected" if reason else "accepted"
        if status == "accepted":
            accepted.add(prompt_id, slots.spoken())
    return DetailedPrompt(
        prompt_id=prompt_id,
        base_prompt_id=request.base.prompt_id,
        base_prompt=request.base.text,
        category=request.category.key,
        index=request.index,
        prompt=text,
        negative_prompt=slots.negative_prompt if slots else "",
        slots=slots.model_dump() if slots else None,
        status=status,
        reason=reason,
        model=reply.model,
        template_version=prompter.template_version,
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens,
        cost_usd=reply.cost_usd,
    )
