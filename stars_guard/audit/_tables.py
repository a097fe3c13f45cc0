"""The tables of the audit log in a database: one schema for SQLite and PostgreSQL.

``entries`` is the log and all that proof needs. The others are made from it, so that lists, searches and counts need
not read records. ``calls`` has one row for each call, ``attempts`` one for each candidate, ``blames`` one for each
judge that caused a rejection in a call, and ``texts`` the words of a call.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Integer, MetaData, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import TSVECTOR

__all__ = ["attempts", "blames", "calls", "entries", "metadata", "texts"]

metadata = MetaData()

_Name = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that compares byte by byte, as Python's strings do."""

_Id = BigInteger().with_variant(Integer(), "sqlite")

entries = Table(
    "entries",
    metadata,
    Column("writer", _Name, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("prev", Text, nullable=False),
    Column("key", Text),
    Column("kind", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("hash", Text, nullable=False),
)

calls = Table(
    "calls",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("writer", _Name, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("call_id", _Name, nullable=False),
    Column("run_id", _Name),
    Column("started_at", _Name, nullable=False),
    Column("started", Double, nullable=False, comment="seconds since 1970"),
    Column("seconds", Double, nullable=False),
    Column("policy", _Name, nullable=False),
    Column("mode", _Name, nullable=False),
    Column("stage", _Name, nullable=False),
    Column("finish", _Name, nullable=False),
    Column("segments", Integer, nullable=False),
    Column("proposals", Integer, nullable=False),
    Column("rejections", Integer, nullable=False),
    Column("drawn", BigInteger, nullable=False),
    Column("kept", BigInteger, nullable=False),
    Column("rejected", BigInteger, nullable=False),
    Column("surplus", BigInteger, nullable=False),
    Column("overrun", BigInteger, nullable=False),
    Column("preview", Text),
    Index("calls_entry", "writer", "seq", unique=True),
    Index("calls_place", "started_at", "call_id"),
    Index("calls_call_id", "call_id"),
    Index("calls_run_id", "run_id"),
    Index("calls_policy", "policy", "started_at", "call_id"),
    Index("calls_finish", "finish", "started_at", "call_id"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("call", BigInteger, primary_key=True, autoincrement=False),
    Column("segment", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("verdict", Text, nullable=False),
    Column("kept", SmallInteger, nullable=False),
    Column("reward", Double),
    Column("threshold", Double),
    Column("probability", Double),
    Column("tokens", Integer, nullable=False),
    Column("position", Integer, nullable=False, comment="tokens of the answer with this proposal"),
)

blames = Table(
    "blames",
    metadata,
    Column("call", BigInteger, primary_key=True, autoincrement=False),
    Column("judge", _Name, primary_key=True),
    Column("place", Integer, nullable=False, comment="in the order in which the call has them"),
    Column("vetoes", Integer, nullable=False),
    Column("low_reward", Integer, nullable=False),
    Index("blames_judge", "judge", "call"),
)

texts = Table(
    "texts",
    MetaData(),
    Column("rowid", BigInteger, primary_key=True, autoincrement=False),
    Column("words", TSVECTOR().with_variant(Text(), "sqlite")),
)
"""By hand in the migrations: a full-text index is another thing in each database. ``rowid`` is the call's id."""
