"""The rounds of every hand pose as a table."""

from typing import TYPE_CHECKING, Any

from hoi_assets.store.versions import Store
from hoi_assets.text import aligned

if TYPE_CHECKING:
    from rich.console import Console

NOTHING = "–"
HEAD = ("category", "round", "drawn", "accepted", "right, of the accepted", "slices covered", "NFE")


def find_rounds(store: Store) -> list[dict[str, Any]]:
    """Rows of `round_scorecards`; none where no category has had a round."""
    published = store.current("round_scorecards")
    return [] if published is None else published.table("rows").to_dicts()


def round_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of `round_scorecards` under `HEAD`."""
    return (
        row["category"],
        str(row["round"]),
        str(row["drawn"]),
        f"{row['accepted']} ({_interval(row, 'accepted_share')})",
        _interval(row, "accepted_right_share"),
        f"{row['covered']} of {row['slices']}",
        NOTHING if row["denoiser_evaluations"] is None else str(row["denoiser_evaluations"]),
    )


def print_rounds(store: Store) -> None:
    """Print the rounds as text, and what became of each LoRA."""
    rows = find_rounds(store)
    if not rows:
        print("no category has had a round yet; ask for the first once there are verdicts")
        return
    print(aligned([HEAD, *map(round_cells, rows)]))
    for row in rows:
        if row["round"] and row["lora"]:
            print(f"LoRA of {row['category']}, round {row['round']}: {row['lora']}")


def add_rounds(console: "Console", rows: list[dict[str, Any]]) -> None:
    """Print the rounds as a table of `hoi summary`."""
    from rich.table import Table

    table = Table(*HEAD)
    for row in rows:
        table.add_row(*round_cells(row))
    console.print(table)


def _interval(row: dict[str, Any], name: str) -> str:
    if row[name] is None:
        return NOTHING
    return f"{row[name]:.2f}, {row[f'{name}_low']:.2f} – {row[f'{name}_high']:.2f}"
