"""Cards (README.md) of exports."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from hoi_assets.export.pairs import PAIR_COLUMNS, REJECTED, Pairs

TEMPLATES = Path(__file__).parent / "templates"
SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
SIZE_NAMES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M")


def render(template: str, values: Mapping[str, Any]) -> str:
    """A template of this package, filled in."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)


def size_category(rows: int) -> str:
    """The hub's name for the size of a dataset.

    Example:
        >>> size_category(12_000)
        '10K<n<100K'
    """
    return SIZE_NAMES[sum(rows >= size for size in SIZES)]


def dataset_card(pairs: Pairs, kind: str) -> str:
    """The card of an exported dataset.

    Args:
        kind: dataset or webdataset.
    """
    counts = pairs.counts()
    rates = pairs.rates.filter(pl.col("category") == "all")
    return render(
        "pairs.md.j2",
        {
            "kind": kind,
            "counts": counts,
            "total": sum(counts.values()),
            "size": size_category(sum(counts.values())),
            "rates": rates.to_dicts(),
            "columns": PAIR_COLUMNS,
            "rejected_columns": list(REJECTED.schema),
            "any_rejected": next(iter(pairs.rejected()), None) is not None,
            "statements": pairs.statements,
            "versions": dict(sorted(pairs.made_from.items())),
        },
    )
