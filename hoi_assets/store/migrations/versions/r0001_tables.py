"""The tables. A SQLite ledger of an earlier release has them without Alembic's mark."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# Sorted by code points, as SQLite does, whatever the database's language.
CHARACTERS = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    # Generated things by the hash of all that determines them; value is canonical JSON.
    op.create_table(
        "made",
        sa.Column("kind", CHARACTERS, nullable=False),
        sa.Column("key", CHARACTERS, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("made_at", sa.Text, nullable=False),
        sa.Column("crc", NUMBER),
        sa.PrimaryKeyConstraint("kind", "key"),
        sqlite_with_rowid=False,
    )
    # The latest ending of every row; partition is '' where the stage has none.
    op.create_table(
        "rows",
        sa.Column("stage", CHARACTERS, nullable=False),
        sa.Column("partition", CHARACTERS, nullable=False),
        sa.Column("row_id", CHARACTERS, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", CHARACTERS),
        sa.Column("version", CHARACTERS),
        sa.Column("attempts", NUMBER, nullable=False),
        sa.Column("updated_at", sa.Text, nullable=False),
        sa.Column("crc", NUMBER),
        sa.PrimaryKeyConstraint("stage", "partition", "row_id"),
        sa.CheckConstraint("status IN ('accepted', 'rejected', 'failed')"),
        sqlite_with_rowid=False,
    )
    op.create_index("rows_by_id", "rows", ["row_id"])
    # How often rows changed.
    counter = op.create_table("counter", sa.Column("changes", NUMBER, nullable=False))
    op.bulk_insert(counter, [{"changes": 0}])
    if op.get_bind().dialect.name == "postgresql":
        # The home that the ledger belongs to.
        op.create_table("home", sa.Column("id", sa.Text, nullable=False))
        # Transactions of the last day, so that one is not done twice where its end was not heard.
        op.create_table(
            "writes",
            sa.Column("id", sa.Text, primary_key=True),
            sa.Column(
                "written_at",
                sa.DateTime(timezone=True),
                server_default=sa.func.now(),
                nullable=False,
            ),
        )
