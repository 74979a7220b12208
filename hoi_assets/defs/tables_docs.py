"""Writes docs/tables.md from the declarations of published tables.

python -m hoi_assets.defs.tables_docs
"""

import sys

from hoi_assets.defs.project import published_below
from hoi_assets.publishing.asset import stage_of
from hoi_assets.settings import ROOT
from hoi_assets.store.tables import Column, Table

FILE = ROOT / "docs" / "tables.md"
HEAD = """# Tables

Every Parquet file of a published version. Generated from the declarations by
`python -m hoi_assets.defs.tables_docs`; a test keeps it current. In SQL (`hoi sql`) the table
`rows` of an asset has the asset's name, and any other table is `<asset>_<table>`.
"""


def tables_markdown() -> str:
    """The whole page."""
    stages = sorted(
        (stage_of(asset) for asset in published_below("hoi_assets.defs")), key=lambda one: one.name
    )
    parts = [HEAD]
    for stage in stages:
        parts.append(f"## {stage.name}\n")
        parts += [_table(table) for table in stage.tables]
    return "\n".join(parts)


def _table(table: Table) -> str:
    key = f" Key: {', '.join(f'`{name}`' for name in table.key)}." if table.key else ""
    lines = [
        f"### {table.name}\n",
        f"One row is {table.meaning}.{key}\n",
        "| column | type | unit | null | meaning |",
        "| --- | --- | --- | --- | --- |",
        *(_column(column) for column in table.columns),
    ]
    return "\n".join(lines) + "\n"


def _column(column: Column) -> str:
    dtype = getattr(column.dtype, "__name__", None) or str(column.dtype)
    null = "yes" if column.nullable else ""
    meaning = column.meaning.replace("|", "\\|")
    return f"| `{column.name}` | {dtype} | {column.unit or ''} | {null} | {meaning} |"


def main() -> int:
    """Write the page."""
    FILE.write_text(tables_markdown(), encoding="utf-8")
    print(FILE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
