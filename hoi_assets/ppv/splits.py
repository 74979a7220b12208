"""Train, validation and test splits that stay stable as base prompts are added."""

import hashlib
from collections.abc import Iterable

SPLITS = ("train", "validation", "test")


def split_by_base_prompt(
    base_prompt_ids: Iterable[str],
    validation_share: float,
    test_share: float,
    seed: int = 0,
) -> dict[str, str]:
    """Assign each base prompt to train, validation or test.

    An id's place in 0..1 is the hash of (seed, id): test below `test_share`, then validation, then
    train. So adding base prompts moves none of the others, with one exception: an empty split takes
    the base prompt nearest to its range from the largest split, if there are at least three.

    Returns:
        By base prompt id: train, validation or test. Fewer than three ids are all train.
    """
    places = {name: _place(seed, name) for name in sorted(set(base_prompt_ids))}
    if len(places) < len(SPLITS):
        return dict.fromkeys(places, SPLITS[0])
    bounds = {
        "test": (0.0, test_share),
        "validation": (test_share, test_share + validation_share),
        "train": (test_share + validation_share, 1.0),
    }
    split = {
        name: next((s for s, (low, high) in bounds.items() if low <= place < high), "train")
        for name, place in places.items()
    }
    for empty in bounds:
        if empty in split.values():
            continue
        members = [[name for name, own in split.items() if own == other] for other in bounds]
        largest = sorted(members, key=len)[-1]
        middle = sum(bounds[empty]) / 2
        nearest = min(largest, key=lambda name: abs(places[name] - middle))
        split[nearest] = empty
    return split


def _place(seed: int, name: str) -> float:
    return int(hashlib.sha256(f"{seed}\n{name}".encode()).hexdigest()[:13], 16) / 16**13
