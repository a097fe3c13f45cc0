"""A log's file and the parts that were turned over, under a lock that threads and processes share."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from stars_guard.audit.private_files import tighten
from stars_guard.errors import AuditError

__all__ = [
    "ELSEWHERE",
    "Line",
    "last_line",
    "lines_of",
    "local_path",
    "locked",
    "opened",
    "parts_of",
    "replace_start",
    "sync_folder",
    "turn_over",
]

_BLOCK = 1 << 16

ELSEWHERE = "name another place in the policy's audit.url, or set XDG_STATE_HOME to a folder that can be written"
"""What to do where the log's place can't be written, such as the home directory of many containers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line, without its end; ``ended`` is whether it had one, ``start`` where it begins in the file."""

    path: Path
    number: int
    start: int
    data: bytes
    ended: bool


def parts_of(path: Path) -> list[Path]:
    """What the file was before it was turned over, oldest first: ``audit.jsonl.000001`` and so on."""
    if not path.parent.is_dir():
        return []
    pattern = re.compile(re.escape(path.name) + r"\.(\d{6,})")
    found = [(int(match[1]), each) for each in path.parent.iterdir() if (match := pattern.fullmatch(each.name))]
    return [each for _, each in sorted(found)]


def turn_over(path: Path) -> None:
    """Make the file a part; the next write begins a new one."""
    parts = parts_of(path)
    number = int(parts[-1].name.rpartition(".")[2]) + 1 if parts else 1
    path.rename(path.with_name(f"{path.name}.{number:06d}"))
    for part in parts:
        tighten(part)
    sync_folder(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """The file, opened for appending and held for this writer alone. It is made when it is not there.

    Only its owner may read it then, also where others could before.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(file, path):
                tighten(file)
                yield file
                return
        finally:
            os.close(file)


@contextmanager
def opened(path: Path) -> Iterator[tuple[int, list[Path]] | None]:
    """The file as it is now, and its parts of the same moment, for reading; None where there is no file."""
    while True:
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            yield None
            return
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
            if not _is_at(file, path):
                continue
            parts = parts_of(path)
            fcntl.flock(file, fcntl.LOCK_UN)
            yield file, parts
            return
        finally:
            os.close(file)


def lines_of(path: Path, file: int) -> Iterator[Line]:
    """The lines that an open file has now. Empty ones are left out."""
    left, start, number = os.fstat(file).st_size, 0, 0
    with open(file, "rb", closefd=False) as stream:
        stream.seek(0)
        while left > 0:
            line = stream.readline(left)
            if not line:
                return
            number += 1
            left -= len(line)
            bare = line.removesuffix(b"\n")
            if bare:
                yield Line(path=path, number=number, start=start, data=bare, ended=bare != line)
            start += len(line)


def last_line(file: int) -> tuple[int, bytes]:
    """Where the last line of an open file begins, and what it is, with its end."""
    size = os.fstat(file).st_size
    block = _BLOCK
    while True:
        start = max(0, size - block)
        data = os.pread(file, size - start, start)
        at = data.rfind(b"\n", 0, len(data) - 1)
        if at >= 0 or start == 0:
            return start + at + 1, data[at + 1 :]
        block *= 4


def replace_start(path: Path, start: int) -> None:
    """Put a file that begins at ``start`` of this one in its place, in one step."""
    beside = path.with_name(path.name + ".purging")
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # a purge that was cut off may have left one; a link would be followed
        beside.unlink(missing_ok=True)
        target = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            while data := os.pread(source, _BLOCK, start):
                start += os.write(target, data)
            os.fsync(target)
        finally:
            os.close(target)
    finally:
        os.close(source)
    beside.rename(path)
    sync_folder(path.parent)


def local_path(url: str, path: str) -> Path:
    """The path in a URL of a file, absolute, so that a later chdir does not split the log.

    Args:
        path: what comes after ``scheme://``, without options.

    Raises:
        AuditError: the URL has no path that a file can have, or there is no home directory.
    """
    if not path or path.endswith("/"):
        raise AuditError(f"cannot use the audit URL {url!r}", hint="it needs the path of a file")
    try:
        found = Path(unquote(path)).expanduser().absolute()
    except RuntimeError as exc:
        raise AuditError(f"cannot use the audit URL {url!r}: there is no home directory") from exc
    try:
        usable = b"\0" not in os.fsencode(found) and found.name not in ("", "..")
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise AuditError(f"cannot use the audit URL {url!r}: no file can have this path")
    return found


def sync_folder(folder: Path) -> None:
    """Make names durable that were made or changed in a folder."""
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
