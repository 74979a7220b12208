"""Is the dataset good? What was rejected, and why?"""

from collections import Counter
from typing import Any

import polars as pl

from hoi_assets.engines.vilt.calibration import PAIR
from hoi_assets.engines.vilt.decision import BOTH, LOW_ALIGNMENT, LOW_FIDELITY
from hoi_assets.engines.vilt.verifier_statement import (
    describe_head,
    describe_target,
    target_met_on_test,
    whole_test,
)
from hoi_assets.evaluation.report_answers import (
    Answer,
    Bar,
    Chart,
    Tone,
    join_words,
    percent,
    percent_interval,
    share_bar,
)
from hoi_assets.evaluation.report_examiner import GAIN, clustered_share
from hoi_assets.evaluation.report_parts import Parents, find_version
from hoi_assets.evaluation.report_verdicts import (
    ACCEPTED,
    FAILED,
    REJECTED,
    choose_rejected,
    count_rejections,
    with_outlines,
)
from hoi_assets.statistics import Interval
from hoi_assets.store.versions import Published, Store

SHOWN_REJECTED = 4
NAMED_KINDS = 3
MEANING = {
    LOW_FIDELITY: "looks defective",
    LOW_ALIGNMENT: "not what the caption says",
    BOTH: "looks defective, and not what the caption says",
}


def answer_dataset(
    parents: Parents, verdicts: pl.DataFrame, examined: dict[str, Interval]
) -> Answer | None:
    """Share accepted, and the share of the accepted that is truly good; None without verdicts.

    The estimate is the examiner's, where there is one, else the verifier's precision on its test
    split. Good means that the whole interval lies at or above the verifier's target.

    Args:
        verdicts: of `read_verdicts`.
        examined: of `examine_candidates`.
    """
    accepted = verdicts.filter(pl.col("status") == ACCEPTED).height
    judged = accepted + verdicts.filter(pl.col("status") == REJECTED).height
    if not judged:
        return None
    verifier = find_version(parents, "verifier")
    summary = _summary(verifier)
    tested = whole_test(verifier.table("quality"), PAIR) if verifier is not None else None
    estimate, source, bars = _estimate(examined, tested)
    verdict, tone = _verdict(estimate, summary)
    share = percent(accepted / judged)
    sentence = f"{accepted} of {judged} candidates were accepted ({share}); "
    sentence += (
        f"of the accepted, about {percent(estimate.value)} are truly good{source}."
        if estimate is not None and estimate.value is not None
        else "how many of them are truly good was not measured."
    )
    target = summary.get("target_precision")
    known = estimate or Interval(None, None, None, 0)
    return Answer(
        key="good",
        question="Is the dataset good?",
        verdict=verdict,
        tone=tone,
        number=percent(known.value),
        what="of the accepted are good",
        interval=percent_interval(known.low, known.high),
        sentence=sentence,
        notes=(*_selection(examined), *_trust(verifier, summary, verdicts)),
        chart=Chart(
            tuple(bars),
            "0% good",
            "100%",
            None if target is None else 100 * target,
            "" if target is None else f"target {target:.0%}",
        ),
    )


def _summary(verifier: Published | None) -> dict[str, Any]:
    return {} if verifier is None else verifier.table("summary").row(0, named=True)


def _estimate(
    examined: dict[str, Interval], tested: dict[str, Any] | None
) -> tuple[Interval | None, str, list[Bar]]:
    """The estimate, where it comes from, and the lines of the chart."""
    bars = [
        share_bar(f"{status}, by the examiner", one.value, one.low, one.high, one.n)
        for status, one in examined.items()
        if status != GAIN and one.value is not None
    ]
    measured = None
    if tested is not None and tested["precision"] is not None:
        ends = (tested["precision_low"], tested["precision_high"])
        measured = Interval(tested["precision"], *ends, tested["accepted"])
        label = "accepted test pairs, by their labels"
        bars.append(share_bar(label, tested["precision"], *ends, tested["accepted"]))
    if ACCEPTED in examined:
        return examined[ACCEPTED], " by the examiner, a model that took no part in selecting", bars
    return measured, " by the verifier's precision on held-out labelled pairs", bars


def _verdict(estimate: Interval | None, summary: dict[str, Any]) -> tuple[str, Tone]:
    target = summary.get("target_precision")
    if estimate is None or estimate.low is None or estimate.high is None or target is None:
        return "Not measured", "open"
    if estimate.high < target:
        return "No", "bad"
    if estimate.low < target:
        return "Not shown", "open"
    # Half of the question was never asked.
    return ("Judged in part", "open") if summary["idle_head"] else ("Yes", "good")


def _selection(examined: dict[str, Interval]) -> tuple[str, ...]:
    """What good means, and whether the accepted are better than the rejected."""
    if not examined:
        return ()
    meaning = "Good: no defect; hand pose, object, colour and side as asked."
    gain = examined.get(GAIN)
    if gain is None or gain.value is None or gain.low is None or gain.high is None:
        return (meaning,)
    said = (
        f"Accepted less rejected: {100 * gain.value:+.0f} points "
        f"(95% interval {100 * gain.low:+.0f} to {100 * gain.high:+.0f})"
    ).replace("-", "−")
    if gain.low > 0:
        return (meaning, f"{said}: selecting helps.")
    if gain.high < 0:
        return (meaning, f"{said}: what was rejected is better.")
    return (meaning, f"{said}: that selecting helps is not shown.")


def _trust(
    verifier: Published | None, summary: dict[str, Any], verdicts: pl.DataFrame
) -> tuple[str, ...]:
    """What must be said beside the estimate: heads that judge nothing, a target that is missed."""
    if verifier is None:
        return ()
    quality = verifier.table("quality")
    notes = []
    if summary["idle_head"]:
        notes.append(describe_head(summary["idle_head"], summary, quality))
    if not target_met_on_test(summary, quality) or not summary["target_met"]:
        notes.append(describe_target(summary, quality))
    others = verdicts.filter(pl.col("verifier_version") != verifier.version).height
    if others:
        notes.append(f"{others} verdicts are by other versions of the verifier than this one.")
    return tuple(notes)


def answer_rejected(store: Store, parents: Parents, verdicts: pl.DataFrame) -> Answer | None:
    """Share and reasons of the rejected, with pictures; None without verdicts."""
    judged = verdicts.filter(pl.col("status").is_in([ACCEPTED, REJECTED]))
    if judged.is_empty():
        return None
    flags = (judged["status"] == REJECTED).to_list()
    # Where a version does not name its prompts, every picture counts as one.
    prompts = judged.select(pl.coalesce("prompt_id", "image_id")).to_series().to_list()
    share = clustered_share(flags, prompts)
    reasons = count_rejections(verdicts)
    idle = _summary(find_version(parents, "verifier")).get("idle_head")
    # Verdicts of an earlier verifier, whose head did judge.
    idle = None if any(idle in reason for reason in reasons if idle) else idle
    failed = verdicts.filter(pl.col("status") == FAILED).height
    notes = []
    if idle is not None:
        notes.append(f"{idle.capitalize()} is not judged: that head rejects nothing.")
    if failed:
        notes.append(f"{failed} further candidates could not be drawn.")
    chosen = choose_rejected(verdicts, SHOWN_REJECTED)
    if chosen["defect_map"].is_not_null().any():
        notes.append("Outlined: where the verifier sees a defect.")
    return Answer(
        key="rejected",
        question="What was rejected, and why?",
        verdict=f"{idle.capitalize()} not judged" if idle else f"{sum(flags)} rejected",
        tone="bad" if idle else "open",
        number=percent(share.value),
        what="rejected",
        interval=percent_interval(share.low, share.high),
        sentence=_reasons(sum(flags), len(flags), reasons),
        notes=tuple(notes),
        pictures=with_outlines(store, chosen.to_dicts()),
    )


def _reasons(rejected: int, judged: int, reasons: dict[str, Counter[str]]) -> str:
    if not rejected:
        return f"None of {judged} candidates was rejected."
    named = []
    for reason, kinds in reasons.items():
        seen = [f"{spell(kind)} {n}" for kind, n in kinds.most_common(NAMED_KINDS) if kind]
        meaning = ": ".join(part for part in (MEANING.get(reason, ""), ", ".join(seen)) if part)
        named.append(f"{kinds.total()} for {spell(reason)}" + (f" ({meaning})" if meaning else ""))
    return f"{rejected} of {judged} candidates were rejected: {join_words(named)}."


def spell(label: str) -> str:
    """A code as words.

    >>> spell("low_fidelity: extra_finger")
    'low fidelity: extra finger'
    """
    return label.replace("_", " ")
