"""Inputs of docs/sizing.md, measured on a home: `python -m benchmarks.sizes [HOME]`.

Without HOME, a small one is made by `hoi run` first. Only homes in folders; nothing is written.
"""

import sqlite3
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks.common import LITTLE_WORK, hoi, report, write_profile
from hoi_assets.store.versions import Store

CATEGORY = "power_sphere"
TABLES = ("detailed_prompts", "candidate_images", "verified_pairs")
# Of a verdict: the picture, and the map of what looks wrong.
IMAGES = ("pixels", "defect_map")
# Of the ledger: what grows with candidates.
KINDS = ("image", "image_channel_deviation", "verifier_score")
STAGES = ("candidate_images", "verified_pairs")
NO_GOAL = "none, an input of docs/sizing.md"


def main() -> None:
    if len(sys.argv) > 1:
        _measure(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        hoi(Path(folder) / "home", write_profile(Path(folder), LITTLE_WORK), "run", CATEGORY)
        _measure(Path(folder) / "home")


def _measure(home: Path) -> None:
    store = Store(home)
    verdicts = [
        found.table("rows")
        for category in store.partitions("verified_pairs")
        if (found := store.current("verified_pairs", category)) is not None
    ]
    candidates = sum(table.height for table in verdicts)
    if not candidates:
        raise SystemExit(f"{home}: no verified pairs; make some by `hoi run`")
    accepted = sum(table.filter(status="accepted").height for table in verdicts)
    shown = {one for table in verdicts for name in IMAGES for one in table[name].drop_nulls()}
    pictures = _bytes(store.images.path(one) for one in shown)
    _say("bytes of images, a candidate", f"{pictures / candidates:.0f}")
    _say("accepted share", f"{accepted / candidates:.3f} ({accepted} of {candidates})")
    tables = [path for name in TABLES for path in (home / "assets" / name).rglob("*.parquet")]
    _say("bytes of tables, a candidate", f"{_bytes(tables) / candidates:.0f}")
    ledger = home / "ledger.sqlite"
    if ledger.exists():
        with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as connection:
            count = "SELECT (SELECT count(*) FROM made {}) + (SELECT count(*) FROM rows {})"
            rows = connection.execute(count.format("", "")).fetchone()[0]
            kinds, stages = (", ".join(f"'{name}'" for name in names) for names in (KINDS, STAGES))
            growing = count.format(f"WHERE kind IN ({kinds})", f"WHERE stage IN ({stages})")
            entries = connection.execute(growing).fetchone()[0]
            pages = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
            size = connection.execute(pages).fetchone()[0]
        _say("ledger entries, a candidate", f"{entries / candidates:.1f}")
        _say("bytes of a ledger entry, SQLite", f"{size / rows:.0f}")
    runs = {path.stem for path in (home / "dagster").rglob("*.db")} - {"index", "runs"}
    if runs:
        size = _bytes((home / "dagster").rglob("*.db"))
        _say("bytes of Dagster's databases, a run", f"{size / len(runs):.0f} (of {len(runs)})")


def _bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def _say(name: str, figure: str) -> None:
    report(f"sizes/{name}", figure, NO_GOAL)


if __name__ == "__main__":
    main()
