"""Tables of votes and of scores for the tests of human ratings."""

from collections.abc import Iterable
from typing import Any

import polars as pl

from hoi_assets.rating.vote_tables import VOTE_ROWS


def table(rows: Iterable[dict[str, Any]]) -> pl.DataFrame:
    """Votes with what a test does not name filled in."""
    filled = [
        {
            "study": "s",
            "line": line,
            "status": "accepted",
            "rater": "anna",
            "question": "q",
            "repeat": False,
            "scenario": "functional",
        }
        | row
        for line, row in enumerate(rows, start=1)
    ]
    return pl.DataFrame(filled, schema=VOTE_ROWS.schema)


def rated(prompt: str, method: str, score: int, **more: Any) -> dict[str, Any]:
    image = f"{prompt}-{method}"
    return {
        "mode": "rating",
        "prompt_id": prompt,
        "item": image,
        "image_a": image,
        "method_a": method,
        "score": score,
    } | more


def compared(prompt: str, a: str, b: str, choice: str, **more: Any) -> dict[str, Any]:
    return {
        "mode": "pairwise",
        "prompt_id": prompt,
        "item": f"{prompt}-{a}-{b}",
        "image_a": f"{prompt}-{a}",
        "image_b": f"{prompt}-{b}",
        "method_a": a,
        "method_b": b,
        "choice": choice,
    } | more


def scores_of(values: dict[tuple[str, str], float | None], metric: str = "m") -> pl.DataFrame:
    rows = [
        {"prompt_id": prompt, "image": image, "metric": metric, "value": value}
        for (prompt, image), value in values.items()
    ]
    return pl.DataFrame(rows, schema_overrides={"value": pl.Float64})
