"""The README's pictures of verdicts and variants, from a home of `make run-all`.

    python -m benchmarks.readme_pictures

Hand poses, candidates and prompts are chosen at random, with a fixed seed.
"""

import random
from typing import Any

import polars as pl
from PIL import Image

from hoi_assets.engines.vilt.decision import blames_fidelity
from hoi_assets.map_overlay import outlined
from hoi_assets.pictures import contact_sheet, to_webp
from hoi_assets.settings import ROOT, home_folder
from hoi_assets.store.versions import Store

SEED = 0
POSES, ACCEPTED, REJECTED = 6, 2, 1
POSES_PER_ROW = 2
PROMPTS = 2
MAX_BYTES = 130_000


def main() -> None:
    """Write `docs/verdicts.webp` and `docs/refined.webp`."""
    store = Store(home_folder())
    for name, sheet in (("verdicts", verdicts(store)), ("refined", refined(store))):
        if sheet is None:
            print(
                f"{name}: the critic preferred no variant; set interacting.rows_per_scenario higher"
            )
            continue
        path = ROOT / "docs" / f"{name}.webp"
        path.write_bytes(to_webp(sheet, MAX_BYTES))
        print(f"{path.relative_to(ROOT)}: {sheet.size}")


def verdicts(store: Store) -> Image.Image:
    """Candidates of some hand poses: accepted ones in green, rejected ones in red frames, with an
    outline where the verifier sees a defect."""
    chance = random.Random(SEED)
    tables = [table for table in _tables(store, "verified_pairs") if _has_enough(table)]
    rows: list[dict[str, Any]] = []
    poses = sorted(chance.sample(tables, POSES), key=lambda table: table["category"][0])
    for start in range(0, POSES, POSES_PER_ROW):
        among = poses[start : start + POSES_PER_ROW]
        for status, count in (("accepted", ACCEPTED), ("rejected", REJECTED)):
            for table in among:
                of_status = table.filter(pl.col("status") == status).to_dicts()
                rows += chance.sample(of_status, count)
    columns = POSES_PER_ROW * (ACCEPTED + REJECTED)
    pictures = [_judged(store, row) for row in rows]
    good = [row["status"] == "accepted" for row in rows]
    return contact_sheet(pictures, [row["prompt"] for row in rows], columns, 192, good)


def _has_enough(table: pl.DataFrame) -> bool:
    counts = dict(table.group_by("status").len().iter_rows())
    return counts.get("accepted", 0) >= ACCEPTED and counts.get("rejected", 0) >= REJECTED


def _judged(store: Store, row: dict[str, Any]) -> Image.Image:
    picture = store.images.open(row["pixels"])
    if row["defect_map"] is None or not blames_fidelity(row["reason"]):
        return picture
    return outlined(picture, store.images.open(row["defect_map"]))


def refined(store: Store) -> Image.Image | None:
    """Initial pictures and their variants, of prompts for which the critic preferred a variant: a
    green frame marks its choice. None where there is no such prompt."""
    chance = random.Random(SEED)
    pictures, labels, good, columns = [], [], [], 1
    for table in _tables(store, "refined_images"):
        drawn = table.filter(pl.col("method") == "detailscribe")
        changed = drawn.filter(pl.col("selected") & (pl.col("candidate") > 0))
        names = sorted(changed["row_id"].unique())
        for name in sorted(chance.sample(names, min(PROMPTS, len(names)))):
            shown = drawn.filter(pl.col("row_id") == name).sort("candidate")
            columns = max(columns, len(shown))
            for row in shown.iter_rows(named=True):
                pictures.append(store.images.open(row["pixels"]))
                labels.append(_label(row))
                good.append(row["selected"])
    return contact_sheet(pictures, labels, columns, 168, good) if pictures else None


def _label(row: dict[str, Any]) -> str:
    if row["candidate"] == 0:
        return str(row["prompt"])
    if row["switch_step"] > 0:
        return f"switch after {row['switch_step']}"
    correction = row["corrected_prompt"].removeprefix(row["prompt"]).strip(" .,")
    return f"switch after 0: {correction}"


def _tables(store: Store, asset: str) -> list[pl.DataFrame]:
    found = [one for one in store.all_current() if one.asset == asset]
    return [one.table("rows") for one in sorted(found, key=lambda one: one.name)]


if __name__ == "__main__":
    main()
