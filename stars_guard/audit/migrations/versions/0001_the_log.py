"""The log: entries, and what lists, searches and counts read."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TSVECTOR

__all__ = ["down_revision", "downgrade", "revision", "upgrade"]

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "entries",
        sa.Column("writer", NAME, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("prev", sa.Text, nullable=False),
        sa.Column("key", sa.Text),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
    )
    names = ("policy", "mode", "stage", "finish")
    counts = ("segments", "proposals", "rejections")
    tokens = ("drawn", "kept", "rejected", "surplus", "overrun")
    op.create_table(
        "calls",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("writer", NAME, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("call_id", NAME, nullable=False),
        sa.Column("run_id", NAME),
        sa.Column("started_at", NAME, nullable=False),
        sa.Column("started", sa.Double, nullable=False, comment="seconds since 1970"),
        sa.Column("seconds", sa.Double, nullable=False),
        *(sa.Column(name, NAME, nullable=False) for name in names),
        *(sa.Column(name, sa.Integer, nullable=False) for name in counts),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in tokens),
        sa.Column("preview", sa.Text),
    )
    op.create_index("calls_entry", "calls", ["writer", "seq"], unique=True)
    op.create_index("calls_place", "calls", ["started_at", "call_id"])
    op.create_index("calls_call_id", "calls", ["call_id"])
    op.create_index("calls_run_id", "calls", ["run_id"])
    op.create_index("calls_policy", "calls", ["policy", "started_at", "call_id"])
    op.create_index("calls_finish", "calls", ["finish", "started_at", "call_id"])
    op.create_table(
        "attempts",
        sa.Column("call", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("segment", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("kept", sa.SmallInteger, nullable=False),
        sa.Column("reward", sa.Double),
        sa.Column("threshold", sa.Double),
        sa.Column("probability", sa.Double),
        sa.Column("tokens", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False, comment="tokens of the answer with this proposal"),
    )
    op.create_table(
        "blames",
        sa.Column("call", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("judge", NAME, primary_key=True),
        sa.Column("place", sa.Integer, nullable=False, comment="in the order in which the call has them"),
        sa.Column("vetoes", sa.Integer, nullable=False),
        sa.Column("low_reward", sa.Integer, nullable=False),
    )
    op.create_index("blames_judge", "blames", ["judge", "call"])
    if op.get_bind().dialect.name == "sqlite":
        # words come in one by one, broken and folded as query.words does: no tokenizer may do more to them
        op.execute("CREATE VIRTUAL TABLE texts USING fts5(words, tokenize='ascii', detail=none)")
    else:
        op.create_table(
            "texts",
            sa.Column("rowid", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("words", TSVECTOR, nullable=False),
        )
        op.create_index("texts_words", "texts", ["words"], postgresql_using="gin")


def downgrade() -> None:
    for table in ("texts", "blames", "attempts", "calls", "entries"):
        op.drop_table(table)
