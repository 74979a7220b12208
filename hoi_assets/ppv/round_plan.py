"""What a round asks for: prompts of thin slices, and more instance images where too little is
accepted.

A plan is history: what earlier rounds asked for stays as it was planned, whatever verdicts say
later, so that a new verifier or another round draws nothing anew.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import polars as pl

from hoi_assets.hashing import digest
from hoi_assets.ppv.instance_images import MoreImages
from hoi_assets.ppv.prompter import PromptRequest, Wish
from hoi_assets.ppv.slices import SLICE_COLUMNS, Slice, count_slices, judged_prompts, slices_of
from hoi_assets.settings import Rounds
from hoi_assets.statistics import share_interval
from hoi_assets.store.tables import Column, Table
from hoi_assets.store.versions import Published
from hoi_assets.taxonomy import Category

# The n-th prompt that round r asks for of a base prompt has index r * 1000 + n, so that an index
# says its round; `prompter.per_base_prompt` is at most 200.
FIRST_INDEX = 1000
# A word is avoided once so many of its images were judged, and that many at most are named.
JUDGED_PER_WORD, MOST_AVOIDED = 6, 6
SHOWN_REASONS = 3
FREE_SLOTS = ("colour", "material", "light", "background")

ROUND = Column("round", pl.Int64, "round, from 1")
ROUND_PLAN_ROWS = Table(
    "rows",
    "one round, as it was planned",
    (
        ROUND,
        Column("category", pl.String, "hand-pose category"),
        Column("verdicts_version", pl.String, "version of verified_pairs that it was planned from"),
        Column("drawn", pl.Int64, "candidates drawn before it"),
        Column("accepted", pl.Int64, "of those, accepted ones"),
        Column("slices", pl.Int64, "slices of the category"),
        Column("thin_slices", pl.Int64, "slices with fewer accepted images than are enough"),
        Column("enough_accepted", pl.Int64, "accepted images that are enough"),
        Column("prompts", pl.Int64, "detailed prompts asked for"),
        Column("renews_lora", pl.Boolean, "whether instance images and a LoRA are asked for"),
        Column("instance_images", pl.Int64, "more instance images asked for"),
        Column("guard_prompts", pl.Int64, "prompts of either kind that guard the LoRA"),
        Column("guard_margin", pl.Float64, "CLIPScore that the LoRA may lose on them", "0..2.5"),
    ),
    key=("round",),
)
ROUND_PROMPTS = Table(
    "prompts",
    "one detailed prompt that a round asks for",
    (
        ROUND,
        Column("base_prompt_id", pl.String, "the base prompt, 16 hex digits"),
        Column("index", pl.Int64, "number among the base prompt's detailed prompts"),
        *SLICE_COLUMNS,
        Column("avoid", pl.List(pl.String), "words that it should do without"),
    ),
    key=("base_prompt_id", "index"),
)
ROUND_SLICES = Table(
    "slices",
    "one slice, as it stood before a round",
    (
        ROUND,
        *SLICE_COLUMNS,
        Column("drawn", pl.Int64, "candidates drawn"),
        Column("accepted", pl.Int64, "candidates accepted"),
        Column("accepted_share", pl.Float64, "null where none was drawn", "0..1", nullable=True),
        Column("thin", pl.Boolean, "whether fewer are accepted than are enough"),
    ),
    key=("round", *(column.name for column in SLICE_COLUMNS)),
)
ROUND_REASONS = Table(
    "reasons",
    "why candidates had been rejected before a round",
    (
        ROUND,
        Column("reason", pl.String, "code of the reason"),
        Column("candidates", pl.Int64, "rejected for it"),
    ),
    key=("round", "reason"),
)
ROUND_TABLES = (ROUND_PLAN_ROWS, ROUND_PROMPTS, ROUND_SLICES, ROUND_REASONS)


@dataclass(frozen=True)
class RoundPlan:
    """All rounds of a category: tables `ROUND_PLAN_ROWS`, `ROUND_PROMPTS`, `ROUND_SLICES` and
    `ROUND_REASONS`."""

    rows: pl.DataFrame
    prompts: pl.DataFrame
    slices: pl.DataFrame
    reasons: pl.DataFrame

    @property
    def number(self) -> int:
        """Rounds planned; 0 where none is."""
        return self.rows.height

    def tables(self) -> dict[str, pl.DataFrame]:
        """Its tables by name."""
        return {table.name: getattr(self, table.name) for table in ROUND_TABLES}


def read_plan(published: Published | None) -> RoundPlan:
    """The plan of a version of `round_plan`; an empty one where nothing is published."""
    if published is None:
        return RoundPlan(*(table.frame([]) for table in ROUND_TABLES))
    return RoundPlan(*(published.table(table.name) for table in ROUND_TABLES))


def round_of(index: str) -> pl.Expr:
    """The round of a detailed prompt by its column `index`; 0 where no round asked for it."""
    return pl.col(index) // FIRST_INDEX


def plan_round(
    category: Category,
    plan: RoundPlan,
    prompts: pl.DataFrame,
    verdicts: pl.DataFrame,
    version: str,
    options: Rounds,
) -> RoundPlan:
    """The plan with one more round.

    Slices with fewer than `rounds.enough_accepted` accepted images are thin. Those with the fewest
    accepted come first, then those with the fewest drawn, so that one which was tried in vain waits
    for those that were not; ties are broken by a hash. Each gets one prompt.

    Args:
        prompts: rows of `detailed_prompts`.
        verdicts: rows of `verified_pairs`, version `version`.
    """
    number = plan.number + 1
    judged = judged_prompts(category, prompts, verdicts)
    accepted = int((judged["status"] == "accepted").sum())
    counts = count_slices(category, judged).with_columns(
        round=pl.lit(number, pl.Int64),
        accepted_share=pl.when(pl.col("drawn") > 0).then(pl.col("accepted") / pl.col("drawn")),
        thin=pl.col("accepted") < options.enough_accepted,
    )
    asked = _ask(category, plan, counts, number, avoided_words(judged), options.prompts)
    falls_short = accepted < options.min_accepted_share * judged.height
    renews = falls_short and options.instance_images > 0
    row: dict[str, Any] = {
        "round": number,
        "category": category.key,
        "verdicts_version": version,
        "drawn": judged.height,
        "accepted": accepted,
        "slices": counts.height,
        "thin_slices": int(counts["thin"].sum()),
        "enough_accepted": options.enough_accepted,
        "prompts": len(asked),
        "renews_lora": renews,
        "instance_images": options.instance_images if renews else 0,
        "guard_prompts": options.guard_prompts,
        "guard_margin": options.guard_margin,
    }
    codes = pl.col("reason").str.split(":").list.first()
    reasons = (
        verdicts.filter((pl.col("status") == "rejected") & pl.col("reason").is_not_null())
        .group_by(reason=codes)
        .agg(candidates=pl.len().cast(pl.Int64))
        .sort("candidates", "reason", descending=[True, False])
        .with_columns(round=pl.lit(number, pl.Int64))
    )
    return RoundPlan(
        rows=pl.concat([plan.rows, ROUND_PLAN_ROWS.frame([row])]),
        prompts=pl.concat([plan.prompts, ROUND_PROMPTS.frame(asked)]),
        slices=pl.concat([plan.slices, counts.select(list(ROUND_SLICES.schema))]),
        reasons=pl.concat([plan.reasons, reasons.select(list(ROUND_REASONS.schema))]),
    )


def _ask(
    category: Category,
    plan: RoundPlan,
    counts: pl.DataFrame,
    number: int,
    avoid: list[str],
    most: int,
) -> list[dict[str, Any]]:
    """Rows of `ROUND_PROMPTS`: one per thin slice, of the base prompt asked for least so far."""
    bases = slices_of(category)
    thin = [
        (row["accepted"], row["drawn"], digest([number, own]), own)
        for row in counts.filter("thin").iter_rows(named=True)
        for own in [Slice(*(row[name] for name in Slice._fields))]
    ]
    used = Counter(plan.prompts["base_prompt_id"].to_list())
    now: Counter[str] = Counter()
    rows = []
    for *_, own in sorted(thin)[:most]:
        base = min(bases[own], key=lambda one: used[one.prompt_id] + now[one.prompt_id])
        rows.append(
            {
                "round": number,
                "base_prompt_id": base.prompt_id,
                "index": number * FIRST_INDEX + now[base.prompt_id],
                **own._asdict(),
                "avoid": avoid,
            }
        )
        now[base.prompt_id] += 1
    return rows


def avoided_words(judged: pl.DataFrame) -> list[str]:
    """Colours, materials, lights and backgrounds that are accepted less than the category as a
    whole: the upper end of their share's 95% interval lies below its share. The worst first.

    Args:
        judged: of `slices.judged_prompts`.
    """
    if judged.is_empty():
        return []
    whole = float((judged["status"] == "accepted").sum()) / judged.height
    found = []
    for slot in FREE_SLOTS:
        counts = judged.group_by(slot).agg(n=pl.len(), k=(pl.col("status") == "accepted").sum())
        for word, n, k in counts.drop_nulls(slot).iter_rows():
            high = share_interval(k, n).high
            if n >= JUDGED_PER_WORD and high is not None and high < whole:
                found.append((high, word))
    return [word for _, word in sorted(found)[:MOST_AVOIDED]]


def round_requests(category: Category, plan: RoundPlan) -> list[PromptRequest]:
    """What the prompter is asked for by all rounds, in order; prompts of a base prompt that is in
    the taxonomy no more are left out."""
    bases = {base.prompt_id: base for base in category.base_prompts}
    reasons = {
        number: tuple(
            f"{row['reason']} ({row['candidates']} pictures)"
            for row in plan.reasons.filter(pl.col("round") == number)
            .head(SHOWN_REASONS)
            .iter_rows(named=True)
        )
        for number in plan.rows["round"].to_list()
    }
    return [
        PromptRequest(
            category,
            bases[row["base_prompt_id"]],
            row["index"],
            Wish(
                skin_tone=row["skin_tone"],
                view=row["view"],
                side=row["side"],
                avoid=tuple(row["avoid"]),
                reasons=reasons[row["round"]],
            ),
        )
        for row in plan.prompts.iter_rows(named=True)
        if row["base_prompt_id"] in bases
    ]


def more_images(plan: RoundPlan) -> list[MoreImages]:
    """The instance images that rounds ask for, in order of the rounds."""
    return [
        MoreImages(
            row["round"],
            row["instance_images"],
            plan.prompts.filter(pl.col("round") == row["round"]).to_dicts(),
        )
        for row in plan.rows.filter(pl.col("instance_images") > 0).iter_rows(named=True)
    ]
