"""Where records go, chosen by URL."""

from __future__ import annotations

import asyncio
import fcntl
import os
from abc import ABC, abstractmethod
from pathlib import Path
from urllib.parse import unquote, urlsplit

from platformdirs import user_state_path
from pydantic import ValidationError

from stars_guard.audit.record import CallRecord
from stars_guard.errors import AuditError

__all__ = ["AuditStore", "JsonlStore", "MemoryStore", "default_url", "open_store"]


class AuditStore(ABC):
    """Keeps records."""

    @abstractmethod
    async def append(self, record: CallRecord) -> None:
        """Write a record. When this returns the operating system has it.

        Raises:
            AuditError: it could not be written.
        """

    @abstractmethod
    def read(self) -> list[CallRecord]:
        """All records, oldest first. Blocks."""

    def get(self, call_id: str) -> CallRecord:
        """The record of a call or of a LangChain run; the start of an id is enough where only one fits."""
        found = [r for r in self.read() if r.call_id.startswith(call_id) or r.run_id == call_id]
        if len(found) != 1:
            raise AuditError(f"{len(found) or 'no'} records fit the id {call_id!r}")
        return found[0]


class MemoryStore(AuditStore):
    """Keeps records in a list: for tests."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []

    async def append(self, record: CallRecord) -> None:
        self.records.append(record)

    def read(self) -> list[CallRecord]:
        return list(self.records)


class JsonlStore(AuditStore):
    """One line of JSON a call. Threads and processes may share the file; a torn last line is skipped and healed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def append(self, record: CallRecord) -> None:
        await asyncio.to_thread(self._write, record.model_dump_json().encode() + b"\n")

    def _write(self, line: bytes) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                size = os.fstat(file).st_size
                if size and os.pread(file, 1, size - 1) != b"\n":
                    line = b"\n" + line
                view = memoryview(line)
                while view:
                    view = view[os.write(file, view) :]
            finally:
                os.close(file)
        except OSError as exc:
            raise AuditError(f"cannot write the audit log {self.path}: {exc.strerror}") from exc

    def read(self) -> list[CallRecord]:
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise AuditError(f"cannot read the audit log {self.path}: {exc.strerror}") from exc
        records = []
        for line in lines:
            try:
                records.append(CallRecord.model_validate_json(line))
            except ValidationError:
                continue  # torn by a crash in the middle of a write
        return records


def default_url() -> str:
    """The JSONL file in the user's state directory."""
    return f"jsonl://{user_state_path('stars-guard') / 'audit.jsonl'}"


def open_store(url: str | None) -> AuditStore:
    """A store by URL: ``jsonl:///path`` or ``memory://``; None is `default_url`.

    Raises:
        AuditError: the URL's scheme is not known or it has no path.
    """
    parts = urlsplit(url or default_url())
    if parts.scheme == "memory":
        return MemoryStore()
    if parts.scheme != "jsonl" or not (parts.netloc + parts.path):
        raise AuditError(f"cannot use the audit URL {url!r}", hint="use jsonl:///path/to/audit.jsonl or memory://")
    return JsonlStore(Path(unquote(parts.netloc + parts.path)).expanduser())
