"""Properties of store, cache keys, grammar, schedule and reply parser, on random examples."""

from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

from hoi_assets_tests.properties import PROPERTIES, check
from proofs.campaign import Campaign, Trial

# Each a batch of examples with a seed of its own.
BATCHES = 10


def run(folder: Path, seed: int, trials: int | None) -> Iterator[Trial]:
    batches = ((number, name) for number in count() for name in PROPERTIES)
    wanted = BATCHES * len(PROPERTIES) if trials is None else trials
    for number, name in islice(batches, wanted):
        examples = PROPERTIES[name][1]
        yield _try(name, examples, seed * BATCHES + number)


def _try(name: str, examples: int, seed: int) -> Trial:
    what = f"{name}, {examples} examples of seed {seed}"
    try:
        check(name, examples, seed)
    except Exception as error:  # an assertion, or whatever the code raised
        return Trial(what, " ".join(f"{type(error).__name__}: {error}".split())[:500])
    return Trial(what)


CAMPAIGN = Campaign(
    "properties",
    "what holds for some inputs holds for all that hypothesis finds",
    run,
)
