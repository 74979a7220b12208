"""SIGKILL at chosen and at random instants.

At any change that a process makes to files and databases, in a little of everything that is written
to a home; and in both pipelines, at chosen instants and at random times.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from proofs.campaign import Campaign, Trial
from proofs.children import FEW, MANY, Instant, preload, start
from proofs.crash_pipelines import pipeline_trials
from proofs.homes import content_of, fault_of
from proofs.small_work import fault_of_votes, small_work

TRIALS = 140
PIPELINE_SHARE = 0.6
# Fewer trials than that are not worth the unbroken runs of the pipelines.
PIPELINES_FROM = 20


def _run(folder: Path, seed: int, trials: int | None) -> Iterator[Trial]:
    wanted = TRIALS if trials is None else trials
    kills = round(PIPELINE_SHARE * wanted) if wanted >= PIPELINES_FROM else 0
    preload("proofs.small_work", *FEW, *(MANY if kills else ()))
    chance = np.random.default_rng(seed)
    yield from _small_trials(folder.resolve() / "small", chance, wanted - kills)
    if kills:
        yield from pipeline_trials(folder.resolve() / "pipelines", seed, kills)


def _small_trials(folder: Path, chance: np.random.Generator, kills: int) -> Iterator[Trial]:
    """So many of the changes that the small work makes, each the last before a SIGKILL."""
    folder.mkdir()
    whole, listed = folder / "whole", folder / "changes"
    child = start(small_work, (whole,), folder / "whole.log", listed=listed)
    if child.wait():
        raise RuntimeError(f"the unbroken work failed: {child.printed[-1000:]}")
    expected = content_of(whole)
    changes = listed.read_text(encoding="utf-8").splitlines()
    places = chance.choice(len(changes), min(kills, len(changes)), replace=False)
    for place in sorted(int(one) for one in places):
        home, log = folder / f"{place}", folder / f"{place}.log"
        name = f"SIGKILL before change {place + 1} of {len(changes)}: {changes[place]}"
        killed = start(small_work, (home,), log, instant=Instant("", ".", place + 1)).wait()
        if killed != -signal.SIGKILL:
            yield Trial(name, f"ended with {killed}")
            continue
        again = start(small_work, (home,), log)
        if again.wait():
            yield Trial(name, f"does not go on: {again.printed[-300:]}")
        else:
            yield Trial(name, fault_of(home, expected) or fault_of_votes(home))


CAMPAIGN = Campaign(
    "crash",
    "killed at any moment, a run resumes to the content of an unbroken one, leaves nothing behind, "
    "and makes nothing twice beyond the batch in flight",
    _run,
)
