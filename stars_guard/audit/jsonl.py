"""The audit log as a file: one line of JSON a call."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio.to_thread
from pydantic import ValidationError

from stars_guard.audit.record import CallRecord
from stars_guard.audit.store import AuditStore
from stars_guard.errors import AuditError

__all__ = ["JsonlStore"]

_log = logging.getLogger(__name__)


class JsonlStore(AuditStore):
    """Appends to a file that threads and processes may share.

    Lines that a crash has torn are skipped when reading, with a warning in the log; the next record begins on a line
    of its own.

    Args:
        path: the file. It and its folders are made by the first record, for their owner only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    async def append(self, record: CallRecord) -> None:
        line = record.model_dump_json().encode() + b"\n"
        await anyio.to_thread.run_sync(self._write, line)

    def read(self) -> list[CallRecord]:
        try:
            with _locked(self.path, os.O_RDONLY, fcntl.LOCK_SH) as file, open(file, "rb", closefd=False) as stream:
                lines = stream.read().split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise AuditError(f"cannot read the audit log {self.path}: {exc.strerror}") from exc
        records = []
        for number, line in enumerate(lines, start=1):
            if not line:
                continue
            try:
                records.append(CallRecord.model_validate_json(line))
            except ValidationError as exc:
                if exc.errors()[0]["type"] != "json_invalid":
                    # whole, but not ours: another version's record must not go missing in silence
                    raise AuditError(f"{self.path}:{number}: not a record of schema version 1") from None
                _log.warning("%s:%d: a torn line was skipped", self.path, number)
        return records

    def _write(self, line: bytes) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, fcntl.LOCK_EX) as file:
                size = os.fstat(file).st_size
                if size and os.pread(file, 1, size - 1) != b"\n":
                    line = b"\n" + line
                if os.write(file, line) != len(line):
                    os.ftruncate(file, size)
                    raise AuditError(f"cannot write the audit log {self.path}: the disk is full")
        except OSError as exc:
            raise AuditError(f"cannot write the audit log {self.path}: {exc.strerror}") from exc


@contextmanager
def _locked(path: Path, flags: int, lock: int) -> Iterator[int]:
    file = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, lock)
        yield file
    finally:
        os.close(file)
