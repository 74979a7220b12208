"""What a home holds, as far as proofs compare it, and what was left over."""

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest_pixels
from hoi_assets.store.pruning import prune
from hoi_assets.store.versions import Store

UNFINISHED_RUNS = ("STARTED", "STARTING", "NOT_STARTED", "CANCELING")


@dataclass(frozen=True)
class Content:
    """What does not depend on clock, process or number of attempts.

    Attributes:
        versions: in force, by place.
        pictures: digests of the image store.
        made: digest of each generated value in the ledger, by kind and key; wall times left out.
        rows: how rows ended, by stage, partition and id.
    """

    versions: Mapping[str, str]
    pictures: frozenset[str]
    made: Mapping[str, str]
    rows: Mapping[str, str]

    def difference(self, other: "Content") -> str:
        """What differs, in a line; empty where nothing does."""
        told = []
        for what in ("versions", "made", "rows"):
            ours, theirs = getattr(self, what), getattr(other, what)
            names = sorted(
                name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)
            )
            if names:
                told.append(f"{len(names)} {what} differ, e.g. {names[0]}")
        pictures = self.pictures ^ other.pictures
        if pictures:
            told.append(f"{len(pictures)} pictures differ")
        return "; ".join(told)


def content_of(home: Path) -> Content:
    """Read a home; every version in force is checked against its name.

    Raises:
        HoiError: a damaged version.
    """
    store = Store(home)
    current = store.all_current()
    for published in current:
        published.verify()
    content = Content(
        versions={published.name: published.version for published in current},
        pictures=frozenset(path.stem for path in (home / "images").rglob("*.png")),
        made=_made(home),
        rows={
            f"{row['stage']}/{row['partition']}/{row['row_id']}": f"{row['status']} {row['reason']}"
            for row in store.ledger.rows().iter_rows(named=True)
        },
    )
    store.ledger.close()
    return content


def damaged_pictures(home: Path) -> list[str]:
    """Pictures whose pixels are not those of their name."""
    from PIL import Image

    found = []
    for path in (home / "images").rglob("*.png"):
        with Image.open(path) as file:
            if digest_pixels(file.convert("RGB")) != path.stem:
                found.append(path.stem)
    return found


def unfinished_runs(home: Path) -> int:
    """Runs that Dagster takes for running."""
    found = 0
    for path in (home / "dagster").rglob("runs.db"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            marks = ", ".join("?" * len(UNFINISHED_RUNS))
            query = f"SELECT count(*) FROM runs WHERE status IN ({marks})"
            found += connection.execute(query, UNFINISHED_RUNS).fetchone()[0]
        connection.close()
    return found


def leftovers(home: Path, known: Sequence[str] | None = None) -> list[str]:
    """What stays behind after `prune` that belongs to nothing, as paths below the home."""
    store = Store(home)
    prune(store, keep=1, known=known)
    kept = {
        (published.path.parent.parent, published.version)
        for place in (home / "assets").glob("*/*")
        for published in store.history(place.parent.name, None if place.name == "_" else place.name)
        if published.path.is_dir()
    }
    found = [*(home / "staging").iterdir(), *home.glob("*/.staging/*")]
    found += (home / "training").glob("*/*")
    found += [
        path
        for path in (home / "assets").glob("*/*/versions/*")
        if (path.parent.parent, path.name) not in kept
    ]
    found += [
        path
        for path in (home / "assets").glob("*/*/manifests/*")
        if not (path.parent.parent / "versions" / path.stem).exists()
    ]
    found += [path for path in home.rglob("*.tmp") if path not in found]
    found += [*(home / "quarantine").glob("*/*/*-altered-*")]
    store.ledger.close()
    return [path.relative_to(home).as_posix() for path in found]


def fault_of(home: Path, expected: Content, known: Sequence[str] | None = None) -> str:
    """Why a home is not what an unbroken run makes; empty where it is."""
    try:
        told = [content_of(home).difference(expected)]
        damaged = damaged_pictures(home)
        left = leftovers(home, known)
        after = content_of(home).difference(expected)
    except (HoiError, OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    told.append(f"damaged pictures: {', '.join(damaged[:3])}" if damaged else "")
    told.append(f"left over: {', '.join(left[:3])}" if left else "")
    told.append(f"after prune: {after}" if after != told[0] else "")
    running = unfinished_runs(home)
    told.append(f"{running} runs unfinished" if running else "")
    return "; ".join(filter(None, told))


def _made(home: Path) -> dict[str, str]:
    path = home / "ledger.sqlite"
    if not path.exists():
        return {}
    connection = sqlite3.connect(path)
    try:
        rows: list[tuple[str, str, Any]] = connection.execute(
            "SELECT kind, key, value FROM made WHERE kind NOT LIKE '%seconds%'"
        ).fetchall()
    finally:
        connection.close()
    return {f"{kind}/{key}": _digest(value) for kind, key, value in rows}


def _digest(value: str) -> str:
    found = json.loads(value)
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]
