"""A pair's verdict: its two probabilities against the verifier's thresholds."""

from dataclasses import dataclass
from typing import Literal

from hoi_assets.engines.vilt.verifier import Thresholds

LOW_FIDELITY = "low_fidelity"
LOW_ALIGNMENT = "low_alignment"
BOTH = "low_fidelity_and_alignment"
REASONS = (LOW_FIDELITY, LOW_ALIGNMENT, BOTH)


@dataclass(frozen=True)
class PairVerdict:
    """`reason` is None when accepted, else one of REASONS."""

    status: Literal["accepted", "rejected"]
    reason: str | None


def decide(p_fidelity: float, p_alignment: float, thresholds: Thresholds) -> PairVerdict:
    """Accept a pair when both probabilities reach their thresholds.

    >>> decide(0.9, 0.2, Thresholds(0.5, 0.5))
    PairVerdict(status='rejected', reason='low_alignment')
    """
    faithful = p_fidelity >= thresholds.fidelity
    aligned = p_alignment >= thresholds.alignment
    if faithful and aligned:
        return PairVerdict("accepted", None)
    return PairVerdict("rejected", LOW_ALIGNMENT if faithful else LOW_FIDELITY if aligned else BOTH)


def verdict_label(status: str, reason: str | None, defect_kind: str | None) -> str:
    """A verdict in a few words: its status, or the reason with the kind of defect.

    >>> verdict_label("rejected", "low_fidelity", "extra_finger")
    'low_fidelity: extra_finger'
    >>> verdict_label("accepted", None, "extra_finger")
    'accepted'
    """
    if reason is None:
        return status
    return f"{reason}: {defect_kind}" if defect_kind and blames_fidelity(reason) else reason


def blames_fidelity(reason: str | None) -> bool:
    """Whether a verdict's reason is, or holds, too low a fidelity."""
    return (reason or "").startswith(LOW_FIDELITY)
