"""The top of the report: four questions, each with a sentence, a number and a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Tone = Literal["good", "bad", "open"]


@dataclass(frozen=True)
class Bar:
    """An estimate with its interval, as a line of a chart.

    Attributes:
        at, low, high: places on the chart, in percent of its width; low and high are None without
            an interval.
        text: the figures.
    """

    label: str
    text: str
    at: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Chart:
    """Estimates with intervals on one axis.

    Attributes:
        left, right: what the ends of the axis say.
        mark: place of the reference line, in percent; None without one. `mark_label` names it.
    """

    bars: tuple[Bar, ...]
    left: str
    right: str
    mark: float | None = None
    mark_label: str = ""


@dataclass(frozen=True)
class Answer:
    """An answer that can be read at a glance.

    Attributes:
        verdict: the answer in a word or two; `tone` colours it.
        number, interval: the figure that the answer rests on, and its 95% interval; `what` says
            what it counts.
        notes: what limits the answer.
        pictures: of `with_outlines`; shown where there is no chart.
    """

    key: str
    question: str
    verdict: str
    tone: Tone
    number: str
    what: str
    interval: str
    sentence: str
    notes: tuple[str, ...] = ()
    chart: Chart | None = None
    pictures: Sequence[dict[str, Any]] = ()


def percent(share: float | None) -> str:
    """A share as a whole percentage; a dash for None.

    >>> percent(0.238), percent(None)
    ('24%', '–')
    """
    return "–" if share is None else f"{share:.0%}"


def percent_interval(low: float | None, high: float | None) -> str:
    """The interval of a share, in words.

    >>> percent_interval(0.17, 0.32)
    '95% interval 17% to 32%'
    """
    if low is None or high is None:
        return "no interval: too few pictures"
    return f"95% interval {low:.0%} to {high:.0%}"


def share_bar(label: str, value: float, low: float | None, high: float | None, n: int) -> Bar:
    """A line of a chart from 0% to 100%."""
    ends = (None, None) if low is None or high is None else (100 * low, 100 * high)
    return Bar(label, f"{value:.0%}, n = {n}", 100 * value, *ends)


def join_words(words: Sequence[str]) -> str:
    """A list in a sentence.

    >>> join_words(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
