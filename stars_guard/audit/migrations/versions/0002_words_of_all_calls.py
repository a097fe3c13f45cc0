"""Every call has a row of words, an empty one where its text is not kept, so that none can be taken away unseen."""

from alembic import op

__all__ = ["down_revision", "downgrade", "revision", "upgrade"]

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    none = "''" if op.get_bind().dialect.name == "sqlite" else "''::tsvector"
    op.execute(
        f"INSERT INTO texts (rowid, words) SELECT id, {none} FROM calls "  # noqa: S608
        "WHERE NOT EXISTS (SELECT 1 FROM texts WHERE texts.rowid = calls.id)"
    )


def downgrade() -> None:
    """Rows without words are found by no search."""
