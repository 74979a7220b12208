"""Names the inputs of a property; `check` tries it with them as often as one likes."""

from collections.abc import Callable
from typing import Any

from hypothesis.strategies import SearchStrategy

Tried = Callable[..., None]


def for_all(*strategies: SearchStrategy[Any]) -> Callable[[Tried], Tried]:
    """Like hypothesis's `given`, which fixes seed and number of examples once and for all."""

    def declare(tried: Tried) -> Tried:
        tried.strategies = strategies  # type: ignore[attr-defined]
        return tried

    return declare
