"""Does fine-tuning help? Does refinement help?"""

from typing import Any, Literal

import polars as pl

from hoi_assets.evaluation.report_answers import Answer, Bar, Chart, Tone, join_words
from hoi_assets.evaluation.report_parts import Parents, find_version
from hoi_assets.evaluation.scorecards import ALL
from hoi_assets.statistics import holm
from hoi_assets.store.versions import Published

Effect = Literal["better", "worse", "open"]
Row = dict[str, Any]

LEVEL = 0.05
NO_DIFFERENCE = "No difference shown"
INCLUDES_ZERO = "the interval includes zero"
BASE, DREAMBOOTH, FINETUNED = "base", "dreambooth", "finetuned"
DETAILSCRIBE, MULTI_SEED = "detailscribe", "multi_seed"
# Baselines that may spend what DetailScribe spends (see detailscribe/baselines/compute.py).
EQUAL_COMPUTE = (MULTI_SEED, "multi_seed_clip", "rewrite", "refine")
# Best first: judges that took no part in selecting or training.
HOI_METRICS = ("examiner_all", "image_reward", "clip_score")
INTERACTING_METRICS = ("examiner_components", "blip_vqa", "image_reward", "clip_score")
SHARES = ("examiner_all", "examiner_components")
MEANING = {
    "examiner_all": "pictures right in every respect, by the examiner",
    "examiner_components": "components shown, by the component examiner",
    "blip_vqa": "BLIP-VQA",
    "image_reward": "ImageReward",
    "clip_score": "CLIPScore",
}
NAMES = {
    BASE: "the base model",
    DREAMBOOTH: "the DreamBooth ensemble",
    MULTI_SEED: "more seeds",
    "multi_seed_clip": "more seeds by CLIPScore",
    "rewrite": "a rewritten prompt",
    "refine": "a refined prompt",
    "plain": "the plain image",
}


def answer_finetuning(parents: Parents) -> Answer | None:
    """Fine-tuned less base on held-out prompts; None where they were not compared."""
    rows, metric = _compared(find_version(parents, "hoi_scorecards"), FINETUNED, HOI_METRICS)
    by_place = {(row["suite"], row["method_b"]): row for row in rows}
    main = by_place.get(("hoi", BASE))
    if main is None:
        return None
    found = effect(main, main["p"])
    said = {
        "better": f"Fine-tuning helps on {main['n']} held-out prompts",
        "worse": f"Fine-tuning hurts on {main['n']} held-out prompts",
        "open": f"No difference can be shown between the fine-tuned and the base model on "
        f"{main['n']} held-out prompts",
    }[found]
    notes = []
    general = by_place.get(("general", BASE))
    if general is not None:
        word = {"better": "get better", "worse": "get worse", "open": "show no difference"}
        notes.append(
            f"General prompts {word[effect(general, general['p'])]}: "
            f"{_difference(general, metric)}, n = {general['n']}."
        )
    labels = {
        ("hoi", BASE): "vs. the base model",
        ("hoi", DREAMBOOTH): "vs. the DreamBooth ensemble",
        ("general", BASE): "vs. the base model, general prompts",
    }
    shown = [(label, by_place[key]) for key, label in labels.items() if key in by_place]
    verdicts: dict[Effect, tuple[str, Tone]] = {
        "better": ("Yes", "good"),
        "worse": ("No, it hurts", "bad"),
        "open": (NO_DIFFERENCE, "open"),
    }
    verdict, tone = verdicts[found]
    return Answer(
        key="finetuning",
        question="Does fine-tuning help?",
        verdict=verdict,
        tone=tone,
        number=_amount(main["difference"], metric),
        what="fine-tuned vs. base",
        interval=_interval(main, metric),
        sentence=f"{said}: {_why(main, main['p'])}.",
        notes=(f"Difference in {MEANING[metric]}.", *notes),
        chart=_chart(shown, metric),
    )


def answer_refinement(parents: Parents) -> Answer | None:
    """DetailScribe's selected image less each baseline's; None where they were not compared."""
    published = find_version(parents, "interacting_scorecards")
    rows, metric = _compared(published, DETAILSCRIBE, INTERACTING_METRICS)
    fair = [row for name in EQUAL_COMPUTE for row in rows if row["method_b"] == name]
    if published is None or not fair:
        return None
    corrected = holm([row["p"] for row in fair])
    effects = [effect(row, p) for row, p in zip(fair, corrected, strict=True)]
    verdict, tone = _over_baselines(effects)
    compute = dict(published.table("scorecard").select("method", "compute").unique().rows())
    shown = [
        (f"vs. {_name(row['method_b'])} ({_spent(compute.get(row['method_b'], ''))})", row)
        for row in fair
    ]
    main = fair[0]
    notes = [
        f"Difference in {MEANING[metric]}; p is corrected for {len(fair)} baselines (Holm).",
    ]
    if own := compute.get(DETAILSCRIBE):
        notes.append(
            f"DetailScribe spent {_spent(own)} (denoiser evaluations a prompt); the "
            "baselines had the same budget."
        )
    return Answer(
        key="refinement",
        question="Does refinement help?",
        verdict=verdict,
        tone=tone,
        number=_amount(main["difference"], metric),
        what=f"DetailScribe vs. {_name(main['method_b'])}",
        interval=_interval(main, metric),
        sentence=_sentence(fair, effects, corrected),
        notes=tuple(notes),
        chart=_chart(shown, metric),
    )


def effect(row: Row, p: float | None) -> Effect:
    """Whether a difference is shown: its interval excludes zero, and p is under 5%.

    Either alone is not enough: with few prompts the bootstrap's interval is too narrow.
    """
    low, high = row["ci_low"], row["ci_high"]
    if low is None or high is None or p is None or p >= LEVEL:
        return "open"
    return "better" if low > 0 else "worse" if high < 0 else "open"


def _compared(
    published: Published | None, method: str, metrics: tuple[str, ...]
) -> tuple[list[Row], str]:
    """Comparisons of the method on all prompts by the first metric there is, and that metric."""
    if published is None:
        return [], ""
    table = published.table("comparisons").filter(
        (pl.col("slice_kind") == ALL)
        & (pl.col("method_a") == method)
        & pl.col("difference").is_not_null()
    )
    metric = next((name for name in metrics if name in table["metric"]), "")
    return table.filter(pl.col("metric") == metric).to_dicts(), metric


def _over_baselines(effects: list[Effect]) -> tuple[str, Tone]:
    if "worse" in effects:
        return ("Mixed", "bad") if "better" in effects else ("No, it hurts", "bad")
    if "better" in effects:
        return ("Yes", "good") if set(effects) == {"better"} else ("In part", "open")
    return NO_DIFFERENCE, "open"


def _sentence(fair: list[Row], effects: list[Effect], corrected: list[float | None]) -> str:
    """What DetailScribe is better and worse than, and of what no difference can be shown."""
    names = {
        kind: [
            _name(row["method_b"]) for row, own in zip(fair, effects, strict=True) if own == kind
        ]
        for kind in ("better", "worse", "open")
    }
    said = [
        f"DetailScribe is {kind} than {join_words(names[kind])}"
        for kind in ("better", "worse")
        if names[kind]
    ]
    if names["open"]:
        every = len(names["open"]) == len(fair) > 1
        whom = f"any of {len(fair)} baselines" if every else join_words(names["open"])
        why = _why_none(fair, corrected) if every else ""
        said.append(f"no difference can be shown between DetailScribe and {whom}{why}")
    text = "At equal compute, " + "; ".join(said) + "."
    return text.replace("compute, DetailScribe", "compute DetailScribe")


def _why_none(fair: list[Row], corrected: list[float | None]) -> str:
    """Why no baseline differs: one reason where all have the same."""
    reasons = {_why(row, p) for row, p in zip(fair, corrected, strict=True)}
    return ": every interval includes zero" if reasons == {INCLUDES_ZERO} else ""


def _why(row: Row, p: float | None) -> str:
    low, high = row["ci_low"], row["ci_high"]
    if low is None or high is None or p is None:
        return f"n = {row['n']} is too few for an interval"
    if low <= 0 <= high:
        return INCLUDES_ZERO
    if p >= LEVEL:
        return f"the interval excludes zero, but p = {p:.2f} with n = {row['n']}"
    return f"the interval excludes zero, p = {p:.3f}"


def _chart(shown: list[tuple[str, Row]], metric: str) -> Chart:
    """Differences on an axis around zero."""
    ends = [abs(row[name] or 0) for _, row in shown for name in ("ci_low", "ci_high", "difference")]
    least = 0.1 if metric in SHARES else 0.01
    reach = 1.05 * max([least, *ends])

    def place(value: float | None) -> float | None:
        return None if value is None else 50 + 50 * value / reach

    bars = tuple(
        Bar(
            label,
            f"{_amount(row['difference'], metric)}, n = {row['n']}",
            50 + 50 * row["difference"] / reach,
            place(row["ci_low"]),
            place(row["ci_high"]),
        )
        for label, row in shown
    )
    return Chart(bars, "worse", "better", 50, "no difference")


def _amount(value: float, metric: str) -> str:
    """With its sign; shares in percentage points."""
    text = f"{100 * value:+.0f} points" if metric in SHARES else f"{value:+.2f}"
    return text.replace("-", "−").replace("+0 ", "0 ").replace("−0 ", "0 ")


def _interval(row: Row, metric: str) -> str:
    if row["ci_low"] is None or row["ci_high"] is None:
        return f"no interval: n = {row['n']}"
    if row["ci_low"] == row["ci_high"] == 0:
        return f"95% interval 0 to 0: equal on all {row['n']} prompts"
    low, high = _amount(row["ci_low"], metric), _amount(row["ci_high"], metric)
    return f"95% interval {low.removesuffix(' points')} to {high}"


def _difference(row: Row, metric: str) -> str:
    return f"{_amount(row['difference'], metric)} ({_interval(row, metric)})"


def _name(method: str) -> str:
    return NAMES.get(method, method.replace("_", " "))


def _spent(compute: str) -> str:
    return compute.replace("denoiser evaluations (NFE) a prompt", "NFE") or "compute unknown"
