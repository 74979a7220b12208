"""Rounds in the tiny world: acceptance, the examiner's truth and coverage, round by round.

    python -m benchmarks.rounds [CATEGORY …] [--rounds 3] [--home FOLDER] [--write]

Runs `hoi round` for the first pass and for each round, in a home of its own or in a copy of
`--home`, whose pictures, LoRAs and verifier are then found. Prints the table of
`round_scorecards`; `--write` puts it into docs/rounds.md, and the plot beside it. It takes an hour
or more on two cores, so it is none of `python -m benchmarks`.
"""

import argparse
import io
import re
import shutil
import tempfile
from pathlib import Path

import polars as pl
from PIL import Image

from benchmarks.common import hoi, write_profile
from hoi_assets.charts import round_curves
from hoi_assets.ppv.round_loras import lora_outcomes
from hoi_assets.settings import ROOT
from hoi_assets.store.versions import Store

CATEGORIES = ("power_sphere", "index_press", "worn")
PAGE, PLOT = ROOT / "docs" / "rounds.md", ROOT / "docs" / "rounds.webp"
SHOWN = "![Share accepted, right of the accepted, and slices covered, by round](rounds.webp)"
FIGURES = re.compile(r"(<!-- figures -->\n).*(<!-- end of figures -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rounds", description=__doc__)
    parser.add_argument("categories", nargs="*", default=CATEGORIES, metavar="CATEGORY")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--home", type=Path, help="a home of the tiny profile to begin from")
    parser.add_argument("--write", action="store_true", help="into docs/rounds.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        home = folder / "home"
        if arguments.home is not None:
            shutil.copytree(arguments.home, home, symlinks=True)
        # The name is the home's, so that one of the tiny profile can be gone on from.
        profile = write_profile(folder, {"profile": "tiny"})
        done = -1
        while done < arguments.rounds:
            seconds = hoi(home, profile, "round", *arguments.categories)
            store = Store(home)
            scores = store.require("round_scorecards").table("rows")
            done = max(scores["round"].to_list(), default=0)
            print(f"round {done}: {seconds:.0f} s", flush=True)
            if not scores.is_empty():
                report(store, scores, arguments.categories, arguments.write)


def report(store: Store, rows: pl.DataFrame, categories: list[str], write: bool) -> None:
    """Print the scores so far; `write` puts them into the page."""
    text = f"{score_table(rows)}\n\n{lora_table(store, categories)}\n"
    print(text, flush=True)
    if write:
        page = PAGE.read_text(encoding="utf-8")
        changed = FIGURES.sub(lambda match: f"{match[1]}{text}\n{SHOWN}\n{match[2]}", page)
        PAGE.write_text(changed, encoding="utf-8")
        save_plot(round_curves(rows), PLOT)


def score_table(rows: pl.DataFrame) -> str:
    """Rows of `round_scorecards` as Markdown."""
    lines = [
        "| category | round | drawn | accepted | share accepted | right, of the accepted | "
        "right, of the drawn | slices covered | NFE |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows.iter_rows(named=True):
        cells = (
            row["category"],
            row["round"],
            row["drawn"],
            row["accepted"],
            _interval(row, "accepted_share"),
            _interval(row, "accepted_right_share"),
            _interval(row, "right_share"),
            f"{row['covered']} of {row['slices']}",
            row["denoiser_evaluations"],
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def lora_table(store: Store, categories: list[str]) -> str:
    """What became of each round's LoRA, as Markdown; differences of CLIPScore with intervals."""
    lines = [
        "| category | round | instance images | general prompts | other categories | LoRA |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for key in categories:
        published = store.current("category_loras", key)
        outcomes = {} if published is None else lora_outcomes(published)
        for number, row in sorted(outcomes.items()):
            if number:
                kinds = (_difference(row, kind) for kind in ("general", "others"))
                cells = (key, number, row["instance_images"], *kinds, row["why"])
                lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def save_plot(png: bytes, path: Path) -> None:
    """Save a plot as WebP."""
    Image.open(io.BytesIO(png)).convert("RGB").save(path, "WEBP", quality=85, method=6)


def _difference(row: dict[str, object], kind: str) -> str:
    if row[f"{kind}_difference"] is None:
        return "–"
    low, high = row[f"{kind}_low"], row[f"{kind}_high"]
    return f"{row[f'{kind}_difference']:+.3f} ({low:+.3f} to {high:+.3f})"


def _interval(row: dict[str, float | None], name: str) -> str:
    if row[name] is None:
        return "–"
    return f"{row[name]:.2f} ({row[f'{name}_low']:.2f} – {row[f'{name}_high']:.2f})"


if __name__ == "__main__":
    main()
