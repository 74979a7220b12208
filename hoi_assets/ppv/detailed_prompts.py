"""From base prompts to detailed prompts: the door of this package."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from hoi_assets.llm.reply_cache import Cache
from hoi_assets.ppv.prompt_checks import NearDuplicates, problem
from hoi_assets.ppv.prompter import Prompter, Reply, Request
from hoi_assets.ppv.slot_grammar import GrammarPrompter
from hoi_assets.ppv.slots import slots_class
from hoi_assets.progress import Log
from hoi_assets.settings import Prompter as PrompterSettings
from hoi_assets.taxonomy import Category, Taxonomy

if TYPE_CHECKING:
    import polars as pl

REPLY_KIND = "prompt_reply"
FLAT_SLOTS = (
    "object",
    "colour",
    "material",
    "skin_tone",
    "side",
    "view",
    "light",
    "background",
)


@dataclass(frozen=True)
class PromptRow:
    """One detailed prompt and how it ended.

    Attributes:
        prompt_id: 16 hex digits, the hash of what determines it; stays when a failed row is
            asked for again.
        prompt, slots: empty and None where no reply could be used.
        reason: `code: detail` unless accepted.
        cost_usd: None where a price or the number of tokens is not known.
    """

    prompt_id: str
    base_prompt_id: str
    base_prompt: str
    category: str
    index: int
    prompt: str
    negative_prompt: str
    slots: Mapping[str, Any] | None
    status: Literal["accepted", "rejected", "failed"]
    reason: str | None
    model: str
    template_version: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None

    def as_record(self) -> dict[str, Any]:
        """A flat row for a table: the drawable slots as columns, all of them as JSON in `slots`."""
        slots = self.slots or {}
        record = asdict(self)
        record["slots"] = json.dumps(dict(slots), sort_keys=True)
        return {**record, **{name: slots.get(name) for name in FLAT_SLOTS}}


def prompts_table(rows: Sequence[PromptRow]) -> "pl.DataFrame":
    """Rows as a table whose column types do not depend on what the rows hold."""
    import polars as pl

    types: dict[str, Any] = {
        "index": pl.Int64,
        "input_tokens": pl.Int64,
        "output_tokens": pl.Int64,
        "cost_usd": pl.Float64,
    }
    names = [*PromptRow.__dataclass_fields__, *FLAT_SLOTS]
    schema = {name: types.get(name, pl.String) for name in names}
    return pl.DataFrame([row.as_record() for row in rows], schema=schema)


def make_prompter(taxonomy: Taxonomy, options: PrompterSettings) -> Prompter:
    """The prompter that the settings choose: an endpoint where one is named, else the grammar.

    Raises:
        HoiError: settings of the endpoint that cannot work; nothing is asked yet.
    """
    if options.endpoint is None:
        return GrammarPrompter(taxonomy, options)
    from hoi_assets.ppv.endpoint_prompter import EndpointPrompter

    return EndpointPrompter(taxonomy, options)


def detail_prompts(
    category: Category,
    prompter: Prompter,
    options: PrompterSettings,
    cache: Cache | None = None,
    log: Log = print,
) -> list[PromptRow]:
    """`per_base_prompt` detailed prompts for each base prompt of a category, checked.

    Rows come in the order of base prompts and index. Each depends on its own base prompt; only
    which of two near-duplicates is kept depends on others.

    Args:
        cache: replies kept by prompt_id; a reply found there is not asked for again.

    Raises:
        HoiError: the endpoint cannot be used at all; nothing was asked in vain.
    """
    requests = [
        Request.of(category, base, index, options.seed, prompter.identity)
        for base in category.base_prompts
        for index in range(options.per_base_prompt)
    ]
    replies = _replies(category, prompter, options, requests, cache, log)
    kept = NearDuplicates(options.near_duplicate_similarity)
    rows = [
        _row(request, reply, category, prompter, options, kept)
        for request, reply in zip(requests, replies, strict=True)
    ]
    count = Counter(row.status for row in rows)
    ends = ", ".join(f"{count[end]} {end}" for end in ("accepted", "rejected", "failed"))
    log(f"{category.key}: {len(rows)} detailed prompts, {ends}")
    return rows


def _replies(
    category: Category,
    prompter: Prompter,
    options: PrompterSettings,
    requests: Sequence[Request],
    cache: Cache | None,
    log: Log,
) -> list[Reply]:
    if cache is None or not prompter.caches:
        return prompter.ask(category, requests, lambda request, reply: None, log)
    level = slots_class(options.vocabulary)
    found: dict[str, Reply] = {}
    for prompt_id, value in cache.get(REPLY_KIND, [r.prompt_id for r in requests]).items():
        try:
            found[prompt_id] = Reply(**{**value, "slots": level.model_validate(value["slots"])})
        except (ValidationError, TypeError, KeyError):
            log(f"{category.key}: kept reply {prompt_id} cannot be read; it is asked for again")

    def keep(request: Request, reply: Reply) -> None:
        assert reply.slots is not None
        value = {**asdict(reply), "slots": reply.slots.model_dump()}
        cache.put(REPLY_KIND, {request.prompt_id: value})

    missing = [request for request in requests if request.prompt_id not in found]
    asked = prompter.ask(category, missing, keep, log)
    found.update((r.prompt_id, reply) for r, reply in zip(missing, asked, strict=True))
    return [found[request.prompt_id] for request in requests]


def _row(
    request: Request,
    reply: Reply,
    category: Category,
    prompter: Prompter,
    options: PrompterSettings,
    kept: NearDuplicates,
) -> PromptRow:
    text, status, reason = "", "rejected" if reply.refused else "failed", reply.reason
    slots = reply.slots
    if slots is not None:
        text = slots.caption()
        reason = problem(slots, text, request.base, category, prompter.taxonomy, options.max_words)
        if reason is None:
            twin = kept.find(slots.spoken())
            reason = f"near_duplicate: of {twin}" if twin else None
        status = "rejected" if reason else "accepted"
        if status == "accepted":
            kept.keep(request.prompt_id, slots.spoken())
    return PromptRow(
        prompt_id=request.prompt_id,
        base_prompt_id=request.base.prompt_id,
        base_prompt=request.base.text,
        category=category.key,
        index=request.index,
        prompt=text,
        negative_prompt=slots.negative_prompt if slots else "",
        slots=slots.model_dump() if slots else None,
        status=status,  # type: ignore[arg-type]
        reason=reason,
        model=prompter.model,
        template_version=prompter.template_version,
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens,
        cost_usd=reply.cost_usd,
    )
