"""Where records wait, in a local file, while the store is down."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from platformdirs import user_state_path
from pydantic import ValidationError
from pydantic_core import from_json

from stars_guard.audit._files import ELSEWHERE, sync_folder
from stars_guard.audit._sink import Sink
from stars_guard.audit.entries import Item, canonical
from stars_guard.audit.private_files import tighten
from stars_guard.audit.record import CallRecord
from stars_guard.errors import AuditError

__all__ = ["Spool"]

_log = logging.getLogger("stars_guard.audit")
_CHUNK = 64


class Spool:
    """A file for each process and store, held under a lock while its process lives.

    When a process dies, the next one that writes to the same store takes over what it has left behind. Each record gets
    into the store once: those that it has already are passed over.

    A line that cannot be read is never deleted. It may be the record of a newer stars-guard, or the beginning of a
    record that a crash has cut off. Such lines are put into a file of their own, and a warning names it.
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

    def size(self) -> int:
        """Bytes that wait for the store, in the files of all processes; 0 where they cannot be looked at."""
        size = 0
        for path in self._folder.glob(f"{self._mark}-*.jsonl"):
            with suppress(OSError):  # another process has emptied it meanwhile
                size += path.stat().st_size
        return size

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
                f"the audit log cannot be written, nor can the records be put aside in {self._folder}: {exc.strerror}",
                hint=ELSEWHERE,
            ) from exc

    def replay(self, store: Sink) -> int:
        """Write what waits into the store, oldest first, and take it out of the spool. Returns how many records.

        Raises:
            AuditError: the store is still down, or the spool cannot be read. What waits stays.
        """
        moved = 0
        try:
            if not self._looked:
                moved += self._adopt(store)
                self._looked = True
            if self._path is not None:
                moved += _empty(self._path, self._file, store)
                self.release()
        except OSError as exc:
            raise AuditError(f"cannot read the records that wait in {self._folder}: {exc.strerror}") from exc
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
                file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError as exc:
                if exc.errno in (errno.ENOENT, errno.ELOOP):
                    continue
                raise
            try:
                tighten(file)
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                moved += _empty(path, file, store)
            except BlockingIOError:
                continue
            finally:
                os.close(file)
        return moved


def _empty(path: Path, file: int, store: Sink) -> int:
    """Write the records of a spool into the store and take the spool away. Returns how many records.

    Args:
        file: the open file at ``path``, whose lock this process holds.
    """
    moved, chunk, unreadable = 0, list[Item](), list[bytes]()
    with open(file, "rb", closefd=False) as stream:
        stream.seek(0)
        for line in stream:
            item = _item(line)
            if item is None:
                unreadable.append(line)
                continue
            chunk.append(item)
            if len(chunk) == _CHUNK:
                moved += _move(chunk, store)
                chunk = []
    moved += _move(chunk, store)
    if unreadable:
        _set_aside(path, unreadable)
    path.unlink(missing_ok=True)
    return moved


def _move(chunk: Sequence[Item], store: Sink) -> int:
    if not chunk:
        return 0
    there = store.has({item.record.call_id for item in chunk})
    missing = [item for item in chunk if item.record.call_id not in there]
    if missing:
        store.write(missing)
    return len(missing)


def _item(line: bytes) -> Item | None:
    """The record of a line, in whatever version it was written; None where this version does not read it."""
    try:
        return Item(CallRecord.model_validate_json(line), canonical(from_json(line)))
    except (ValidationError, ValueError, AuditError):
        return None


def _set_aside(path: Path, lines: Sequence[bytes]) -> None:
    """Keep lines that cannot be read in a file that no process takes for a spool."""
    aside, part = path.with_suffix(".unreadable"), path.with_suffix(".part")
    part.unlink(missing_ok=True)
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(file, "wb") as stream:
        stream.writelines(lines)
        stream.flush()
        os.fsync(file)
    part.rename(aside)
    sync_folder(path.parent)
    _log.warning(
        "%d lines of an audit spool cannot be read by this version of stars-guard and are kept in %s. If a newer "
        "version has written them, upgrade, and rename the file to %s: its records are then written to the log.",
        len(lines),
        aside,
        path.name,
    )
