"""Where records wait, in a local file, while the store is down."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

from platformdirs import user_state_path
from pydantic import ValidationError

from stars_guard.audit._sink import Sink
from stars_guard.audit.entries import Item
from stars_guard.audit.record import CallRecord
from stars_guard.errors import AuditError

__all__ = ["Spool"]

_log = logging.getLogger("stars_guard.audit")
_CHUNK = 64


class Spool:
    """A file for each process and store, held under a lock while its process lives.

    What a process has left behind that died is taken over by the next one that writes to the same store. Each record
    gets into the store once: those that it has already are passed over.
    """

    def __init__(self, name: str) -> None:
        self._folder = user_state_path("stars-guard") / "spool"
        self._mark = hashlib.sha256(name.encode()).hexdigest()[:16]
        self._path: Path | None = None
        self._file = -1
        self._looked = False

    @property
    def holds(self) -> bool:
        """Whether records of this process wait."""
        return self._path is not None

    def put(self, items: Sequence[Item]) -> None:
        """Keep records, durably.

        Raises:
            AuditError: they cannot be kept here either.
        """
        try:
            if self._path is None:
                self._open()
            size = os.fstat(self._file).st_size
            view = memoryview(b"".join(item.payload.encode() + b"\n" for item in items))
            try:
                while view:
                    view = view[os.write(self._file, view) :]
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, size)
                raise
        except OSError as exc:
            raise AuditError(
                f"the audit log cannot be written, nor can the records be put aside in {self._folder}: {exc.strerror}"
            ) from exc

    def replay(self, store: Sink) -> int:
        """Write what waits into the store, oldest first, and forget it; how many records.

        Raises:
            AuditError: the store is still down. What waits stays.
        """
        moved = 0
        if not self._looked:
            moved += self._adopt(store)
            self._looked = True
        if self._path is not None:
            moved += _move(self._file, store)
            self._path.unlink(missing_ok=True)
            self.release()
        return moved

    def release(self) -> None:
        """Leave what waits to whoever writes to the store next."""
        if self._path is not None:
            os.close(self._file)
            self._path, self._file = None, -1
            self._looked = False

    def _open(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{self._mark}-{secrets.token_hex(8)}.jsonl"
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._path = path

    def _adopt(self, store: Sink) -> int:
        moved = 0
        for path in sorted(self._folder.glob(f"{self._mark}-*.jsonl")):
            try:
                file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                moved += _move(file, store)
                path.unlink(missing_ok=True)
            except BlockingIOError:
                continue
            finally:
                os.close(file)
        return moved


def _move(file: int, store: Sink) -> int:
    moved, chunk = 0, list[Item]()
    for item in _items(file):
        chunk.append(item)
        if len(chunk) == _CHUNK:
            moved += _move_chunk(chunk, store)
            chunk = []
    return moved + _move_chunk(chunk, store)


def _move_chunk(chunk: Sequence[Item], store: Sink) -> int:
    if not chunk:
        return 0
    there = store.has({item.record.call_id for item in chunk})
    missing = [item for item in chunk if item.record.call_id not in there]
    if missing:
        store.write(missing)
    return len(missing)


def _items(file: int) -> Iterator[Item]:
    with open(file, "rb", closefd=False) as stream:
        stream.seek(0)
        for number, line in enumerate(stream, start=1):
            try:
                yield Item(CallRecord.model_validate_json(line), line.decode().rstrip("\n"))
            except ValidationError:
                _log.warning("line %d of a spool was torn and is left out", number)
