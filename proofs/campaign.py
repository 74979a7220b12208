"""What a campaign is: many trials, each of which the platform survives or loses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Trial:
    """One attempt to break something.

    Attributes:
        name: what was tried, e.g. "SIGKILL after 3.2 s in publish".
        fault: what was lost, in one line; empty where the platform survived.
    """

    name: str
    fault: str = ""


@dataclass(frozen=True)
class Campaign:
    """Trials of one kind.

    Attributes:
        promise: what holds while every trial survives, in one sentence.
        run: given an empty folder, a seed and how many trials to make (None: the campaign's own
            number), makes them one after the other. What it raises counts as a lost trial.
    """

    name: str
    promise: str
    run: Callable[[Path, int, int | None], Iterator[Trial]]
