"""A damaged ledger is named with its remedy, never read wrongly, and made anew of what is sound."""

import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from hoi_assets.store.ledger import Ledger
from hoi_assets.store.ledger_file import DamagedLedger
from hoi_assets.store.ledger_repair import repair

MADE = {
    f"{number:016x}": {"pixels": f"{number:032x}", "score": number / 7} for number in range(400)
}
ROWS = [
    {
        "stage": "candidate_images",
        "partition": "hook",
        "row_id": key,
        "status": "rejected" if number % 3 else "accepted",
        "reason": f"blank: {number}" if number % 3 else None,
        "version": "v1",
    }
    for number, key in enumerate(MADE)
]


def whole(path: Path) -> bytes:
    """A ledger in one file, without a log beside it."""
    ledger = Ledger(path)
    ledger.put("image", MADE)
    ledger.record(ROWS)
    ledger.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path.read_bytes()


def read(path: Path) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """Everything a ledger says."""
    ledger = Ledger(path)
    try:
        ledger.changes()
        ended = ledger.rows().drop("updated_at").rows()
        return ledger.get("image", MADE), ended
    finally:
        ledger.close()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Any]:
    path = tmp_path_factory.mktemp("sound") / "ledger.sqlite"
    return whole(path), read(path)


def damaged(data: bytes, folder: Path) -> Path:
    path = folder / "ledger.sqlite"
    for old in folder.glob("ledger.sqlite*"):
        old.unlink()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("seed", range(60))
def test_a_flipped_bit_is_named_or_changes_nothing(
    tmp_path: Path, sound: tuple[bytes, Any], seed: int
) -> None:
    data, said = sound
    # The header and the schema first, then anywhere.
    place = random.Random(seed).randrange(100 if seed < 10 else 4096 if seed < 20 else len(data))
    flipped = bytearray(data)
    flipped[place] ^= 1 << seed % 8
    path = damaged(bytes(flipped), tmp_path)
    try:
        made, ended = read(path)
    except DamagedLedger as error:
        assert str(path) in error.what and "hoi repair" in error.remedy
        made, ended = {}, []
    except Exception as error:
        # A higher version of the schema is a newer program's.
        assert "update hoi-assets" in str(error)
        return
    # A key that cannot be found is made again; no value is another one.
    assert made.items() <= said[0].items()
    assert ended in ([], said[1])


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.99])
def test_a_ledger_cut_short_is_named_and_what_is_left_is_kept(
    tmp_path: Path, sound: tuple[bytes, Any], share: float
) -> None:
    data, said = sound
    path = damaged(data[: int(len(data) * share)], tmp_path)
    if share:
        with pytest.raises(DamagedLedger, match="hoi repair"):
            read(path)
    before = path.read_bytes()
    done = repair(Ledger(path), ROWS)  # type: ignore[arg-type]
    made, ended = read(path)
    assert made.items() <= said[0].items() and len(made) == done.kept["made"]
    assert ended == said[1] and done.kept["rows"] + done.entered == len(ROWS)
    assert done.aside.read_bytes() == before
    assert Ledger(path).verify() == {"made": len(made), "rows": len(ROWS)}
    if share == 0.99:
        assert done.kept["made"] > len(MADE) / 2


def test_repair_drops_the_altered_entry_alone(tmp_path: Path, sound: tuple[bytes, Any]) -> None:
    data, said = sound
    key = next(iter(MADE))
    value = f'"{MADE[key]["pixels"]}"'.encode()
    assert data.count(value) == 1
    path = damaged(data.replace(value, value.replace(b"0", b"1", 1)), tmp_path)
    with pytest.raises(DamagedLedger, match="an entry of `made` was altered"):
        Ledger(path).get("image", [key])
    assert Ledger(path).get("image", list(MADE)[1:]).keys() == MADE.keys() - {key}
    done = repair(Ledger(path), [])
    assert done.kept == {"made": len(MADE) - 1, "rows": len(ROWS)} and done.entered == 0
    assert read(path)[1] == said[1]
    # A second time, the first file stays where it is.
    assert repair(Ledger(path), []).aside != done.aside and done.aside.exists()


def test_ledger_of_the_first_schema_is_brought_up_to_checksums(
    tmp_path: Path, sound: tuple[bytes, Any]
) -> None:
    path = damaged(sound[0], tmp_path)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE ledger_version")
        for table in ("made", "rows"):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN crc")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    assert read(path) == sound[1]
    assert Ledger(path).verify() == {"made": len(MADE), "rows": len(ROWS)}
    ledger = Ledger(path)
    ledger.record(ROWS[:1])
    ledger.put("image", {"new": 1})
    assert ledger.verify() == {"made": len(MADE) + 1, "rows": len(ROWS)}
