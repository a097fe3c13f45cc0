"""Our four stores keep to what every store must do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from postgres import Postgres, postgres

from stars_guard.audit import AuditStore, MemoryStore, Writing, open_store
from stars_guard.testing import AuditStoreTests

__all__ = ["postgres"]


class TestMemory(AuditStoreTests):
    @pytest.fixture
    def open_log(self) -> Callable[[], AuditStore]:
        store = MemoryStore()
        return lambda: store


class TestJsonl(AuditStoreTests):
    @pytest.fixture
    def open_log(self, tmp_path: Path) -> Callable[[], AuditStore]:
        return lambda: open_store(f"jsonl://{tmp_path}/log/audit.jsonl")


class TestTurnedOverJsonl(AuditStoreTests):
    @pytest.fixture
    def open_log(self, tmp_path: Path) -> Callable[[], AuditStore]:
        return lambda: open_store(f"jsonl://{tmp_path}/log/audit.jsonl?max_bytes=20000")


class TestFullQueue(AuditStoreTests):
    """Callers wait until there is room, and may be cancelled while they do."""

    @pytest.fixture
    def open_log(self, tmp_path: Path) -> Callable[[], AuditStore]:
        return lambda: open_store(f"jsonl://{tmp_path}/log/audit.jsonl", Writing(queue=1))


class TestSqlite(AuditStoreTests):
    @pytest.fixture
    def open_log(self, tmp_path: Path) -> Callable[[], AuditStore]:
        return lambda: open_store(f"sqlite://{tmp_path}/log/audit.db")


class TestPostgresql(AuditStoreTests):
    @pytest.fixture
    def open_log(self, postgres: Postgres) -> Callable[[], AuditStore]:
        url = postgres.database()
        return lambda: open_store(url)
