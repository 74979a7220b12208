"""docs/tables.md is what the declarations say."""

from hoi_assets.defs.tables_docs import FILE, tables_markdown


def test_tables_page_is_current() -> None:
    """Where this fails: python -m hoi_assets.defs.tables_docs."""
    assert FILE.read_text(encoding="utf-8") == tables_markdown()


def test_every_column_says_what_it_holds() -> None:
    rows = [line for line in tables_markdown().splitlines() if line.startswith("| `")]
    assert len(rows) > 300
    assert all(row.split(" | ")[-1].strip(" |") for row in rows)
