"""Hostile files, texts, requests and answers, and canary keys through runs full of errors.

Each attack goes through the door that a user or a server has. It survives if it is refused or
shown as plain text, within bounds of time and memory, and nothing outside was read or written.
"""

import random
import re
from collections.abc import Iterator
from pathlib import Path

from proofs.bounds import attempt
from proofs.campaign import Campaign, Trial
from proofs.canaries import CANARIES
from proofs.hostile_files import FILES
from proofs.hostile_models import MODELS
from proofs.hostile_requests import REQUESTS
from proofs.hostile_texts import TEXTS

ATTACKS = (*FILES, *MODELS, *REQUESTS, *TEXTS, *CANARIES)


def run(folder: Path, seed: int, trials: int | None) -> Iterator[Trial]:
    attacks = list(ATTACKS)
    if trials is not None:
        attacks = random.Random(seed).sample(attacks, min(trials, len(attacks)))
    for number, attack in enumerate(attacks):
        name = re.sub(r"\W+", "_", attack.name)[:40]
        yield attempt(attack, folder / f"{number}_{name}")


CAMPAIGN = Campaign(
    "hostile",
    "nothing from outside is run, followed, believed or shown as more than text; no key is kept",
    run,
)
