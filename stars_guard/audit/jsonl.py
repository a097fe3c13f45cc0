"""The audit log as a file: one line of JSON for each call, each with the hash of the line before."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from stars_guard.audit._files import (
    ELSEWHERE,
    Line,
    last_line,
    lines_of,
    local_path,
    locked,
    opened,
    parts_of,
    replace_start,
    sync_folder,
    turn_over,
)
from stars_guard.audit._query import Filter, News
from stars_guard.audit.chained_store import ChainedStore
from stars_guard.audit.entries import (
    UNSEALED,
    Broken,
    Entry,
    Head,
    Item,
    Kind,
    Purge,
    Unsealed,
    new_writer,
    read_line,
    seal,
)
from stars_guard.audit.writing import Writing
from stars_guard.errors import AuditError

__all__ = ["JsonlStore"]


class JsonlStore(ChainedStore):
    """Appends to a file that threads and processes may share. The file is one chain, whoever writes.

    A crash can leave the beginning of a line. Reading skips it, with a warning in Python's log, and the next write
    takes it away.

    Args:
        path: the file. The first record makes it and its folders, for their owner only.
        max_bytes: a file that would grow beyond it becomes a part, such as ``audit.jsonl.000001``. The chain goes on in
            the next file.
        daily: a file of another day, by UTC, becomes a part too.
        writing: see `ChainedStore`.
    """

    def __init__(
        self, path: Path, *, max_bytes: int | None = None, daily: bool = False, writing: Writing | None = None
    ) -> None:
        super().__init__(f"jsonl://{path}", writing)
        self.path = path
        self._max_bytes = max_bytes
        self._daily = daily
        self._tip: tuple[tuple[int, int], Head] | None = None

    @classmethod
    def from_url(cls, url: str, writing: Writing | None = None) -> Self:
        """``jsonl:///path``, with ``?max_bytes=N&daily=1`` or one of them. Raises as `AuditStore.from_url`."""
        path, options = _split(url.partition("://")[2])
        if unknown := sorted(options.keys() - {"max_bytes", "daily"}):
            raise AuditError(f"cannot use the audit URL {url!r}: unknown {', '.join(unknown)}", hint="max_bytes, daily")
        max_bytes, daily = options.get("max_bytes"), options.get("daily", "0")
        if (max_bytes is not None and not re.fullmatch("[0-9]{1,18}", max_bytes)) or daily not in ("0", "1"):
            raise AuditError(f"cannot use the audit URL {url!r}", hint="max_bytes is a number, daily 0 or 1")
        return cls(
            local_path(url, path),
            max_bytes=int(max_bytes) if max_bytes else None,
            daily=daily == "1",
            writing=writing,
        )

    def write(self, items: Sequence[Item]) -> None:
        try:
            self._append([("record", item.payload) for item in items])
        except OSError as exc:
            raise AuditError(f"cannot write the audit log {self.path}: {exc.strerror}", hint=ELSEWHERE) from exc

    def has(self, calls: Collection[str]) -> set[str]:
        return {record.call_id for record in self.records() if record.call_id in calls}

    def entries(self) -> Iterator[Entry | Unsealed | Broken]:
        for line in self._lines():
            yield read_line(line.data, f"{line.path}:{line.number}", ended=line.ended)

    def size(self) -> int:
        return sum(1 for _ in self._lines())

    def heads(self) -> list[Head]:
        heads: dict[str, Head] = {}
        for found in self.entries():
            match found:
                case Entry():
                    heads[found.writer] = found.head
                case Unsealed():
                    heads[UNSEALED] = heads.get(UNSEALED, Head(writer=UNSEALED)).with_unsealed(found.line)
                case Broken():
                    pass
        return list(heads.values())

    def purge(self, before: datetime) -> int:
        try:
            with locked(self.path) as file:
                size = self._heal(file)
                old = _Old.of(self._held_lines(file), before)
                if old.records:
                    self._extend(file, [("purge", Purge.of(before, old.heads, old.purges))])
                    self._cut(*(old.first_kept or (self.path, size)))
        except OSError as exc:
            raise AuditError(f"cannot purge the audit log {self.path}: {exc.strerror}") from exc
        return old.records

    def after(self, cursor: str | None = None, wanted: Filter | None = None) -> News:
        """As `AuditStore.after`. A file that has not grown is not read again."""
        count, _, seen = (cursor or "").partition("@")
        state = self._state()
        if cursor is not None and seen == state:
            return News((), cursor)
        news = super().after(count if cursor is not None else None, wanted)
        return News(news.calls, f"{news.cursor}@{state}")

    def _state(self) -> str:
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return "none"
        except OSError as exc:
            raise AuditError(f"cannot read the audit log {self.path}: {exc.strerror}") from exc
        return f"{stat.st_ino}:{stat.st_size}"

    def _append(self, bodies: Sequence[tuple[Kind, str]]) -> None:
        coming = sum(len(payload) + 300 for _, payload in bodies)
        while True:
            with locked(self.path) as file:
                if self._is_full(file, coming):
                    turn_over(self.path)
                    continue
                self._extend(file, bodies)
                return

    def _extend(self, file: int, bodies: Sequence[tuple[Kind, str]]) -> None:
        size = self._heal(file)
        entries = seal(self._head(file), bodies)
        data = b"".join(entry.line() + b"\n" for entry in entries)
        if size and os.pread(file, 1, size - 1) != b"\n":
            data = b"\n" + data
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
        except OSError:
            os.ftruncate(file, size)
            raise
        if size == 0:
            sync_folder(self.path.parent)
        self._tip = (_identity(file), entries[-1].head)

    def _is_full(self, file: int, coming: int) -> bool:
        stat = os.fstat(file)
        if not stat.st_size:
            return False
        if self._max_bytes is not None and stat.st_size + coming > self._max_bytes:
            return True
        today = datetime.now(UTC).date()
        return self._daily and datetime.fromtimestamp(stat.st_mtime, UTC).date() != today

    @staticmethod
    def _heal(file: int) -> int:
        """Take away the beginning of a line that a crash has left; the file's size then."""
        size = os.fstat(file).st_size
        if not size or os.pread(file, 1, size - 1) == b"\n":
            return size
        start, data = last_line(file)
        found = read_line(data, "", ended=False)
        if not (isinstance(found, Broken) and found.kind == "torn"):
            return size
        os.ftruncate(file, start)
        return start

    def _head(self, file: int) -> Head:
        """The last entry before what is written next; a new chain where there is none."""
        if self._tip is not None and self._tip[0] == _identity(file):
            return self._tip[1]
        if os.fstat(file).st_size:
            entry = Entry.parse(last_line(file)[1].removesuffix(b"\n"))
            return entry.head if entry else Head(writer=new_writer())
        for part in reversed(parts_of(self.path)):
            with part.open("rb") as stream:
                entry = Entry.parse(last_line(stream.fileno())[1].removesuffix(b"\n"))
                return entry.head if entry else Head(writer=new_writer())
        return Head(writer=new_writer())

    def _lines(self) -> Iterator[Line]:
        try:
            with opened(self.path) as found:
                if found is None:
                    parts = parts_of(self.path)
                    yield from self._lines_of_parts(parts)
                    return
                file, parts = found
                yield from self._lines_of_parts(parts)
                yield from lines_of(self.path, file)
        except OSError as exc:
            raise AuditError(f"cannot read the audit log {self.path}: {exc.strerror}") from exc

    def _held_lines(self, file: int) -> Iterator[Line]:
        """As `_lines`, for who holds the lock."""
        yield from self._lines_of_parts(parts_of(self.path))
        yield from lines_of(self.path, file)

    @staticmethod
    def _lines_of_parts(parts: Sequence[Path]) -> Iterator[Line]:
        for part in parts:
            with part.open("rb") as stream:
                yield from lines_of(part, stream.fileno())

    def _cut(self, path: Path, start: int) -> None:
        """Take out everything before a line."""
        for part in [*parts_of(self.path), self.path]:
            if part == path:
                break
            part.unlink()
        if start:
            replace_start(path, start)
        sync_folder(self.path.parent)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Old:
    """The lines at the start of a log that a purge takes out: all before the first that is young enough to stay.

    Attributes:
        records: how many of them are records.
        heads: the last entry of each chain among them.
        first_kept: the file and the offset of the first line that stays; None where none stays.
        purges: the payloads of all purges in the log, wherever they stand.
    """

    records: int
    heads: Sequence[Head]
    first_kept: tuple[Path, int] | None
    purges: Sequence[str]

    @classmethod
    def of(cls, lines: Iterable[Line], before: datetime) -> Self:
        records, first_kept = 0, None
        heads: dict[str, Head] = {}
        purges: list[str] = []
        for line in lines:
            found = read_line(line.data, f"{line.path}:{line.number}", ended=line.ended)
            if isinstance(found, Entry) and found.kind == "purge":
                purges.append(found.payload)
            if first_kept is None and not _older(found, before):
                first_kept = line.path, line.start
            if first_kept is None:
                records += _is_record(found)
                if isinstance(found, Entry):
                    heads[found.writer] = found.head
        return cls(records=records, heads=list(heads.values()), first_kept=first_kept, purges=purges)


def _older(found: Entry | Unsealed | Broken, than: datetime) -> bool:
    """Raises AuditError for an entry of which nobody can say how old it is: it must not go in silence."""
    match found:
        case Entry(kind="purge"):
            when = Purge.read(found.payload, found.where).at
        case Entry():
            when = found.record().ended_at
        case Unsealed():
            when = found.record.ended_at
        case Broken():
            return found.kind == "torn"
    return datetime.fromisoformat(when) < than


def _is_record(found: Entry | Unsealed | Broken) -> bool:
    return isinstance(found, Unsealed) or (isinstance(found, Entry) and found.kind == "record")


def _identity(file: int) -> tuple[int, int]:
    stat = os.fstat(file)
    return stat.st_ino, stat.st_size


def _split(rest: str) -> tuple[str, dict[str, str]]:
    """Path and options. A question mark that no options follow belongs to the path."""
    path, mark, query = rest.rpartition("?")
    if mark and re.fullmatch(r"\w+=\w*(&\w+=\w*)*", query):
        return path, dict(option.split("=", 1) for option in query.split("&"))
    return rest, {}
