"""What each round brought: acceptance, the examiner's truth, coverage and cost."""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from hoi_assets.ppv.round_plan import RoundPlan, round_of
from hoi_assets.ppv.slices import count_slices, judged_prompts
from hoi_assets.statistics import share_interval
from hoi_assets.store.tables import Column, Table
from hoi_assets.taxonomy import Category

ALL = "all"
COUNTS = (
    "prompts",
    "usable_prompts",
    "drawn",
    "accepted",
    "right",
    "accepted_right",
    "slices",
    "covered",
    "denoiser_evaluations",
)
NO_EXAMINER = "null without an examiner"


def _count(name: str, meaning: str) -> Column:
    return Column(name, pl.Int64, f"{meaning}; {NO_EXAMINER}", nullable=True)


def _share(name: str, meaning: str) -> tuple[Column, ...]:
    return (
        Column(f"{name}_share", pl.Float64, meaning, "0..1", nullable=True),
        Column(f"{name}_share_low", pl.Float64, "lower end of its 95% interval", "0..1", True),
        Column(f"{name}_share_high", pl.Float64, "upper end of its 95% interval", "0..1", True),
    )


ROUND_SCORES = Table(
    "rows",
    "one round of a category, or of all of them together",
    (
        Column("category", pl.String, f"hand-pose category, or `{ALL}`"),
        Column("round", pl.Int64, "round; 0 is what was drawn before the first"),
        Column("prompts", pl.Int64, "detailed prompts asked for"),
        Column("usable_prompts", pl.Int64, "of those, accepted ones"),
        Column("drawn", pl.Int64, "candidates drawn"),
        Column("accepted", pl.Int64, "candidates that the verifier accepted"),
        *_share("accepted", "share of the drawn that is accepted; Wilson's interval"),
        _count("right", "drawn ones that the examiner finds right"),
        *_share("right", f"share of the drawn that is right; {NO_EXAMINER}"),
        _count("accepted_right", "accepted ones that are right"),
        *_share("accepted_right", f"share of the accepted that is right; {NO_EXAMINER}"),
        Column("slices", pl.Int64, "slices (object, skin tone, view and side) that there are"),
        Column("covered", pl.Int64, "slices with enough accepted images, up to this round"),
        Column("covered_share", pl.Float64, "share of the slices", "0..1"),
        Column(
            "denoiser_evaluations",
            pl.Int64,
            "denoiser evaluations (NFE) of its candidates and of its LoRA's guard; null where "
            "models.proposer drew",
            nullable=True,
        ),
        Column("lora", pl.String, "what became of its LoRA; null for all together", nullable=True),
    ),
    key=("category", "round"),
)


def score_rounds(
    category: Category,
    plan: RoundPlan,
    prompts: pl.DataFrame,
    candidates: pl.DataFrame,
    verdicts: pl.DataFrame,
    loras: Mapping[int, Mapping[str, Any]],
    right: Mapping[str, bool] | None,
    enough: int,
) -> list[dict[str, Any]]:
    """The counts `COUNTS` of every round of a category, from round 0.

    Args:
        prompts, candidates, verdicts: rows of `detailed_prompts`, `candidate_images` and
            `verified_pairs`.
        loras: rows of `round_loras.ROUND_LORAS` by round.
        right: by image id, whether the examiner finds the image right; None without an examiner.
        enough: accepted images from which a slice is covered.
    """
    judged = judged_prompts(category, prompts, verdicts).with_columns(asked=round_of("index"))
    judged = judged.join(
        candidates.select("image_id", "num_inference_steps", "guidance_scale", "lora_digest"),
        on="image_id",
        how="left",
    )
    rows = []
    for number in range(plan.number + 1):
        asked = prompts.filter(round_of("index") == number)
        own = judged.filter(pl.col("asked") == number)
        accepted = own.filter(pl.col("status") == "accepted")
        slices = count_slices(category, judged.filter(pl.col("asked") <= number))
        passes = pl.col("num_inference_steps") * (1 + (pl.col("guidance_scale") > 1).cast(pl.Int64))
        lora = loras.get(number, {})
        guard = lora.get("guard_evaluations", 0)
        by_lora = own["lora_digest"].null_count() == 0
        rows.append(
            {
                "category": category.key,
                "round": number,
                "prompts": asked.height,
                "usable_prompts": asked.filter(pl.col("status") == "accepted").height,
                "drawn": own.height,
                "accepted": accepted.height,
                "right": _right(right, own["image_id"]),
                "accepted_right": _right(right, accepted["image_id"]),
                "slices": slices.height,
                "covered": slices.filter(pl.col("accepted") >= enough).height,
                "denoiser_evaluations": own.select(passes.sum()).item() + guard
                if by_lora
                else None,
                "lora": lora.get("why"),
            }
        )
    return rows


def round_scores(counts: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Table `ROUND_SCORES`: shares and intervals of the counts, by category and together."""
    single = list(counts)
    together: dict[int, dict[str, Any]] = {}
    for row in single:
        blank = {"category": ALL, "round": row["round"], "lora": None} | dict.fromkeys(COUNTS, 0)
        whole = together.setdefault(row["round"], blank)
        for name in COUNTS:
            known = whole[name] is not None and row[name] is not None
            whole[name] = whole[name] + row[name] if known else None
    rows = [*single, *(together[number] for number in sorted(together))]
    return ROUND_SCORES.frame(row | _shares(row) for row in map(dict, rows))


def _shares(row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"covered_share": row["covered"] / max(1, row["slices"])}
    for name, of in (("accepted", "drawn"), ("right", "drawn"), ("accepted_right", "accepted")):
        known = row[name] is not None and row[of]
        interval = share_interval(row[name], row[of]) if known else share_interval(0, 0)
        found |= {
            f"{name}_share": interval.value,
            f"{name}_share_low": interval.low,
            f"{name}_share_high": interval.high,
        }
    return found


def _right(right: Mapping[str, bool] | None, images: pl.Series) -> int | None:
    return None if right is None else sum(right.get(one, False) for one in images)
