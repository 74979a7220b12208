"""What a check found, and how an error becomes a finding."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from hoi_assets.errors import HoiError

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        area: device, disk, home, models, licences, trainings, endpoints, photos or prompts.
        subject: what was looked at, e.g. a model's entry or a category.
        state: a problem stops the run or a part of it; a warning does not.
        what: what was found.
        remedy: what to do; null where nothing is wrong.
    """

    area: str
    subject: str
    state: State
    what: str
    remedy: str | None = None


def ok(area: str, subject: str, what: str) -> Finding:
    """A finding where nothing is wrong."""
    return Finding(area, subject, "ok", what)


def warning(area: str, subject: str, what: str, remedy: str) -> Finding:
    """A finding that stops nothing."""
    return Finding(area, subject, "warning", what, remedy)


def problem(area: str, subject: str, what: str, remedy: str) -> Finding:
    """A finding that stops the run, or a part of it."""
    return Finding(area, subject, "problem", what, remedy)


def guarded(area: str, subject: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a check; a HoiError in it is a problem, and the other checks go on."""
    try:
        yield from check()
    except HoiError as error:
        yield problem(area, subject, error.what, error.remedy)
